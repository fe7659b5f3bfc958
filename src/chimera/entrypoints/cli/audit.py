"""`chimera audit`: the commands. What verifies and signs has a module of its own, since that imports the storage."""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.failing import INVALID
from chimera.entrypoints.cli.identity import Duration
from chimera.entrypoints.cli.text import clean

PAGE = 1_000
COLUMNS = (
    ("seq", "SEQ"),
    ("time", "TIME"),
    ("actor", "ACTOR"),
    ("action", "ACTION"),
    ("resource", "RESOURCE"),
    ("decision", "DECISION"),
    ("outcome", "OUTCOME"),
)
CHECKPOINT_COLUMNS = (("size", "ENTRIES"), ("time", "TIME"), ("log", "LOG"), ("root", "ROOT"))
FINDING_COLUMNS = (("kind", "WHAT"), ("seq", "FROM"), ("until", "TO"), ("detail", "WHY"))


@click.group(epilog="Example: chimera audit verify")
def audit() -> None:
    """List, export and verify the audit log. With --tenant '*' the log of the whole platform."""


@audit.command(name="list", epilog="Example: chimera audit list --resource agents/anna --since 24h")
@click.option("--actor", help="Only entries of this actor, such as key:0123456789abcdef.")
@click.option("--action", help="Only entries of this action, such as agent:invoke or agent.updated.")
@click.option("--resource", help="Only entries about this and what is below it, such as agents/anna.")
@click.option("--decision", type=click.Choice(["allow", "deny", "none"]), help="Only entries with this decision.")
@click.option("--outcome", help="Only entries with this outcome: done, ok, or an error's code.")
@click.option("--call", help="Only entries of this call.")
@click.option("--since", type=Duration(), help="Only entries younger than this, such as 2h or 7d.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most entries to list.")
@out.output_option
@click.pass_context
def list_entries(context: click.Context, /, since: float | None, limit: int, output: str, **wanted: str | None) -> None:
    """List entries, newest first."""
    query = {name: value for name, value in wanted.items() if value is not None}
    if since is not None:
        query["since"] = repr(time.time() - since)
    rows = run(options_of(context), lambda api: _entries(api, query, limit))
    told = [{**row["entry"], "seq": row["seq"], "time": out.moment(row["entry"]["at"])} for row in rows]
    out.show(rows, output, columns=COLUMNS, rows=told)


@audit.command(name="export", epilog="Example: chimera audit export --to audit.jsonl")
@click.option("--after", type=click.IntRange(min=0), default=0, show_default=True, help="Only entries after this one.")
@click.option("--to", type=click.Path(dir_okay=False), help="File to write; default: standard output.")
@click.pass_context
def export(context: click.Context, /, after: int, to: str | None) -> None:
    """Write entries as JSON lines, oldest first, with the bytes that their hashes cover.

    With --tenant '*' the last line is the newest checkpoint that they reach, so that the export verifies by itself.
    """
    options = options_of(context)
    whole = options["tenant"] == "*"
    count = run(options, lambda api: _export(api, after, to, signed=whole))
    if to is not None:
        click.echo(f"{count:,} entries are in {to}")


@audit.command(name="checkpoint", epilog="Example: chimera audit checkpoint --sign --signing-key audit.key")
@click.option("--sign", is_flag=True, help="Sign the next checkpoint here, with a key that only this machine has.")
@click.option("--signing-key", type=click.Path(dir_okay=False, path_type=Path), help="The file of that key.")
@click.option(
    "--remember",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of what was signed here; default: beside the key, with .checkpoints at its end.",
)
@out.output_option
@click.pass_context
def checkpoint(
    context: click.Context, /, sign: bool, signing_key: Path | None, remember: Path | None, output: str
) -> None:
    """Show the newest checkpoints, or sign the next one here.

    What is signed is first held against what was signed here before: a log that was rewritten or set back is refused.
    """
    from chimera.entrypoints.cli import audit_verify

    if sign:
        if signing_key is None:
            raise click.UsageError("--sign needs --signing-key FILE.", context)
        beside = remember or signing_key.with_name(signing_key.name + ".checkpoints")
        made = run(options_of(context), lambda api: audit_verify.sign_next(api, signing_key, beside))
        rows = [] if made is None else [made]
    else:
        rows = run(options_of(context), audit_verify.newest_checkpoints)
    told = [audit_verify.told(one) for one in rows]
    out.show(rows, output, columns=CHECKPOINT_COLUMNS, rows=told)
    if output == "table":
        for row in rows[-1:]:
            click.echo("\n" + clean(row.note))


@audit.command(name="prove", epilog="Example: chimera audit prove 4711")
@click.argument("entry", type=click.IntRange(min=1))
@click.option("--public-key", "public_keys", multiple=True, help="The log's public key, or a file of keys.")
@out.output_option
@click.pass_context
def prove(context: click.Context, /, entry: int, public_keys: tuple[str, ...], output: str) -> None:
    """Prove that ENTRY (its seq) is in the log that a checkpoint signs, without reading the log."""
    from chimera.entrypoints.cli import audit_verify

    keys = audit_verify.keys_of(options_of(context), public_keys)
    proof = run(options_of(context), lambda api: audit_verify.proved(api, entry, keys))
    row = {**msgspec.json.decode(bytes(proof.entry.entry)), "seq": entry}
    row["time"] = out.moment(row["at"])
    out.show(proof, output, columns=COLUMNS, rows=[row])
    if output == "table":
        click.echo(f"It is entry {entry:,} of the {proof.checkpoint.size:,} that the checkpoint signs.")


@audit.command(name="key", epilog="Example: chimera audit key audit.key --make shop.example/audit")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--make", "name", help="Make a key of this name in FILE, which must not be there.")
@out.output_option
@click.pass_context
def key(context: click.Context, /, file: Path, name: str | None, output: str) -> None:
    """Show the public part of the signing key in FILE, or make one. Keep it off the machine of the database."""
    from chimera.adapters.signing.ed25519 import make_key, read_key

    signer = read_key(file) if name is None else make_key(file, name)
    row = {"name": signer.public.name, "public_key": str(signer.public)}
    out.show(row, output, columns=(("name", "NAME"), ("public_key", "PUBLIC KEY")), rows=[row])


@audit.command(name="verify", epilog="Example: chimera audit verify --database chimera.db --public-key keys.txt")
@click.option("--database", help="Verify this database (a file or a URL) and not the API's log.")
@click.option("--database-password", help="Where a server's password is: env:NAME or file:PATH.")
@click.option("--export", "exports", multiple=True, help="Verify exported or archived files, in their order.")
@click.option("--checkpoints", "files", multiple=True, help="File of checkpoints; default: the home's.")
@click.option("--public-key", "public_keys", multiple=True, help="The log's public key, or a file of keys.")
@click.option("--trusted", type=click.IntRange(min=1), help="Begin at the checkpoint of at most so many entries.")
@out.output_option
@click.pass_context
def verify(context: click.Context, /, output: str, **options: Any) -> int:
    """Verify the whole log against its signed checkpoints; ends with 65 if it was altered in any way."""
    from chimera.entrypoints.cli import audit_verify

    shows = sys.stderr.isatty()

    def progress(checked: int, last: int) -> None:
        if shows:
            sys.stderr.write(f"\r{checked:,} entries checked, up to {last:,}")

    report = asyncio.run(audit_verify.verified(options_of(context), audit_verify.Sources(**options), progress))
    if shows:
        sys.stderr.write("\r\x1b[K")
    if output != "table":
        out.show(report, output)
        return 0 if report.ok else INVALID
    click.echo(f"log            {clean(report.log)}")
    click.echo(f"checked        {report.checked:,} entries, {report.first:,} to {report.last:,}")
    click.echo(f"signed         up to {report.signed_through:,}, {report.checkpoints:,} checkpoints")
    if report.removed_through:
        click.echo(f"not looked at  up to {report.removed_through:,}")
    if report.ok:
        click.echo("Nothing was altered.")
        return 0
    click.echo()
    out.table(FINDING_COLUMNS, [msgspec.to_builtins(one) for one in report.findings])
    if report.more_findings:
        click.echo(f"… and {report.more_findings:,} more")
    return INVALID


async def _entries(api: Api, query: dict[str, str], limit: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    page: dict[str, Any] = {**query}
    while len(rows) < limit:
        answer = await api.call("GET", api.path("audit"), query={**page, "limit": min(PAGE, limit - len(rows))})
        rows += answer["entries"]
        if answer["next"] is None:
            break
        page["before"] = answer["next"]
    return rows


async def _export(api: Api, after: int, to: str | None, *, signed: bool) -> int:
    target = sys.stdout.buffer if to is None else Path(to).open("wb")  # noqa: ASYNC230, SIM115 - a command's own file
    count, line = 0, b""
    try:
        async for line in api.raw_lines(api.path("audit", "export"), {"after": after}):
            target.write(line)
            count += 1
        if signed and count:
            from chimera.entrypoints.cli import audit_verify

            last = msgspec.json.decode(line)["seq"]
            reached = [one for one in await audit_verify.newest_checkpoints(api) if one.size <= last]
            target.writelines(msgspec.json.encode({"checkpoint": one}) + b"\n" for one in reached[-1:])
        target.flush()
    finally:
        if to is not None:
            target.close()
    return count
