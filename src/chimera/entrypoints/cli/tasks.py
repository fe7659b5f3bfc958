"""`chimera tasks`: long work that outlives its caller."""

import sys
import time
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.identity import Duration, limit_option, pages
from chimera.entrypoints.cli.text import shown
from chimera.entrypoints.published.parameters import HEADER_KEY

STATES = ("waiting", "queued", "running", "succeeded", "failed", "cancelled", "expired")
TOLD = ("started", "retried", "succeeded", "failed", "cancelled", "expired")
COLUMNS = (
    ("agent", "AGENT"),
    ("task", "TASK"),
    ("state", "STATE"),
    ("priority", "PRIORITY"),
    ("attempts", "ATTEMPTS"),
    ("submitted", "SUBMITTED"),
    ("problem", "PROBLEM"),
)
RESUMED = 100
"""Streams that `watch` opens one after the other, ten minutes each."""


@click.group(epilog="Example: chimera tasks submit hello 'Write the report.' --key report-7")
def tasks() -> None:
    """Submit, list, show, follow and cancel long work."""


@tasks.command(name="submit", epilog="Example: chimera tasks submit hello 'Write the report.' --key report-7 --watch")
@click.argument("agent")
@click.argument("text", required=False)
@click.option("--key", "idempotency", help="Name the task: the same key again is the same task.")
@click.option("--priority", type=click.IntRange(-100, 100), default=0, show_default=True, help="Higher goes first.")
@click.option("--delay", type=Duration(), help="Begin no sooner than this from now, such as 90s or 12h.")
@click.option("--within", type=Duration(), help="Expire this long from now, such as 2h.")
@click.option("--attempts", type=click.IntRange(1, 100), help="Most attempts that may fail.")
@click.option("--session", help="The session that it belongs to.")
@click.option("--subject", help="The person whom it is for.")
@click.option("--webhook", help="Address that is told how it ends, signed with a secret that is printed once.")
@click.option("--webhook-state", "states", multiple=True, type=click.Choice(TOLD), help="Tell this state; may repeat.")
@click.option("--watch", "follow", is_flag=True, help="Follow it to its end.")
@out.output_option
@click.pass_context
def submit(context: click.Context, /, agent: str, text: str | None, follow: bool, output: str, **given: Any) -> None:
    """Submit a task for AGENT with TEXT (from standard input where it isn't given)."""
    now = time.time()
    body = {
        "input": sys.stdin.read() if text is None else text,
        "priority": given["priority"] or None,
        "not_before": None if given["delay"] is None else now + given["delay"],
        "deadline": None if given["within"] is None else now + given["within"],
        "max_attempts": given["attempts"],
        "session": given["session"],
        "subject": given["subject"],
        "webhook": None,
    }
    if given["webhook"] is not None:
        body["webhook"] = {"url": given["webhook"], **({"states": given["states"]} if given["states"] else {})}
    sent = {name: value for name, value in body.items() if value is not None}
    headers = {} if given["idempotency"] is None else {HEADER_KEY: given["idempotency"]}

    async def work(api: Api) -> dict[str, Any]:
        task: dict[str, Any] = await api.call("POST", api.path("agents", agent, "tasks"), sent, headers=headers)
        if output == "table" and task.get("webhook_secret"):
            click.echo(f"{task['webhook_secret']} signs what its webhook is sent; it is not shown again.", err=True)
        if follow:
            if output == "table":
                click.echo(f"{task['task']} is {task['state']}", err=True)
            await _follow(api, agent, task["task"], quiet=output != "table")
            return await _get(api, agent, task["task"])
        return task

    task = run(options_of(context), work)
    if output != "table":
        out.show(task, output)
    elif not follow:
        click.echo(task["task"])
    else:
        _end(task)


@tasks.command(name="list", epilog="Example: chimera tasks list hello --state failed")
@click.argument("agent", required=False)
@click.option("--state", type=click.Choice(STATES), help="Only tasks in this state.")
@click.option("--session", help="Only tasks of this session.")
@click.option("--subject", help="Only tasks of this person.")
@limit_option
@out.output_option
@click.pass_context
def list_tasks(context: click.Context, /, agent: str | None, limit: int, output: str, **narrow: str | None) -> None:
    """List tasks, newest first, of AGENT or of all agents."""
    query = {name: value for name, value in narrow.items() if value is not None}
    below = ("tasks",) if agent is None else ("agents", agent, "tasks")

    async def work(api: Api) -> list[dict[str, Any]]:
        return await pages(api, api.path(*below), "tasks", limit, query)

    rows = run(options_of(context), work)
    told = [
        {
            **row,
            "priority": row.get("priority", 0),
            "attempts": row.get("attempts", 0),
            "submitted": out.moment(row["created"]),
            "problem": (row.get("problem") or {}).get("code"),
        }
        for row in rows
    ]
    out.show(rows, output, columns=COLUMNS, rows=told)


@tasks.command(name="show", epilog="Example: chimera tasks show hello task_01jd2k --output json")
@click.argument("agent")
@click.argument("task")
@out.output_option
@click.pass_context
def show(context: click.Context, agent: str, task: str, output: str) -> None:
    """Show a TASK of AGENT: its history, progress and result."""
    found = run(options_of(context), lambda api: _get(api, agent, task))
    out.show(found, "json" if output == "json" else "yaml")


@tasks.command(name="watch", epilog="Example: chimera tasks watch hello task_01jd2k")
@click.argument("agent")
@click.argument("task")
@out.output_option
@click.pass_context
def watch(context: click.Context, agent: str, task: str, output: str) -> None:
    """Follow a TASK of AGENT to its end, and print its answer."""

    async def work(api: Api) -> dict[str, Any]:
        await _follow(api, agent, task, quiet=output != "table")
        return await _get(api, agent, task)

    found = run(options_of(context), work)
    if output == "table":
        _end(found)
    else:
        out.show(found, output)


@tasks.command(name="cancel", epilog="Example: chimera tasks cancel hello task_01jd2k")
@click.argument("agent")
@click.argument("names", nargs=-1, required=True)
@out.output_option
@click.pass_context
def cancel(context: click.Context, agent: str, names: tuple[str, ...], output: str) -> None:
    """Cancel tasks of AGENT by their names; one that runs has its call ended."""

    async def work(api: Api) -> list[dict[str, Any]]:
        return [await api.call("POST", api.path("agents", agent, "tasks", name, "cancel")) for name in names]

    done = run(options_of(context), work)
    if output != "table":
        out.show(done, output)
        return
    for task in done:
        state = "cancelled" if task["state"] == "cancelled" else "being cancelled"
        click.echo(f"{task['task']} is {state}")


async def _get(api: Api, agent: str, task: str) -> dict[str, Any]:
    found: dict[str, Any] = await api.call("GET", api.path("agents", agent, "tasks", task))
    return found


async def _follow(api: Api, agent: str, task: str, *, quiet: bool) -> None:
    """Print what happens to a task until it ends; a stream that ends before is resumed behind its last event."""
    seen = 0
    for _ in range(RESUMED):
        headers = {"Last-Event-ID": str(seen)} if seen else {}
        async for event, data in api.events(api.path("agents", agent, "tasks", task, "events"), headers=headers):
            if event == "end":
                return
            if event == "state":
                seen = data["version"]
            if not quiet and (line := _line(event, data)) is not None:
                click.echo(shown(line), err=True)


def _line(event: str, data: dict[str, Any]) -> str | None:
    if event == "state":
        return f"{out.moment(data['at'])} {data['state']} ({data['why']})"
    if event == "progress":
        told = [f"{data.get('steps', 0)} steps", f"{data.get('characters', 0)} characters"]
        told += [f"{name} {data[name]}" for name in ("source", "tool") if data.get(name)]
        return f"{out.moment(data['at'])} {', '.join(told)}"
    return None


def _end(task: dict[str, Any]) -> None:
    """Print the answer; what has no answer ends the command with an error."""
    if task["state"] == "succeeded":
        click.echo(shown(task["result"]["output"]))
        return
    problem = task.get("problem") or {}
    detail = problem.get("detail", f"task {task['task']} was {task['state']}")
    raise click.ClickException(detail if not problem.get("next_step") else f"{detail}: {problem['next_step']}")
