"""`chimera rollback`."""

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import options_of, run


@click.command(epilog="Example: chimera rollback hello --to 4f1c2e")
@click.argument("agent")
@click.option("--to", metavar="REVISION", help="A revision's digest or its beginning; default: the one before.")
@out.output_option
@click.pass_context
def rollback(context: click.Context, agent: str, to: str | None, output: str) -> None:
    """Make an earlier revision of an AGENT live again; `chimera get revisions AGENT` lists them."""
    body = {} if to is None else {"revision": to}
    done = run(options_of(context), lambda api: api.call("POST", api.path("agents", agent, "rollback"), body))
    if output != "table":
        out.show(done, output)
    elif done["revision"] == done["before"]:
        click.echo(f"{agent} is at {done['version']} ({_short(done['revision'])}) already")
    else:
        click.echo(f"{agent} is at {done['version']} ({_short(done['revision'])}), before at {_short(done['before'])}")


def _short(revision: str | None) -> str:
    return "none: it was deleted" if revision is None else revision.removeprefix("sha256:")[:12]
