"""`chimera state`: state that agents share; and where all state is kept."""

from pathlib import Path
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import options_of, run
from chimera.entrypoints.cli.identity import limit_option, pages

SPACE_COLUMNS = (
    ("space", "SPACE"),
    ("owner", "OWNER"),
    ("version", "VERSION"),
    ("entries", "KEYS"),
    ("size", "BYTES"),
    ("changed", "CHANGED"),
)
ENTRY_COLUMNS = (("key", "KEY"), ("version", "VERSION"), ("value", "VALUE"))


@click.group(epilog="Example: chimera state spaces list")
def state() -> None:
    """Work with state that agents share, and move all state to a server."""


@state.command(epilog="Example: chimera state move --to 'postgresql://chimera@db.example/chimera?sslmode=verify-full'")
@click.option("--to", metavar="URL", help="The server's empty database, without a password.")
@click.option("--password", metavar="REFERENCE", help="Where its password is: env:NAME, file:PATH or secret:NAME.")
@click.option("--back", is_flag=True, help="Let the file that was moved be used again, as it was when it was moved.")
@out.output_option
@click.pass_context
def move(context: click.Context, /, to: str | None, password: str | None, back: bool, output: str) -> None:
    """Move everything from the home's SQLite file to a PostgreSQL database; Chimera must not run.

    It may be interrupted at any moment: the same command goes on with it. At the end both sides have the same digest,
    the home's settings name the server, and the file stays, marked so that nothing starts on it.
    """
    from chimera.adapters.storage.opening import shown
    from chimera.entrypoints.cli import moving
    from chimera.entrypoints.cli.homes import home_of

    home = home_of(options_of(context))
    if back:
        version = moving.come_back(home)
        out.show({"schema": version}, output if output != "table" else "yaml")
        click.echo("The file can be used again: take node.database out of the settings.", err=True)
        return
    if to is None:
        raise click.UsageError("Give --to URL, or --back.", context)
    done = moving.move(home, to, password, out.progress("copied"))
    out.end_progress()
    settled = moving.settle_settings(home, to, password)
    result = {"to": shown(to), "rows": done.rows, "resumed": done.resumed, "settings": settled, "digests": done.digests}
    if output != "table":
        out.show(result, output)
        return
    before = f", {done.resumed:,} of them by an earlier try" if done.resumed else ""
    click.echo(f"Moved {done.rows:,} rows to {shown(to)}{before}; every table has the same digest on both sides.")
    if settled:
        click.echo("Next: chimera up")
    else:
        click.echo(f'Next: set node.database to "{shown(to)}" where the home gets its settings, then chimera up')


@state.group(epilog="Example: chimera state spaces put board board.yaml")
def spaces() -> None:
    """Declare, read and write spaces, which several agents share."""


@spaces.command(name="list", epilog="Example: chimera state spaces list")
@limit_option
@out.output_option
@click.pass_context
def list_spaces(context: click.Context, /, limit: int, output: str) -> None:
    """List spaces."""
    rows = run(options_of(context), lambda api: pages(api, api.path("spaces"), "spaces", limit))
    told = [
        {**row, "owner": row["declared"].get("owner", "tenant"), "changed": out.moment(row["updated"])} for row in rows
    ]
    out.show(rows, output, columns=SPACE_COLUMNS, rows=told)


@spaces.command(name="show", epilog="Example: chimera state spaces show board")
@click.argument("space")
@out.output_option
@click.pass_context
def show_space(context: click.Context, space: str, output: str) -> None:
    """Show a SPACE: owner, access list, rules, size."""
    found = run(options_of(context), lambda api: api.call("GET", api.path("spaces", space)))
    out.show(found, "json" if output == "json" else "yaml")


@spaces.command(name="put", epilog="Example: chimera state spaces put board board.yaml")
@click.argument("space")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--version", type=click.IntRange(min=0), default=0, show_default=True, help="The version that it has.")
@out.output_option
@click.pass_context
def put_space(context: click.Context, /, space: str, file: Path, version: int, output: str) -> None:
    """Declare a SPACE by a YAML FILE with owner, access, rules, ttl and entry_ttl."""
    import yaml

    declared = yaml.safe_load(file.read_text()) or {}
    body = {"declared": declared, "version": version}
    made = run(options_of(context), lambda api: api.call("PUT", api.path("spaces", space), body))
    out.show(made, "json" if output == "json" else "yaml")


@spaces.command(name="delete", epilog="Example: chimera state spaces delete board --yes")
@click.argument("space")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.pass_context
def delete_space(context: click.Context, space: str, yes: bool) -> None:
    """Erase a SPACE with its keys."""
    if not yes:
        click.confirm(f"Erase space {space}?", abort=True, err=True)
    run(options_of(context), lambda api: api.call("DELETE", api.path("spaces", space)))
    click.echo(f"{space} is erased")


@spaces.command(name="entries", epilog="Example: chimera state spaces entries board --output json")
@click.argument("space")
@limit_option
@out.output_option
@click.pass_context
def entries(context: click.Context, /, space: str, limit: int, output: str) -> None:
    """List the keys of a SPACE with their values."""
    rows = run(options_of(context), lambda api: pages(api, api.path("spaces", space, "entries"), "entries", limit))
    out.show(rows, output, columns=ENTRY_COLUMNS, rows=rows)


@spaces.command(name="write", epilog="""Example: chimera state spaces write board plan '["a"]' --version 3""")
@click.argument("space")
@click.argument("key")
@click.argument("value", required=False)
@click.option("--add", "op", flag_value="add", help="Add the number VALUE to a counter.")
@click.option("--append", "op", flag_value="append", help="Append VALUE to a list.")
@click.option("--delete", "op", flag_value="delete", help="Remove the key.")
@click.option("--version", type=click.IntRange(min=0), help="The version that the key has; 0: it isn't there.")
@out.output_option
@click.pass_context
def write(
    context: click.Context,
    /,
    space: str,
    key: str,
    value: str | None,
    op: str | None,
    version: int | None,
    output: str,
) -> None:
    """Write the JSON VALUE to a KEY of a SPACE, by the key's rule."""
    change: dict[str, Any] = {"key": key, "op": op or "set"}
    if op != "delete":
        change["value"] = _json(value)
    if version is not None:
        change["version"] = version
    body = {"write": [change]}
    done = run(options_of(context), lambda api: api.call("POST", api.path("spaces", space, "entries"), body))
    out.show(done, output, columns=ENTRY_COLUMNS, rows=done["entries"])


def _json(value: str | None) -> Any:
    import msgspec

    if value is None:
        raise click.UsageError("Give a value, as JSON: 'text' is '\"text\"'.")
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise click.UsageError(f"The value is no JSON: {error}") from error
