"""`chimera upgrade`: bring a home up to this release, or say what that takes."""

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import options_of
from chimera.entrypoints.cli.text import clean

TO_DO = 1
COLUMNS = (("check", "CHECK"), ("state", "STATE"), ("detail", "DETAIL"), ("next", "NEXT"))


@click.command(epilog="Example: chimera upgrade --check")
@click.option("--check", is_flag=True, help="Change nothing; end with 1 where something is to be done.")
@click.option("--no-backup", is_flag=True, help="Make no backup before migrations, as where another was just made.")
@out.output_option
@click.pass_context
def upgrade(context: click.Context, /, check: bool, no_backup: bool, output: str) -> int:
    """Bring the home's database up to this release, after a backup; Chimera must not run in it.

    `chimera up` does the same by itself. With --check: say what would be done. Ends with 0 where nothing is to be done,
    1 where something is, 69 for a database that a newer release has written.
    """
    from chimera.entrypoints.cli import upgrading
    from chimera.entrypoints.cli.homes import home_of

    home = home_of(options_of(context))
    if check:
        rows = upgrading.check(home)
        out.show(rows, output, columns=COLUMNS, rows=rows)
        upgrading.refuse_unusable_database(home)
        return TO_DO if any(row["state"] == "to do" for row in rows) else 0
    done = upgrading.upgrade(home, with_backup=not no_backup)
    if output != "table":
        out.show(done, output)
        return 0
    if done["from"] is None:
        click.echo("The database needs nothing.")
    else:
        click.echo(f"The database went from schema {done['from']} to this release's, and no row is missing.")
    if done["backup"] is not None:
        click.echo(f"To go back: run the release before, and `chimera restore {clean(done['backup'])} --replace`.")
    if left := [row for row in done["checks"] if row["state"] == "to do"]:
        out.table(COLUMNS, left)
    return 0
