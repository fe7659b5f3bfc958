"""`chimera backup` and `chimera restore`. They work on the database itself, not by the API."""

from pathlib import Path
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import options_of
from chimera.entrypoints.cli.text import clean

LIST_COLUMNS = (
    ("file", "FILE"),
    ("created", "CREATED"),
    ("release", "RELEASE"),
    ("schema", "SCHEMA"),
    ("rows", "ROWS"),
    ("bytes", "BYTES"),
)


@click.group(epilog="Example: chimera backup create")
def backup() -> None:
    """Make, verify and list backups of the database and of what lies beside it."""


@backup.command(name="create", epilog="Example: chimera backup create /backup/chimera-monday.backup")
@click.argument("path", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--with-keys", is_flag=True, help="Also the home's private keys: audit, chimera, provenance, webhooks.")
@out.output_option
@click.pass_context
def create(context: click.Context, /, path: Path | None, with_keys: bool, output: str) -> None:
    """Write a backup to PATH (default: a new file in the home's backups); the platform may run meanwhile.

    It is one moment of the whole database. Tools' secrets are never in it.
    """
    from chimera.adapters.storage.backup.creating import create_backup
    from chimera.entrypoints.cli.homes import home_of, release, with_database

    home = home_of(options_of(context))
    target = (path or home.new_backup("chimera")).absolute()
    manifest = with_database(
        home,
        lambda database: create_backup(
            database,
            target,
            release=release(),
            files=home.files(keys=with_keys),
            sign=home.signed,
            progress=out.progress("written"),
        ),
    )
    out.end_progress()
    _show(target, manifest, output)


@backup.command(name="verify", epilog="Example: chimera backup verify monday.backup --public-key public-keys")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--public-key", "public_keys", multiple=True, help="The log's public key, or a file of keys.")
@out.output_option
@click.pass_context
def verify(context: click.Context, /, path: Path, public_keys: tuple[str, ...], output: str) -> None:
    """Read and check all of the backup at PATH; with --public-key its signature too. Ends with 65 if it is damaged."""
    from chimera.adapters.storage.backup.archive import reading
    from chimera.adapters.storage.backup.restoring import check_backup
    from chimera.entrypoints.cli.restoring import check_trust

    with reading(path) as reader:
        check_trust(reader, options_of(context), public_keys)
        check_backup(reader)
        manifest = reader.manifest
    _show(path, manifest, output)
    if output == "table":
        click.echo("It is whole." if public_keys else "It is whole. Whose it is was not asked: give --public-key.")


@backup.command(name="list", epilog="Example: chimera backup list --output json")
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@out.output_option
@click.pass_context
def list_backups(context: click.Context, /, folder: Path | None, output: str) -> None:
    """List the backups in FOLDER (default: the home's), newest first, by what they say of themselves."""
    from chimera.adapters.storage.backup.archive import reading
    from chimera.adapters.storage.backup.upgrading import FOLDER, SUFFIX
    from chimera.entrypoints.cli.homes import home_of
    from chimera_host.contract.problem import ProblemError

    where = folder or home_of(options_of(context)).path / FOLDER
    rows: list[dict[str, Any]] = []
    for file in sorted(where.glob(f"*{SUFFIX}")):
        try:
            with reading(file) as reader:
                rows.append({**_told(file, reader.manifest), "at": reader.manifest.created})
        except ProblemError as error:
            rows.append({"file": str(file), "created": error.detail, "at": 0.0, "bytes": file.stat().st_size})
    rows.sort(key=lambda row: row.pop("at"), reverse=True)
    out.show(rows, output, columns=LIST_COLUMNS, rows=rows)


@click.command(epilog="Example: chimera restore /backup/chimera-monday.backup --replace")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Replace what the database holds, after a backup of it.")
@click.option("--discard", is_flag=True, help="With --replace: make no backup of it, as where it can't be read.")
@click.option("--public-key", "public_keys", multiple=True, help="Restore only what this key (or file of keys) signed.")
@out.output_option
@click.pass_context
def restore(
    context: click.Context,
    /,
    path: Path,
    replace: bool,
    discard: bool,
    public_keys: tuple[str, ...],
    output: str,
) -> None:
    """Bring the backup at PATH back into the home's database, which `node.database` names; Chimera must not run.

    All of it is checked before anything is touched, and all of it is restored or nothing.
    """
    from chimera.entrypoints.cli.restoring import restored

    if discard and not replace:
        raise click.UsageError("--discard goes with --replace.", context)
    result = restored(options_of(context), path, public_keys, replace=replace, discard=discard)
    if output != "table":
        out.show(result, output)
        return
    moment = out.moment(result["created"])
    click.echo(f"Restored {result['rows']:,} rows of {moment} into {clean(result['database'])}")
    if result["kept"] is not None:
        click.echo(f"What was there is in {clean(result['kept'])}")
    for step in result["next"]:
        click.echo(f"Next: {clean(step)}")


def _told(file: Path, manifest: Any) -> dict[str, Any]:
    return {
        "file": str(file),
        "created": out.moment(manifest.created),
        "release": manifest.release,
        "schema": manifest.schema,
        "database": manifest.dialect,
        "rows": manifest.rows,
        "bytes": file.stat().st_size,
        "digest": manifest.digest,
        "signed": manifest.signature is not None,
        "files": [one.name for one in manifest.files],
    }


def _show(file: Path, manifest: Any, output: str) -> None:
    told = _told(file, manifest)
    if output != "table":
        tables = {one.layout.table: {"rows": one.rows, "digest": one.digest} for one in manifest.tables}
        out.show({**told, "tables": tables}, output)
        return
    click.echo(clean(str(file)))
    click.echo(f"  made      {told['created']} by release {clean(manifest.release)}, from {clean(manifest.dialect)}")
    click.echo(f"  holds     {manifest.rows:,} rows of {len(manifest.tables)} tables, schema {clean(manifest.schema)}")
    click.echo(f"  beside    {clean(', '.join(told['files'])) or 'nothing'}")
    click.echo(f"  signed    {'by the audit key' if manifest.signature else 'no'}")
    click.echo(f"  digest    {manifest.digest}")
