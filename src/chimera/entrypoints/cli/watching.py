"""`chimera logs`, `top` and `status`."""

import asyncio
import sys
import textwrap
import time
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.text import clean, shown

REFRESH = 2.0
PROCESS_COLUMNS = (("process", "PROCESS"), ("pid", "PID"), ("cpu_seconds", "CPU (S)"), ("memory", "MEMORY (PSS)"))
POD_COLUMNS = (("process", "PROCESS"), ("cpu_cores", "CPU (CORES)"), ("memory", "MEMORY"), ("pod", "POD"))
HOST_COLUMNS = (
    ("host", "HOST"),
    ("cell", "CELL"),
    ("phase", "PHASE"),
    ("loaded_agents", "AGENTS"),
    ("in_flight", "CALLS"),
    ("memory", "MEMORY (RSS)"),
)


@click.command(epilog="Example: chimera logs hello --follow")
@click.argument("agent", required=False)
@click.option("--request", help="Only lines of this request.")
@click.option("--process", help="gateway, control-plane, hosts, supervisor, or the id of a host or pod.")
@click.option("--level", type=click.Choice(["debug", "info", "warning", "error"]), help="Only lines of this level.")
@click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Most lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on with lines as they come.")
@out.output_option
@click.pass_context
def logs(context: click.Context, /, lines: int, follow: bool, output: str, **filters: str | None) -> None:
    """Show the newest log lines of all processes, or those of one AGENT, request or process."""
    query: dict[str, Any] = {key: value for key, value in filters.items() if value} | {"lines": lines}
    if follow:
        query["follow"] = "true"

    async def show(api: Api) -> None:
        async for record in api.lines("/v1/logs", query):
            if output == "table":
                click.echo(clean(log_line(record)))
            else:
                import msgspec

                click.echo(shown(msgspec.json.encode(record).decode()))

    run(options_of(context), show)


@click.command(epilog="Example: chimera top --once --output json")
@click.option("--once", is_flag=True, help="Show it once and end.")
@out.output_option
@click.pass_context
def top(context: click.Context, once: bool, output: str) -> None:
    """Show processes, cells and hosts with their memory and calls, again every two seconds on a terminal."""
    once = once or not sys.stdout.isatty()

    async def show(api: Api) -> None:
        while True:
            found = await api.call("GET", "/v1/top")
            if output != "table":
                out.show(found, output)
            else:
                if not once:
                    click.clear()
                tables(found)
            if once or output != "table":
                return
            await asyncio.sleep(REFRESH)

    run(options_of(context), show)


@click.command(epilog="Example: chimera status")
@out.output_option
@click.pass_context
def status(context: click.Context, output: str) -> None:
    """Show whether all is well: what runs, how many agents are live, which cells have trouble."""

    async def look(api: Api) -> dict[str, Any]:
        began = time.perf_counter()
        catalogue = await api.call("GET", "/v1/status")
        cells = await api.call("GET", "/v1/cells")
        incidents = await api.call("GET", "/v1/incidents")
        trouble = [cell for cell in cells if cell["error"]]
        return {
            "url": api.url,
            "healthy": not trouble,
            "seconds": round(time.perf_counter() - began, 3),
            **catalogue,
            "hosts": sum(cell["hosts"] for cell in cells),
            "cells_with_trouble": [{"cell": cell["cell"], "error": cell["error"]} for cell in trouble],
            "incidents": len(incidents),
        }

    found = run(options_of(context), look)
    out.show(found, "yaml" if output == "table" else output)


def tables(found: dict[str, Any]) -> None:
    """Show what `top` found."""
    processes = [{**row, "memory": out.size(_memory(row))} for row in found["processes"]]
    hosts = [{**row, "memory": out.size(row["resident_bytes"])} for row in found["hosts"]]
    in_cluster = any("pod" in row for row in processes)
    out.table(POD_COLUMNS if in_cluster else PROCESS_COLUMNS, processes)
    for one in found.get("missing", ()):
        click.echo(clean(f"not known: {one}"))
    click.echo()
    out.table(HOST_COLUMNS, hosts)
    for one in found["incidents"]:
        click.echo(clean(f"{one['seconds_ago']:.0f} s ago: {one['cause']} (agent: {one['agent'] or 'not certain'})"))


def _memory(process: dict[str, Any]) -> int | None:
    """What a process uses: of its pod what counts against its limit, else what the process knows of itself."""
    found: int | None = process.get("working_set_bytes")
    return process["proportional_bytes"] if found is None else found


def log_line(record: dict[str, Any]) -> str:
    """A record for people: who, what, and for whom; digests and trace ids are in `--output json`."""
    head = f"{record.get('time', '-')} {str(record.get('level', '-')).upper():<7} {record.get('process', '-')}"
    span = record.get("span")
    said = _span(span) if isinstance(span, dict) else str(record.get("message", ""))
    rest = {key: value for key, value in record.items() if key not in _NOT_SHOWN}
    traceback = str(rest.pop("error")).rstrip() if "\n" in str(rest.get("error", "")) else ""
    line = f"{head}: {said} {' '.join(f'{key}={value}' for key, value in rest.items())}".rstrip()
    return f"{line}\n{textwrap.indent(traceback, '    ')}" if traceback else line


_NOT_SHOWN = {"time", "level", "process", "message", "logger", "span", "trace", "revision", "tenant", "cell"}


def _span(span: dict[str, Any]) -> str:
    seconds = float(span.get("seconds") or 0.0)
    attributes = span.get("attributes")
    found = {**(attributes if isinstance(attributes, dict) else {}), "error": span.get("error")}
    told = " ".join(f"{key}={value}" for key, value in found.items() if key not in _NOT_SHOWN and value is not None)
    return f"{span.get('name', 'span')} {seconds * 1000:.1f} ms {told}".rstrip()
