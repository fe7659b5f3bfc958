"""`chimera rollout`: bring definitions to production wave by wave, follow that, and say what is wanted of it."""

import sys
from collections.abc import AsyncIterator
from typing import Any

import click
import msgspec

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.applying import stage_paths, tell_faults
from chimera.entrypoints.cli.client import Api, options_of, problem_of, run
from chimera.entrypoints.cli.failing import INVALID, TRY_AGAIN
from chimera.entrypoints.cli.identity import limit_option, pages
from chimera.entrypoints.cli.text import clean

COLUMNS = (
    *(("id", "ROLLOUT"), ("state", "STATE"), ("moved_of", "MOVED"), ("wave_of", "WAVE"), ("by", "BY")),
    *(("since", "UPDATED"), ("title", "TITLE")),
)
AGENT_COLUMNS = (
    *(("agent", "AGENT"), ("wave", "WAVE"), ("phase", "PHASE"), ("weight", "WEIGHT"), ("new", "NEW: FAILED/CALLS")),
    *(("old", "OLD: FAILED/CALLS"), ("strength", "EVIDENCE"), ("reason", "WHY")),
)
ENDED = ("done", "rolled-back", "aborted")
_GONE = 404
LATER = ("pending", "skipped")


@click.group(epilog="Example: chimera rollout start agents/ --watch")
def rollout() -> None:
    """Roll definitions out: wave by wave, blue-green, watched, kept or taken back by itself."""


@rollout.command(epilog="Example: chimera rollout start agents/ --set bake_seconds=600 --watch")
@click.argument("paths", nargs=-1)
@click.option("--remove", multiple=True, metavar="AGENT", help="Take this agent out of service; may repeat.")
@click.option("--title", default="", help="What it is about; default: the agents.")
@click.option("--at-once", is_flag=True, help="Move all calls of an agent in one step, not bit by bit.")
@click.option(
    *("--set", "settings"),
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of this rollout, as in `delivery.rollout_…`, without that beginning; may repeat.",
)
@click.option("--watch", "watched", is_flag=True, help="Follow it to its end; the exit code says how it ended.")
@out.output_option
@click.pass_context
def start(
    context: click.Context,
    /,
    paths: tuple[str, ...],
    remove: tuple[str, ...],
    title: str,
    at_once: bool,
    settings: tuple[str, ...],
    watched: bool,
    output: str,
) -> int:
    """Roll out the definitions in PATHS: files, folders, globs, archives or standard input (-)."""
    if not paths:
        raise click.UsageError("name definitions; agents alone are taken out by `chimera delete`", context)
    policy = _policy(context, settings)
    if at_once:
        policy["steps"] = [100.0]

    async def work(api: Api) -> dict[str, Any]:
        told, batch = await stage_paths(api, paths)
        if output == "table":
            tell_faults(told)
        if told["refused"]:
            return {"faults": told["faults"]}
        if batch is None and not remove:
            return {}
        body = {"batch": batch, "title": title, "remove": list(remove), "policy": policy}
        begun: dict[str, Any] = await api.call_once(api.path("rollouts"), body)
        return await _follow(api, begun["id"], output) if watched else begun

    found = run(options_of(context), work)
    if "state" not in found:
        return _nothing_begun(found, output)
    if not watched:
        _tell(found, output)
    return _code(found) if watched else 0


def _nothing_begun(found: dict[str, Any], output: str) -> int:
    """Say why: definitions have faults, or all of it is live."""
    if output != "table":
        out.show(found, output)
    elif "faults" in found:
        click.echo("Nothing was begun.\nNext: mend the faults.", err=True)
    else:
        click.echo("All of it is live as it is.")
    return INVALID if "faults" in found else 0


@rollout.command(name="list", epilog="Example: chimera rollout list --output json")
@limit_option
@out.output_option
@click.pass_context
def list_rollouts(context: click.Context, limit: int, output: str) -> None:
    """List rollouts, the newest first."""
    found = run(options_of(context), lambda api: pages(api, api.path("rollouts"), "rollouts", limit))
    out.show(found, output, columns=COLUMNS, rows=[_row(one) for one in found])


@rollout.command(epilog="Example: chimera rollout show rollout_01…")
@click.argument("rollout_id", metavar="ROLLOUT")
@limit_option
@out.output_option
@click.pass_context
def show(context: click.Context, rollout_id: str, limit: int, output: str) -> None:
    """Show a ROLLOUT with its agents: phase, weight, what was seen on both sides, and how much that says."""

    async def look(api: Api) -> dict[str, Any]:
        found: dict[str, Any] = await api.call("GET", api.path("rollouts", rollout_id))
        agents = await pages(api, api.path("rollouts", rollout_id, "agents"), "agents", limit)
        return {**found, "members": agents}

    found = run(options_of(context), look)
    if output != "table":
        out.show(found, output)
        return
    _tell(found, output)
    click.echo()
    out.table(AGENT_COLUMNS, [_agent_row(one) for one in found["members"]])
    if found["agents"] > len(found["members"]):
        click.echo(f"… and {found['agents'] - len(found['members']):,} more; --limit shows them")


@rollout.command(epilog="Example: chimera rollout watch rollout_01…")
@click.argument("rollout_id", metavar="ROLLOUT")
@out.output_option
@click.pass_context
def watch(context: click.Context, rollout_id: str, output: str) -> int:
    """Follow a ROLLOUT to its end; the exit code is 0 where it is done, 65 where it was taken back."""
    return _code(run(options_of(context), lambda api: _follow(api, rollout_id, output)))


def _asking(verb: str, text: str) -> click.Command:
    @rollout.command(name=verb, help=text, epilog=f"Example: chimera rollout {verb} rollout_01…")
    @click.argument("rollout_id", metavar="ROLLOUT")
    @click.option("--reason", default="", help="Why; it is shown and written down.")
    @out.output_option
    @click.pass_context
    def ask(context: click.Context, rollout_id: str, reason: str, output: str) -> None:
        path = ("rollouts", rollout_id, verb)
        _tell(run(options_of(context), lambda api: api.call("POST", api.path(*path), {"reason": reason})), output)

    return ask


pause = _asking("pause", "Have a ROLLOUT go no further; what is worse than before is taken back all the same.")
resume = _asking("resume", "Have a paused ROLLOUT go on.")
abort = _asking("abort", "Take back all of a ROLLOUT.")


async def _follow(api: Api, rollout_id: str, output: str) -> dict[str, Any]:
    """Show a rollout as it goes on; what it was in the end."""
    if output == "table" and sys.stderr.isatty():
        return await _bar(api, rollout_id)
    found: dict[str, Any] = {}
    async for found in _events(api, rollout_id):
        if output == "table":
            click.echo(clean(_line(found)))
        else:
            out.show_next(found, output)
    return found


async def _events(api: Api, rollout_id: str) -> AsyncIterator[dict[str, Any]]:
    """A rollout each time it changes, over as many streams as it takes until it is over."""
    while True:
        async for name, data in api.events(api.path("rollouts", rollout_id, "events")):
            if name == "rollout":
                yield data
                if data["state"] in ENDED:
                    return
            elif name == "problem" and data["status"] == _GONE:
                raise problem_of(_GONE, msgspec.json.encode(data))


async def _bar(api: Api, rollout_id: str) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    found: dict[str, Any] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        under_way = bar.add_task("on the way")
        moved = bar.add_task("moved")
        async for found in _events(api, rollout_id):
            begun = found["agents"] - sum(found["phases"].get(phase, 0) for phase in LATER)
            words = f"wave {found['wave']} of {found['waves']}"
            bar.update(under_way, description=f"{words}: on the way", total=found["agents"], completed=begun)
            bar.update(moved, description=f"{found['state']}: moved", total=found["agents"], completed=found["moved"])
    click.echo(clean(_line(found)))
    return found


def _line(found: dict[str, Any]) -> str:
    phases = ", ".join(f"{count:,} {phase}" for phase, count in sorted(found["phases"].items()))
    why = f": {found['reason']}" if found.get("reason") else ""
    low = found["strengths"].get("low", 0)
    marked = f"; low evidence: {low:,}" if low and found["state"] == "done" else ""
    return (
        f"{found['id']} {found['state']}: {found['moved']:,} of {found['agents']:,} moved, "
        f"wave {found['wave']} of {found['waves']} ({phases}){marked}{why}"
    )


def _tell(found: dict[str, Any], output: str) -> None:
    if output != "table":
        out.show(found, output)
        return
    click.echo(clean(_line(found)))
    if found["state"] not in ENDED:
        click.echo(f"Next: `chimera rollout watch {found['id']}`.", err=True)


def _row(one: dict[str, Any]) -> dict[str, Any]:
    return {
        **one,
        "moved_of": f"{one['moved']:,}/{one['agents']:,}",
        "wave_of": f"{one['wave']}/{one['waves']}",
        "since": out.moment(one["updated"]),
    }


def _agent_row(one: dict[str, Any]) -> dict[str, Any]:
    def side(counts: list[int]) -> str:
        return f"{counts[1]:,}/{counts[0]:,}"

    return {**one, "weight": f"{one['weight']:g}%", "new": side(one["new"]), "old": side(one["old"])}


def _code(found: dict[str, Any]) -> int:
    if found.get("state") == "done":
        return 0
    return INVALID if found.get("state") in ENDED else TRY_AGAIN


def _policy(context: click.Context, settings: tuple[str, ...]) -> dict[str, Any]:
    """Settings as the API takes them: numbers, and lists of numbers with commas."""
    policy: dict[str, Any] = {}
    for one in settings:
        name, given, text = one.partition("=")
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            raise click.UsageError(f"--set {one!r}: it takes NAME=NUMBER, or numbers with commas", context) from None
        if not given:
            raise click.UsageError(f"--set {one!r}: it takes NAME=NUMBER", context)
        whole = [int(number) if number.is_integer() else number for number in numbers]
        policy[name] = whole if "," in text or name in ("steps", "waves") else whole[0]
    return policy
