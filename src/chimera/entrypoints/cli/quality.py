"""`chimera quality`: how good definitions are, and whether they fit the ecosystem, before anybody is asked."""

from collections.abc import Iterator, Mapping
from typing import Any

import click
import msgspec

from chimera.agents.compile import compile_definition
from chimera.agents.errors import InvalidDefinition, UnreadableText
from chimera.agents.intake import MAX_ITEMS
from chimera.agents.validate import check_text
from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.failing import INVALID, place
from chimera.entrypoints.cli.places import settings_of
from chimera.entrypoints.cli.sources import Source, read_sources
from chimera.entrypoints.cli.text import clean, shown

CHUNK = MAX_ITEMS
"""Definitions that are judged together: as many as the API takes, since those of another request don't know them."""
COLUMNS = (("agent", "AGENT"), ("score", "SCORE"), ("grade", "GRADE"), ("passed", "ALONE"), ("weakest", "WEAKEST"))
_WEAKEST = 3


@click.command(epilog="Example: chimera quality agents/ --explain")
@click.argument("paths", nargs=-1, required=True)
@click.option("--explain", is_flag=True, help="Say of each criterion how far it is met, why, and what would meet it.")
@click.option("--offline", is_flag=True, help="Ask no API: PATHS are held against each other alone.")
@click.option("--least", type=click.FloatRange(0, 100), help="End with 65 where a definition has fewer points.")
@out.output_option
@click.pass_context
def quality(
    context: click.Context, /, paths: tuple[str, ...], explain: bool, offline: bool, least: float | None, output: str
) -> int:
    """Score definitions by named criteria, beside all live agents: whose change may go without a person's approval."""
    sources = list(read_sources(paths))
    if offline:
        rows, live = _offline(options_of(context), sources), None
    else:
        rows, live = run(options_of(context), lambda api: _asked(api, sources))
    scores = [row["quality"]["score"] for row in rows if row.get("quality")]
    failing = len(scores) < len(rows) or any(least is not None and score < least for score in scores)
    if output != "table":
        out.show(rows, output)
        return INVALID if failing else 0
    if explain:
        for row in rows:
            for line in _told(row):
                click.echo(shown(line))
    else:
        out.table(COLUMNS, [_row(row) for row in rows if row.get("quality")])
        for row in rows:
            for fault in row.get("faults", ()):
                click.echo(f"{fault.get('severity', 'error')}: {place(fault)}")
            for one in row.get("misfits", ()):
                click.echo(shown(f"{one['agent']}: {one['detail']}; {one['next_step']}"))
    beside = "each other" if live is None else f"{live:,} live agents"
    alone = sum(_alone(row) for row in rows)
    click.echo(f"{alone:,} of {len(rows):,} would need no person's approval; held against {beside}")
    if live is not None and len(sources) > CHUNK:
        click.echo(
            f"They were looked at in parts of {CHUNK:,}: agents of one part know no new ones of another.", err=True
        )
    return INVALID if failing else 0


async def _asked(api: Api, sources: list[Source]) -> tuple[list[dict[str, Any]], int]:
    rows: list[dict[str, Any]] = []
    live = 0
    for start in range(0, len(sources), CHUNK):
        chunk = sources[start : start + CHUNK]
        for source in chunk:
            await source.send_bundle(api)
        answer = await api.call("POST", api.path("quality"), {"items": [source.item() for source in chunk]})
        rows.extend(answer["agents"])
        live = answer["live"]
    return rows, live


def _offline(options: Mapping[str, Any], sources: list[Source]) -> list[dict[str, Any]]:
    """What is said of definitions by the settings of the home, which need not be there."""
    from chimera.jaegis.ecosystem import Ecosystem
    from chimera.jaegis.quality.scoring import assess_all
    from chimera.jaegis.settings import jaegis_groups, load_jaegis

    groups = settings_of(options)
    settings = load_jaegis({name: groups[name] for name in jaegis_groups() if name in groups}).quality
    rows: list[dict[str, Any]] = []
    agents = []
    for source in sources:
        row: dict[str, Any] = {"file": source.document.file}
        rows.append(row)
        try:
            if source.fault is not None:
                raise InvalidDefinition([source.fault])
            text = source.document
            checked = check_text(text.text, file=text.file, first_line=text.first_line)
            bundle = source.packed.bundle if source.packed else None
            agents.append((row, compile_definition(checked, tenant=options["tenant"], bundle=bundle)))
        except InvalidDefinition as error:
            row["faults"] = [msgspec.to_builtins(fault) for fault in error.faults]
        except UnreadableText as error:
            row["faults"] = [msgspec.to_builtins(error.fault)]
    assessed = assess_all([one for _, one in agents], Ecosystem({}), settings)
    for (row, _), one in zip(agents, assessed, strict=True):
        row["quality"] = msgspec.to_builtins(one)
    return rows


def _alone(row: dict[str, Any]) -> bool:
    return bool(row.get("quality")) and row["quality"]["passed"] and not row.get("misfits")


def _row(row: dict[str, Any]) -> dict[str, Any]:
    found = row["quality"]
    unmet = [one for one in found["findings"] if one["score"] < 1 and one["weight"] > 0]
    unmet.sort(key=lambda one: one["weight"] * (one["score"] - 1))
    weakest = ", ".join(one["criterion"] for one in unmet[:_WEAKEST]) or None
    return {**found, "passed": "yes" if _alone(row) else "no", "weakest": weakest}


def _told(row: dict[str, Any]) -> Iterator[str]:
    if not row.get("quality"):
        yield f"{row.get('file')}: not valid"
        for fault in row.get("faults", ()):
            yield f"  {place(fault)}"
        return
    found = row["quality"]
    yield f"{found['agent']}: {found['score']:g} of 100, {found['grade']}"
    for one in found["findings"]:
        yield f"  {one['score']:>4.0%}  {one['criterion']:<10} {clean(one['reason'])}"
        if one.get("next_step"):
            yield f"                    → {clean(one['next_step'])}"
    for one in row.get("misfits", ()):
        yield f"  {'stop' if one.get('blocking') else 'look'}  {one['code']:<10} {clean(one['detail'])}"
        yield f"                    → {clean(one['next_step'])}"
