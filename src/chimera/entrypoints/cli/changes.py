"""`chimera change`: change requests from their opening to their end, freeze windows, and the delivery policy."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.applying import stage_paths, tell_faults, title_of
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.failing import INVALID
from chimera.entrypoints.cli.identity import limit_option, pages
from chimera.entrypoints.cli.text import shown
from chimera_host.contract.problem import ProblemError

LOOK_EVERY = 1.0
UNAVAILABLE, MOST_AWAY = 503, 60
GOOD, BAD = ("done",), ("failed", "rejected", "rolled-back", "aborted", "superseded")
COLUMNS = (
    *(("id", "CHANGE"), ("state", "STATE"), ("risk", "RISK"), ("agents", "AGENTS")),
    *(("by", "BY"), ("since", "UPDATED"), ("review", "REVIEW"), ("title", "TITLE")),
)
FREEZE_COLUMNS = (
    *(("name", "FREEZE"), ("starts", "FROM"), ("ends", "TO"), ("zone", "ZONE"), ("days", "DAYS")),
    *(("least_risk", "RISK FROM"), ("reason", "REASON")),
)
remove_option = click.option("--remove", multiple=True, metavar="AGENT", help="Take this agent out; may repeat.")
wait_option = click.option("--wait", is_flag=True, help="Follow it until it has ended; the exit code says how.")


@click.group(epilog="Example: chimera change open agents/ --title 'Better greetings' --wait")
def change() -> None:
    """Change agents by change requests: checked, approved by somebody else, and then made live."""


@change.command(name="open", epilog="Example: chimera change open agents/ --title 'Better greetings'")
@click.argument("paths", nargs=-1)
@remove_option
@click.option("--title", help="What it is about; default: the paths.")
@click.option("--description", default="", help="Why it is made.")
@click.option("--supersede", is_flag=True, help="Your older changes of the same agents give way.")
@click.option("--emergency", default="", metavar="REASON", help="Take the emergency path, for this reason.")
@wait_option
@out.output_option
@click.pass_context
def open_change(
    context: click.Context,
    /,
    paths: tuple[str, ...],
    remove: tuple[str, ...],
    title: str | None,
    wait: bool,
    output: str,
    **more: Any,
) -> int:
    """Open a change of the definitions in PATHS (files, folders, globs, archives or -), and of agents to take out."""
    if not paths and not remove:
        raise click.UsageError("name definitions, or agents with --remove", context)
    asked = {"title": title or title_of((*paths, *(f"-{name}" for name in remove))), "remove": list(remove), **more}

    async def work(api: Api) -> dict[str, Any]:
        batch, refused = await _staged(api, paths, output)
        if refused is not None:
            return refused
        made: dict[str, Any] = await api.call_once(api.path("changes"), {**asked, "batch": batch})
        return await _follow(api, made["id"]) if wait else made

    return _told(run(options_of(context), work), output, waited=wait)


@change.command(name="amend", epilog="Example: chimera change amend chg_01… agents/")
@click.argument("change_id", metavar="CHANGE")
@click.argument("paths", nargs=-1)
@remove_option
@wait_option
@out.output_option
@click.pass_context
def amend(
    context: click.Context,
    /,
    change_id: str,
    paths: tuple[str, ...],
    remove: tuple[str, ...],
    wait: bool,
    output: str,
) -> int:
    """Give a CHANGE other content, all of it; what was checked and approved counts no more."""
    if not paths and not remove:
        raise click.UsageError("name definitions, or agents with --remove", context)

    async def work(api: Api) -> dict[str, Any]:
        batch, refused = await _staged(api, paths, output)
        if refused is not None:
            return refused
        body = {"batch": batch, "remove": list(remove)}
        made: dict[str, Any] = await api.call_once(api.path("changes", change_id, "content"), body, method="PUT")
        return await _follow(api, made["id"]) if wait else made

    return _told(run(options_of(context), work), output, waited=wait)


@change.command(name="list", epilog="Example: chimera change list --state in-flight")
@click.option("--state", help="Only changes in this state; in-flight: that haven't ended.")
@click.option("--agent", help="Only changes that touch this agent.")
@limit_option
@out.output_option
@click.pass_context
def list_changes(context: click.Context, state: str | None, agent: str | None, limit: int, output: str) -> None:
    """List changes, the newest first."""
    query = {name: value for name, value in (("state", state), ("agent", agent)) if value is not None}
    rows = run(options_of(context), lambda api: pages(api, api.path("changes"), "changes", limit, query))
    told = [{**row, "by": row["author"], "since": out.moment(row["updated"])} for row in rows]
    out.show(rows, output, columns=COLUMNS, rows=told)


@change.command(name="show", epilog="Example: chimera change show chg_01…")
@click.argument("change_id", metavar="CHANGE")
@wait_option
@out.output_option
@click.pass_context
def show_change(context: click.Context, change_id: str, wait: bool, output: str) -> int:
    """Show a CHANGE: its state and why, its risk and why, its agents, checks and approvals."""

    async def work(api: Api) -> dict[str, Any]:
        if wait:
            return await _follow(api, change_id)
        found: dict[str, Any] = await api.call("GET", api.path("changes", change_id))
        return found

    return _told(run(options_of(context), work), output, waited=wait)


def _deciding(name: str, done: str, doc: str) -> None:
    @change.command(name=name, epilog=f"Example: chimera change {name} chg_01… --comment 'looks right'", help=doc)
    @click.argument("change_id", metavar="CHANGE")
    @click.option("--comment", default="", help="What you think of it.")
    @click.option("--content", metavar="DIGEST", help="The content that you looked at; default: as it is now.")
    @out.output_option
    @click.pass_context
    def command(context: click.Context, change_id: str, comment: str, content: str | None, output: str) -> int:
        async def work(api: Api) -> dict[str, Any]:
            seen = content or (await api.call("GET", api.path("changes", change_id)))["content"]
            body = {"content": seen, "comment": comment}
            made: dict[str, Any] = await api.call("POST", api.path("changes", change_id, name), body)
            return made

        return _said(run(options_of(context), work), output, done)


_deciding("approve", "approved", "Approve a CHANGE that somebody else made.")
_deciding("reject", "rejected", "Reject a CHANGE; it rests until it is amended.")


def _asking(name: str, done: str, doc: str, *, reason: bool) -> None:
    @change.command(name=name, epilog=f"Example: chimera change {name} chg_01… --reason 'wrong answers'", help=doc)
    @click.argument("change_id", metavar="CHANGE")
    @click.option("--reason", default="", required=reason, help="Why.")
    @out.output_option
    @click.pass_context
    def command(context: click.Context, change_id: str, reason: str, output: str) -> int:
        body, path = {"reason": reason}, ("changes", change_id, name)
        made = run(options_of(context), lambda api: api.call("POST", api.path(*path), body))
        return _said(made, output, done)


_asking("abort", "aborted", "Give a CHANGE up; where production has some of it, it is taken back.", reason=False)
_asking("pause", "to be paused", "Have the rollout of a CHANGE stand still.", reason=False)
_asking("resume", "to go on", "Have the paused rollout of a CHANGE go on.", reason=False)
_asking(
    *("emergency", "on the emergency path"),
    "Send a CHANGE past approvals and freezes; somebody else reviews it afterwards.",
    reason=True,
)


@change.command(name="review", epilog="Example: chimera change review chg_01… approved --comment 'it was right'")
@click.argument("change_id", metavar="CHANGE")
@click.argument("decision", type=click.Choice(["approved", "rejected"]))
@click.option("--comment", default="", help="What you think of it.")
@out.output_option
@click.pass_context
def review(context: click.Context, change_id: str, decision: str, comment: str, output: str) -> int:
    """Say what you think of a CHANGE that took the emergency path."""
    body = {"decision": decision, "comment": comment}
    made = run(options_of(context), lambda api: api.call("POST", api.path("changes", change_id, "review"), body))
    return _said(made, output, "reviewed")


# -- policy and freezes ----------------------------------------------------------------------------------------------


@change.group(name="policy", epilog="Example: chimera change policy show > policy.yaml")
def policy() -> None:
    """Show and set the delivery policy: who approves what, and whether apply is direct."""


@policy.command(name="show", epilog="Example: chimera change policy show")
@out.output_option
@click.pass_context
def show_policy(context: click.Context, output: str) -> None:
    """Show the delivery policy, in the form in which `set` takes it; JSON and YAML say its version too."""
    found = run(options_of(context), lambda api: api.call("GET", api.path("delivery", "policy")))
    if output == "table":
        out.show(found["policy"], "yaml")
    else:
        out.show(found, output)


@policy.command(name="set", epilog="Example: chimera change policy set policy.yaml")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--expect", type=click.IntRange(min=0), help="The version that it replaces.")
@out.output_option
@click.pass_context
def set_policy(context: click.Context, file: Path, expect: int | None, output: str) -> None:
    """Set the delivery policy from a YAML or JSON FILE."""
    import yaml

    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{file}: {error}", param_hint="FILE") from None
    body = {"policy": data, "expect": expect}
    done = run(options_of(context), lambda api: api.call("PUT", api.path("delivery", "policy"), body))
    if output == "table":
        click.echo(f"The delivery policy has version {done['version']}.")
    else:
        out.show(done, output)


@change.group(name="freeze", epilog="Example: chimera change freeze list")
def freeze() -> None:
    """Freeze windows: times in which nothing begins to go live."""


@freeze.command(
    name="add",
    epilog="Example: chimera change freeze add holidays --from 2026-12-23T18:00 --to 2027-01-04T08:00",
)
@click.argument("name")
@click.option("--from", "starts", required=True, help="A date with a time; with --day a time of day.")
@click.option("--to", "ends", required=True, help="Likewise; a time of day before the start is the next day's.")
@click.option("--zone", default="UTC", show_default=True, help="Whose clocks, such as Europe/Zurich.")
@click.option(
    "--day",
    "days",
    multiple=True,
    type=click.Choice(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]),
    help="Every week on this day; may repeat.",
)
@click.option(
    "--least-risk",
    type=click.Choice(["low", "medium", "high"]),
    default="low",
    show_default=True,
    help="It stops changes of this risk or more.",
)
@click.option("--reason", default="", help="Why; whoever waits is told.")
@out.output_option
@click.pass_context
def add_freeze(context: click.Context, /, output: str, **fields: Any) -> None:
    """Add a freeze window, or replace the one of this NAME."""
    body = {**fields, "days": list(fields["days"])}
    _freezes(run(options_of(context), lambda api: api.call("PUT", api.path("delivery", "freezes"), body)), output)


@freeze.command(name="list", epilog="Example: chimera change freeze list")
@out.output_option
@click.pass_context
def list_freezes(context: click.Context, output: str) -> None:
    """List freeze windows."""
    _freezes(run(options_of(context), lambda api: api.call("GET", api.path("delivery", "policy"))), output)


@freeze.command(name="remove", epilog="Example: chimera change freeze remove holidays")
@click.argument("name")
@out.output_option
@click.pass_context
def remove_freeze(context: click.Context, name: str, output: str) -> None:
    """Remove a freeze window."""
    _freezes(run(options_of(context), lambda api: api.call("DELETE", api.path("delivery", "freezes", name))), output)


def _freezes(found: dict[str, Any], output: str) -> None:
    rows = found["policy"]["freezes"]
    out.show(rows, output, columns=FREEZE_COLUMNS, rows=[{"zone": "UTC", "least_risk": "low", **row} for row in rows])


# -- inside ------------------------------------------------------------------------------------------------------------


async def _staged(api: Api, paths: tuple[str, ...], output: str) -> tuple[str | None, dict[str, Any] | None]:
    """The batch of what PATHS name (None where all of it is live); the faults, where some of it isn't valid."""
    if not paths:
        return None, None
    result, batch = await stage_paths(api, paths)
    if output == "table":
        tell_faults(result)
    return batch, {"faults": result["faults"]} if result["refused"] else None


async def _follow(api: Api, change_id: str) -> dict[str, Any]:
    """Say what becomes of a change until it has ended; a control plane that is away for a while is waited for."""
    said, away = "", 0
    while True:
        try:
            found: dict[str, Any] = await api.call("GET", api.path("changes", change_id))
        except ProblemError as error:
            away += 1
            if error.status != UNAVAILABLE or away > MOST_AWAY:
                raise
            await asyncio.sleep(LOOK_EVERY)
            continue
        away = 0
        line = f"{found['state']}: {found['reason']}" if found["reason"] else found["state"]
        if line != said:
            sys.stderr.write(shown(f"{change_id}  {line}") + "\n")
            said = line
        if found["state"] in (*GOOD, *BAD):
            return found
        await asyncio.sleep(LOOK_EVERY)


def _told(found: dict[str, Any], output: str, *, waited: bool) -> int:
    """Show a change, or the faults for which there is none; the exit code where it was waited for."""
    if "faults" in found:
        if output != "table":
            out.show(found, output)
        else:
            click.echo("No change was opened.\nNext: mend the faults.", err=True)
        return INVALID
    if output != "table":
        out.show(found, output)
    else:
        for line in _lines(found):
            click.echo(shown(line))
        if found["next_step"]:
            click.echo(shown(f"Next: {found['next_step']}"), err=True)
    return INVALID if waited and found["state"] in BAD else 0


def _said(found: dict[str, Any], output: str, done: str) -> int:
    if output != "table":
        out.show(found, output)
    else:
        click.echo(f"{found['id']} is {done}; its state is {found['state']}")
    return 0


def _lines(found: dict[str, Any]) -> list[str]:
    named: list[tuple[str, Any]] = [
        ("change", f"{found['id']}  {found['title']}"),
        ("state", found["state"] + (f": {found['reason']}" if found["reason"] else "")),
        ("risk", found["risk"]),
        *(("", _reason(one)) for one in found["risk_reasons"]),
        ("by", ", ".join((found["author"], *found["contributors"]))),
        ("opened", out.moment(found["created"])),
        ("content", found["content"]),
    ]
    if found["commit"]:
        named.append(("commit", f"{found['commit']} of {found['repository'] or '?'}"))
    if (taken := found["emergency"]) is not None:
        seen = "reviewed" if taken.get("reviewed") else f"to be reviewed by {out.moment(taken['review_due'])}"
        named.append(("emergency", f"{taken['by']}: {taken['reason']} ({seen})"))
    named += _labelled("agents", found["items"], lambda item: f"{item['agent']}  {_what(item)}")
    if found["agents"] > len(found["items"]):
        named.append(("", f"and {found['agents'] - len(found['items']):,} more"))
    named += _labelled("checks", found["checks"], _check)
    named += _labelled("stopped by", [one for one in found["verdicts"] if one["outcome"] != "passed"], _verdict)
    named += _labelled("approvals", found["approvals"], lambda one: _approval(one, found["content"]))
    return [f"{label:<11} {text}".rstrip() for label, text in named]


def _labelled(label: str, rows: list[dict[str, Any]], text: Callable[[dict[str, Any]], str]) -> list[tuple[str, str]]:
    return [(label if number == 0 else "", text(row)) for number, row in enumerate(rows)]


def _reason(one: dict[str, Any]) -> str:
    agents = one.get("agents", 1)
    whom = one.get("agent", "") + (f" and {agents - 1} more" if agents > 1 else "")
    return f"  {one['risk']}: {one['text']} ({whom})"


def _what(item: dict[str, Any]) -> str:
    before, after = (_short(item.get(name)) for name in ("before", "revision"))
    if item.get("revision") is None:
        return "is taken out"
    return f"new, {after}" if item.get("before") is None else f"{before} → {after}"


def _check(one: dict[str, Any]) -> str:
    counts = ", ".join(f"{one[name]} {name}" for name in ("passed", "failed", "skipped") if one[name])
    return f"{one['stage']}: {one['check']}: {counts}"


def _verdict(one: dict[str, Any]) -> str:
    whom = f" ({one['agent']})" if one.get("agent") else ""
    return f"{one['check']}{whom}: {one.get('detail') or one['outcome']}; {one.get('next_step', '')}".rstrip("; ")


def _approval(one: dict[str, Any], content: str) -> str:
    void = "" if one["content"] == content else " (of another content: counts no more)"
    comment = f": {one['comment']}" if one.get("comment") else ""
    return f"{one['decision']} by {one['by']}{comment}{void}"


def _short(digest: str | None) -> str:
    return "-" if digest is None else digest.removeprefix("sha256:")[:12]
