"""`chimera rollback`."""

from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run, was_lost
from chimera.kernel.ids import new_id
from chimera_host.contract.problem import ProblemError

_SHOWN = (("agent", "AGENT"), ("live", "LIVE"), ("taken", "TAKEN BACK"))
_NOT_ALLOWED = 403


@click.command(epilog="Example: chimera rollback hello --to 4f1c2e, chimera rollback --change chg_01j --now")
@click.argument("agents", nargs=-1, metavar="[AGENT]...")
@click.option("--to", metavar="REVISION", help="A revision's digest or its beginning; default: the one before.")
@click.option(
    *("--from", "taken"),
    metavar="REVISION",
    help="Only where this is what is taken back: asking again then does no harm. Default: what is there now.",
)
@click.option("--now", is_flag=True, help="End the calls that run on what is taken back; else they may finish.")
@click.option("--change", metavar="ID", help="The agents of this change request, back to what they were before it.")
@click.option(
    *("--selector", "selectors"),
    multiple=True,
    metavar="NAME=VALUE",
    help="The agents found by framework, domain, tag, q or cell; several go together.",
)
@click.option("--yes", is_flag=True, help="Don't ask before many are taken back.")
@click.option("--key", help="Name the rollback: asked for again with the same key within a day, it is done once.")
@out.output_option
@click.pass_context
def rollback(
    context: click.Context,
    agents: tuple[str, ...],
    to: str | None,
    taken: str | None,
    now: bool,
    change: str | None,
    selectors: tuple[str, ...],
    yes: bool,
    key: str | None,
    output: str,
) -> None:
    """Make the revision before live again, of each AGENT, of a change, or of agents that a selector finds.

    No new call and no new turn of a session reaches what was taken back, within a second at every gateway. An agent
    that is being rolled out loses its green side. `chimera get revisions AGENT` lists revisions.
    """
    if (bool(agents) + bool(selectors) + (change is not None)) != 1:
        raise click.UsageError("Name agents, or give --change or --selector.")
    if to is not None and len(agents) != 1:
        raise click.UsageError("--to goes with one AGENT.")
    if taken is not None and len(agents) != 1:
        raise click.UsageError("--from goes with one AGENT.")
    if len(agents) == 1:
        _one(context, agents[0], to, taken, now, key, output)
        return
    if selectors and not yes:
        click.confirm(f"Take back all agents with {' and '.join(selectors)}?", abort=True, err=True)
    body: dict[str, Any] = {"now": now}
    if change is not None:
        body["change"] = change
    elif agents:
        body["agents"] = list(agents)
    else:
        body["selector"] = dict(_pair(one) for one in selectors)
    done = run(options_of(context), lambda api: _many(api, body, key or new_id("key")))
    if output != "table":
        out.show(done, output)
    else:
        rows = [
            {
                "agent": one["agent"],
                "live": _short(one["revision"]) or "none: out of service",
                "taken": _short(one["before"]) or "none: it was deleted",
            }
            for one in done["agents"]
        ]
        out.show(rows, output, columns=_SHOWN, rows=rows)
        click.echo(f"{len(rows):,} taken back, {done['unchanged']:,} stood so already", err=True)
    for one in done["refused"]:
        click.echo(f"{one['agent']}: {one['reason']}", err=True)
    if done["refused"]:
        context.exit(65)


async def _many(api: Api, body: dict[str, Any], key: str) -> dict[str, Any]:
    try:
        done: dict[str, Any] = await api.call_once(api.path("rollback"), body, key=key)
    except ProblemError as error:
        if was_lost(error):
            click.echo(f"It isn't known whether they were taken back. Ask again with --key {key}.", err=True)
        raise
    return done


def _one(
    context: click.Context, agent: str, to: str | None, taken: str | None, now: bool, key: str | None, output: str
) -> None:
    async def work(api: Api) -> dict[str, Any]:
        # What is taken back is named: sent again, a rollback would else take back what it has made live.
        expect = taken or await _what_goes(api, agent, to)
        body = {"now": now, "expect": expect} if to is None else {"revision": to, "now": now, "expect": expect}
        try:
            done: dict[str, Any] = await api.call_once(api.path("agents", agent, "rollback"), body, key=key)
        except ProblemError as error:
            if was_lost(error) and expect is not None:
                words = f"It isn't known whether {agent} was taken back. Ask again with --from {_short(expect)}."
                click.echo(words, err=True)
            raise
        return done

    done = run(options_of(context), work)
    live, before = _short(done["revision"]), _short(done["before"])
    if output != "table":
        out.show(done, output)
    elif not live:
        click.echo(f"{agent} is out of service, as it was; {before} was taken back")
    elif live == before:
        click.echo(f"{agent} is at {done['version']} ({live}) already")
    elif not before:
        click.echo(f"{agent} is at {done['version']} ({live}) again: it was deleted")
    else:
        click.echo(f"{agent} is at {done['version']} ({live}), before at {before}")


async def _what_goes(api: Api, agent: str, to: str | None) -> str | None:
    """The revision that would be taken back now: a green side goes first. None where the key may not look."""
    try:
        found = await api.call("GET", api.path("agents", agent))
    except ProblemError as error:
        if error.status == _NOT_ALLOWED:
            return None
        if error.code != "agent-not-found":
            raise
        return "none"  # a deleted agent comes back
    return str(found["green"] or found["revision"] if to is None else found["revision"])


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise click.UsageError(f"{text!r} is no NAME=VALUE, such as domain=finance.")
    return name, value


def _short(revision: str | None) -> str:
    return "" if revision is None else revision.removeprefix("sha256:")[:12]
