"""`chimera sync`: branches that the catalogue follows."""

import asyncio
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.failing import INVALID, TRY_AGAIN
from chimera.entrypoints.cli.text import shown

WELL = frozenset({"new", "current", "waiting"})
POLL = 0.3
COLUMNS = (
    ("name", "NAME"),
    ("phase", "PHASE"),
    ("commit", "LIVE COMMIT"),
    ("seen", "BRANCH AT"),
    ("agents", "AGENTS"),
    ("drifted", "DRIFTED"),
    ("looked", "LOOKED AT"),
    ("reason", "REASON"),
)
DRIFT = (("agent", "AGENT"), ("wanted", "SHOULD BE"), ("live", "IS"), ("by", "BY"), ("at", "SINCE"))


@click.group(epilog="Example: chimera sync add catalogue https://git.example.com/team/catalogue.git")
def sync() -> None:
    """Follow branches of Git repositories: what is committed there is what is live."""


@sync.command(epilog="Example: chimera sync add catalogue https://git.example.com/team/catalogue.git --drift mend")
@click.argument("name")
@click.argument("url")
@click.option("--branch", default="main", show_default=True, help="The branch.")
@click.option("--path", default="agents", show_default=True, help="Folder of definitions in it; . for all of it.")
@click.option(
    "--interval", type=click.FloatRange(5, 86_400), default=60.0, show_default=True, help="Seconds between looks."
)
@click.option("--username", default="git", show_default=True, help="Name that goes with the credential.")
@click.option("--credential", help="Secret with the password or token: secret:git_TENANT_…")
@click.option("--webhook", help="Secret that the host signs webhooks with: secret:git_TENANT_…")
@click.option("--prune/--no-prune", default=True, help="Take agents out of service that a commit removes; the default.")
@click.option("--prune-count", type=click.IntRange(0), default=100, show_default=True, help="Most of them at once.")
@click.option("--prune-share", type=click.FloatRange(0, 1), default=0.2, show_default=True, help="Most, as a share.")
@click.option(
    "--drift", type=click.Choice(["report", "mend"]), default="report", show_default=True, help="What to do with it."
)
@click.option("--wait", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds to wait for it.")
@out.output_option
@click.pass_context
def add(context: click.Context, /, name: str, url: str, wait: float, output: str, **wanted: Any) -> int:
    """Follow a branch of the repository at URL as the source NAME, or follow it otherwise."""
    spec = {"url": url, **wanted, "path": "" if wanted["path"] == "." else wanted["path"]}
    spec = {key: value for key, value in spec.items() if value is not None}

    async def work(api: Api) -> dict[str, Any]:
        before = await api.call("PUT", api.path("sources", name), {"spec": spec})
        return await _looked(api, name, before["state"].get("looked"), wait)

    return _told(run(options_of(context), work), output)


@sync.command(name="list", epilog="Example: chimera sync list")
@out.output_option
@click.pass_context
def list_(context: click.Context, output: str) -> None:
    """List sources and how they stand."""

    async def work(api: Api) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        after = ""
        while True:
            page = await api.call("GET", api.path("sources"), query={"after": after, "limit": 500})
            rows += page["sources"]
            if page["next"] is None:
                return rows
            after = page["next"]

    found = run(options_of(context), work)
    out.show(found, output, columns=COLUMNS, rows=[_row(one) for one in found])


@sync.command(epilog="Example: chimera sync show catalogue")
@click.argument("name")
@out.output_option
@click.pass_context
def show(context: click.Context, name: str, output: str) -> None:
    """Show a source: what is wrong, what to do, and which agents are not as its commit says."""
    found = run(options_of(context), lambda api: api.call("GET", api.path("sources", name)))
    if output != "table":
        out.show(found, output)
        return
    spec, state = found["spec"], found["state"]
    click.echo(f"{name}: {spec['branch']} of {shown(spec['url'])}, {spec['path'] or 'all of it'}")
    click.echo(f"phase: {state.get('phase', 'new')}")
    if state.get("commit"):
        by = f"{shown(state.get('subject', ''))} by {shown(state.get('author', ''))}"
        click.echo(f"live: {state['commit'][:12]} {by}, {out.moment(state.get('delivered'))}")
    if state.get("seen"):
        click.echo(f"branch: {state['seen'][:12]}, looked at {out.moment(state.get('looked'))}")
    for line in _trouble(state):
        click.echo(line)
    if drift := state.get("drift"):
        out.table(DRIFT, [{**one, "at": out.moment(one.get("at"))} for one in drift])


@sync.command(name="run", epilog="Example: chimera sync run catalogue")
@click.argument("name")
@click.option("--allow-prune", metavar="COMMIT", help="Let this commit take out of service all that it removes.")
@click.option("--allow-rewrite", metavar="COMMIT", help="Let the branch be at this commit though it was rewritten.")
@click.option("--wait", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds to wait for it.")
@out.output_option
@click.pass_context
def run_(
    context: click.Context, name: str, allow_prune: str | None, allow_rewrite: str | None, wait: float, output: str
) -> int:
    """Look at a source now, and wait for what comes of it."""
    body = {"allow_prune": allow_prune, "allow_rewrite": allow_rewrite}

    async def work(api: Api) -> dict[str, Any]:
        before = await api.call("POST", api.path("sources", name, "run"), body)
        return await _looked(api, name, before["state"].get("looked"), wait)

    return _told(run(options_of(context), work), output)


@sync.command(epilog="Example: chimera sync remove catalogue")
@click.argument("name")
@out.output_option
@click.pass_context
def remove(context: click.Context, name: str, output: str) -> None:
    """Follow a branch no more. Its agents stay live."""
    gone = run(options_of(context), lambda api: api.call("DELETE", api.path("sources", name)))
    if output != "table":
        out.show(gone, output)
    else:
        click.echo(f"{name} is followed no more; its {gone['agents']:,} agents stay live")


async def _looked(api: Api, name: str, before: float | None, wait: float) -> dict[str, Any]:
    until = asyncio.get_running_loop().time() + wait
    while True:
        found: dict[str, Any] = await api.call("GET", api.path("sources", name))
        if found["state"].get("looked") != before or asyncio.get_running_loop().time() > until:
            return {**found, "waited": found["state"].get("looked") == before}
        await asyncio.sleep(POLL)


def _told(found: dict[str, Any], output: str) -> int:
    state, waited = found["state"], found.pop("waited")
    if output == "table":
        out.table(COLUMNS, [_row(found)])
        for line in _trouble(state):
            click.echo(line, err=True)
        if waited:
            click.echo("It is still at work, or no control plane follows branches.\nNext: chimera sync list", err=True)
    else:
        out.show(found, output)
    if waited:
        return TRY_AGAIN
    return 0 if state.get("phase", "new") in WELL else INVALID


def _trouble(state: dict[str, Any]) -> list[str]:
    lines = [shown(state["reason"])] if state.get("reason") else []
    lines += [f"  {shown(fault)}" for fault in state.get("faults", ())]
    return lines + ([f"Next: {shown(state['next_step'])}"] if state.get("next_step") else [])


def _row(found: dict[str, Any]) -> dict[str, Any]:
    state = found["state"]
    return {
        "name": found["name"],
        "phase": state.get("phase", "new"),
        "commit": (state.get("commit") or "-")[:12],
        "seen": (state.get("seen") or "-")[:12],
        "agents": state.get("agents", 0),
        "drifted": state.get("drifted", 0),
        "looked": out.moment(state.get("looked")),
        "reason": state.get("reason") or "-",
    }
