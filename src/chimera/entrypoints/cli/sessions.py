"""`chimera sessions`: what agents keep of conversations, and all that is kept of a person."""

import time
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.identity import Duration, limit_option, pages
from chimera.entrypoints.cli.text import shown

COLUMNS = (
    ("agent", "AGENT"),
    ("session", "SESSION"),
    ("subject", "PERSON"),
    ("version", "VERSION"),
    ("bytes", "BYTES"),
    ("saved", "SAVED"),
    ("ends", "ENDS"),
)
KINDS = ("sessions", "runs", "steps", "checkpoints", "answers", "tasks", "copies")


@click.group(epilog="Example: chimera sessions list --subject ann@example.org")
def sessions() -> None:
    """List, show, export and erase sessions, and all that is kept of a person."""


@sessions.command(name="list", epilog="Example: chimera sessions list clerk --idle 30d")
@click.argument("agent", required=False)
@click.option("--subject", help="Only sessions of this person.")
@click.option("--idle", type=Duration(), help="Only sessions not saved for so long, such as 12h or 30d.")
@limit_option
@out.output_option
@click.pass_context
def list_sessions(
    context: click.Context, /, agent: str | None, subject: str | None, idle: float | None, limit: int, output: str
) -> None:
    """List sessions, of AGENT or of all agents."""
    query: dict[str, Any] = {"subject": subject} if subject is not None else {}
    query |= {"updated_before": time.time() - idle} if idle is not None else {}
    below = ("sessions",) if agent is None else ("agents", agent, "sessions")
    rows = run(options_of(context), lambda api: pages(api, api.path(*below), "sessions", limit, query))
    told = [
        {
            **row,
            "bytes": row["size"],
            "saved": out.moment(row["updated"]),
            "ends": out.moment(row["expires"]) if row.get("expires") else None,
        }
        for row in rows
    ]
    out.show(rows, output, columns=COLUMNS, rows=told)


@sessions.command(name="show", epilog="Example: chimera sessions show clerk s-1 --output json")
@click.argument("agent")
@click.argument("session")
@out.output_option
@click.pass_context
def show_session(context: click.Context, agent: str, session: str, output: str) -> None:
    """Show a SESSION of AGENT with its conversation."""
    found = run(options_of(context), lambda api: api.call("GET", api.path("agents", agent, "sessions", session)))
    out.show(found, "json" if output == "json" else "yaml")


@sessions.command(name="export", epilog="Example: chimera sessions export --subject ann@example.org > ann.jsonl")
@click.argument("agent", required=False)
@click.argument("session", required=False)
@click.option("--subject", help="All that is kept of this person, instead of one session.")
@click.pass_context
def export(context: click.Context, agent: str | None, session: str | None, subject: str | None) -> None:
    """Print all that is kept of one SESSION of AGENT, or of a person: a JSON record a line."""
    if (subject is None) == (agent is None or session is None):
        raise click.UsageError("Name an agent and a session, or a person: chimera sessions export --subject PERSON.")

    async def work(api: Api) -> None:
        below = ("subjects", subject) if subject else ("agents", agent or "", "sessions", session or "")
        async for record in api.lines(api.path(*below, "export"), {}):
            click.echo(shown(_line(record)))

    run(options_of(context), work)


@sessions.command(name="delete", epilog="Example: chimera sessions delete clerk s-1 --yes")
@click.argument("agent")
@click.argument("names", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.pass_context
def delete(context: click.Context, agent: str, names: tuple[str, ...], yes: bool) -> None:
    """Erase sessions of AGENT by their names, with their unfinished work and checkpoints."""
    if not yes:
        click.confirm(f"Erase {len(names)} sessions of {agent}?", abort=True, err=True)

    async def work(api: Api) -> None:
        for name in names:
            await api.call("DELETE", api.path("agents", agent, "sessions", name))

    run(options_of(context), work)
    click.echo(f"{len(names)} erased")


@sessions.command(name="person", epilog="Example: chimera sessions person ann@example.org")
@click.argument("subject")
@out.output_option
@click.pass_context
def person(context: click.Context, subject: str, output: str) -> None:
    """Show how much is kept of the person SUBJECT, over all agents."""
    found = run(options_of(context), lambda api: api.call("GET", api.path("subjects", subject)))
    _counts(found, output)


@sessions.command(name="erase", epilog="Example: chimera sessions erase ann@example.org --yes")
@click.argument("subject")
@click.option("--yes", is_flag=True, help="Don't ask.")
@out.output_option
@click.pass_context
def erase(context: click.Context, subject: str, yes: bool, output: str) -> None:
    """Erase all that is kept of the person SUBJECT, over all agents. It can't be undone."""
    if not yes:
        click.confirm(f"Erase all that is kept of {subject}?", abort=True, err=True)
    done = run(options_of(context), lambda api: api.call("DELETE", api.path("subjects", subject)))
    _counts(done, output)


def _counts(found: dict[str, Any], output: str) -> None:
    rows = [{"kind": kind, "count": found["kept"].get(kind, 0)} for kind in KINDS]
    out.show(found, output, columns=(("kind", "KIND"), ("count", "COUNT")), rows=rows)


def _line(record: Any) -> str:
    import msgspec

    return msgspec.json.encode(record).decode()
