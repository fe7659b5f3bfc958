"""`chimera get`, `describe` and `delete`."""

from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.text import shown

PAGE = 1_000
AGENT_COLUMNS = (
    ("name", "NAME"),
    ("version", "VERSION"),
    ("framework", "FRAMEWORK"),
    ("cell", "CELL"),
    ("description", "DESCRIPTION"),
)
CELL_COLUMNS = (
    ("cell", "CELL"),
    ("framework", "FRAMEWORK"),
    ("ready", "READY"),
    ("wanted", "WANTED"),
    ("in_flight", "IN FLIGHT"),
    ("reason", "REASON"),
    ("error", "ERROR"),
)
HOST_COLUMNS = (
    ("host", "HOST"),
    ("cell", "CELL"),
    ("phase", "PHASE"),
    ("seconds", "AGE (S)"),
    ("memory", "MEMORY"),
    ("unhealthy", "UNHEALTHY"),
)
INCIDENT_COLUMNS = (
    ("seconds_ago", "AGO (S)"),
    ("agent", "AGENT"),
    ("cause", "CAUSE"),
    ("suspects", "SUSPECTS"),
    ("host", "HOST"),
)
REVISION_COLUMNS = (
    *(("version", "VERSION"), ("revision", "REVISION"), ("when", "SINCE"), ("by", "BY")),
    *(("change", "CHANGE"), ("commit", "COMMIT")),
)
CONDITION_COLUMNS = (
    ("subject", "SUBJECT"),
    ("type", "TYPE"),
    ("status", "STATUS"),
    ("reason", "REASON"),
    ("when", "SINCE"),
    ("message", "CAUSE"),
    ("next_step", "NEXT STEP"),
)
KINDS = ("agents", "cells", "conditions", "hosts", "incidents", "models", "revisions")


@click.command(epilog="Example: chimera get agents --framework crewai -q invoice --limit 20")
@click.argument("kind", type=click.Choice(KINDS), default="agents")
@click.argument("name", required=False)
@click.option("--framework", help="Only agents of this framework.")
@click.option("--domain", help="Only agents with this domain tag.")
@click.option("--tag", help="Only agents with this tag.")
@click.option("-q", "--query", help="Only agents whose name, description or tags hold this text.")
@click.option("--cell", help="Only agents, or conditions, of this cell.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most agents to list.")
@out.output_option
@click.pass_context
def get(context: click.Context, /, kind: str, name: str | None, limit: int, output: str, **filters: str | None) -> None:
    """List agents, cells, conditions, hosts, incidents, models, or the revisions of the agent NAME."""
    if kind == "revisions" and name is None:
        raise click.UsageError("Name the agent: chimera get revisions NAME.")
    if kind == "agents":
        query = {key if key != "query" else "q": value for key, value in filters.items() if value}
        rows = run(options_of(context), lambda api: _agents(api, query, limit))
        out.show(rows, output, columns=AGENT_COLUMNS, rows=rows)
        if output == "table" and len(rows) == limit:
            click.echo(f"The first {limit} are shown; --limit shows more, -q finds some.", err=True)
        return
    rows = run(options_of(context), lambda api: _rows(api, kind, name or filters["cell"]))
    columns = {
        "cells": CELL_COLUMNS,
        "conditions": CONDITION_COLUMNS,
        "hosts": HOST_COLUMNS,
        "incidents": INCIDENT_COLUMNS,
        "revisions": REVISION_COLUMNS,
        "models": (("id", "MODEL"),),
    }[kind]
    if any("node" in row for row in rows):
        columns = (*columns, ("node", "NODE"))
    told = [{**row, "memory": out.size(row.get("resident_bytes")), "when": out.moment(row.get("at"))} for row in rows]
    out.show(rows, output, columns=columns, rows=told)


@click.command(
    epilog="Example: chimera describe hello --output yaml, chimera describe cell/default-crewai-standard-0a1b"
)
@click.argument("name")
@out.output_option
@click.pass_context
def describe(context: click.Context, name: str, output: str) -> None:
    """Show an agent in full: definition, revision, cell, limits, notes; or cell/NAME, a cell with its conditions."""
    if name.startswith("cell/"):
        cell = name.removeprefix("cell/")
        out.show(run(options_of(context), lambda api: _cell(api, cell)), "yaml" if output == "table" else output)
        return
    found = run(options_of(context), lambda api: api.call("GET", api.path("agents", name)))
    if output == "json":
        out.show(found, output)
        return
    for note in found.get("notes", ()):
        click.echo(shown(f"# Note: {note}"))
    out.show(found, "yaml")


@click.command(epilog="Example: chimera delete hello")
@click.argument("names", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.pass_context
def delete(context: click.Context, names: tuple[str, ...], yes: bool) -> None:
    """Delete agents by NAME; their revisions stay."""
    if not yes and len(names) > 1:
        click.confirm(f"Delete {len(names)} agents?", abort=True, err=True)
    body = {"names": list(names)}
    done = run(options_of(context), lambda api: api.call("POST", api.path("agents", "delete"), body))
    click.echo(f"{done['deleted']:,} deleted, {len(names) - done['deleted']:,} were not there")


async def _agents(api: Api, query: dict[str, str], limit: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    after = ""
    while len(rows) < limit:
        page = {**query, "after": after, "limit": min(PAGE, limit - len(rows))}
        answer = await api.call("GET", api.path("agents"), query=page)
        rows.extend(answer["agents"])
        if answer["next"] is None:
            break
        after = answer["next"]
    return rows


async def _rows(api: Api, kind: str, name: str | None) -> list[dict[str, Any]]:
    if kind == "revisions":
        found: list[dict[str, Any]] = (await api.call("GET", api.path("agents", name or "", "revisions")))["revisions"]
        return [{**row, "commit": row["pin"]["commit"][:12] if row.get("pin") else None} for row in found]
    if kind == "models":
        listed: list[dict[str, Any]] = (await api.call("GET", "/v1/models"))["data"]
        return listed
    if kind == "conditions":
        return await _conditions(api, name)
    rows: list[dict[str, Any]] = await api.call("GET", f"/v1/{kind}")
    return rows


async def _conditions(api: Api, cell: str | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": PAGE} if cell is None else {"subject": f"cells/{cell}"}
    while True:
        answer = await api.call("GET", "/v1/conditions", query=query)
        rows += [{"subject": one["subject"], **each} for one in answer["subjects"] for each in one["conditions"]]
        if answer["next"] is None:
            return [{**row, "at": row["since"]} for row in rows]
        query["after"] = answer["next"]


async def _cell(api: Api, cell: str) -> dict[str, Any]:
    conditions = await _conditions(api, cell)
    rows = [row for row in await _rows(api, "cells", None) if row["cell"] == cell]
    if not rows and not conditions:
        raise click.UsageError(f"There is no cell {cell}: list them with chimera get cells.")
    return {
        **(rows[0] if rows else {"cell": cell}),
        "conditions": [_without(row, "subject", "at") for row in conditions],
    }


def _without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}
