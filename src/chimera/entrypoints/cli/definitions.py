"""`chimera init`, `validate` and `diff`: definitions before they are live."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from chimera.agents.template_library import template_names
from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.failing import INVALID
from chimera.entrypoints.cli.sources import Source, read_sources
from chimera.entrypoints.cli.text import shown
from chimera.kernel.ids import is_name

FIRST = """\
# yaml-language-server: $schema=./adac-v2.0.schema.json
schema_version: "ADaC v2.0"
extends: {template}
metadata:
  name: {name}
  version: "0.1.0"
  description: Answers questions about getting started and says what to do next.
  tags: ["capability:answer questions", "domain:support"]
capabilities:
  primary_functions:
    - answer questions
    - suggest the next step
  integration_points: ["service:models"]
  communication_protocols: [http, sse, openai]
"""


@click.command(epilog="Example: chimera init hello && chimera apply hello.yaml")
@click.argument("name", default="hello")
@click.option(
    "--template",
    type=click.Choice(template_names()),
    default="autogen-conversational",
    show_default=True,
    help="What it does.",
)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Where to write it.")
def init(name: str, template: str, folder: Path) -> None:
    """Write a first definition, NAME.yaml, and the schema that editors check it by."""
    from chimera.agents.schema import FILE_NAME, definition_schema

    if not is_name(name):
        raise click.UsageError(f"{name!r} is not a name: 1 to 63 lower-case letters, digits and inner hyphens.")
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.yaml"
    if file.exists():
        raise click.UsageError(f"{file} is there already; choose another name.")
    file.write_text(FIRST.format(name=name, template=template), encoding="utf-8")
    schema = msgspec.json.format(msgspec.json.encode(definition_schema(), order="sorted"), indent=2)
    (folder / FILE_NAME).write_bytes(schema + b"\n")
    click.echo(f"Wrote {file}.\nNext: chimera apply {file} && chimera invoke {name} 'What can you do?'")


@click.command(epilog="Example: chimera validate agents/ more.yaml")
@click.argument("paths", nargs=-1, required=True)
@out.output_option
def validate(paths: tuple[str, ...], output: str) -> int:
    """Check definitions in files, folders, globs, archives or standard input (-); nothing needs to run."""
    valid = 0
    rows: list[dict[str, Any]] = []
    for source in read_sources(paths):
        faults = source.check()
        rows.extend(msgspec.to_builtins(fault) for fault in faults)
        valid += not any(fault.severity == "error" for fault in faults)
    errors = [row for row in rows if row.get("severity", "error") == "error"]
    if output == "table":
        from chimera.entrypoints.cli.failing import place

        for row in rows:
            click.echo(f"{row.get('severity', 'error')}: {place(row)}")
        click.echo(f"{valid:,} valid, {len(errors):,} errors, {len(rows) - len(errors):,} warnings")
        if errors:
            click.echo("Next: mend the errors where they are named, and validate again.", err=True)
    else:
        out.show({"valid": valid, "faults": rows}, output)
    return INVALID if errors else 0


@click.command(epilog="Example: chimera diff agents/ --output json")
@click.argument("paths", nargs=-1, required=True)
@out.output_option
@click.pass_context
def diff(context: click.Context, paths: tuple[str, ...], output: str) -> int:
    """Say what applying PATHS would change, and whether the version numbers say so."""
    sources = list(read_sources(paths))
    rows = run(options_of(context), lambda api: _differences(api, sources))
    changed = [row for row in rows if row["state"] != "unchanged"]
    if output != "table":
        out.show(rows, output)
        return 0
    for row in changed:
        for line in _told(row):
            click.echo(shown(line))
    click.echo(f"{len(changed):,} of {len(rows):,} would change")
    return 0


async def _differences(api: Api, sources: list[Source]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for start in range(0, len(sources), 500):
        chunk = sources[start : start + 500]
        for source in chunk:
            await source.send_bundle(api)
        items = [source.item() for source in chunk]
        answer = await api.call("POST", api.path("diff"), {"items": items})
        rows.extend(answer["agents"])
        await asyncio.sleep(0)
    return rows


def _told(row: dict[str, Any]) -> Iterator[str]:
    yield f"{row.get('agent') or row.get('file')}: {row['state']}"
    for change in row.get("changes", ()):
        yield f"  {change['kind']:<9}{change['path']}: {change['reason']}"
        yield f"           {_short(change.get('old'))} → {_short(change.get('new'))}"
    if row.get("advice") and row["state"] == "changed":
        yield f"  {row['advice']}"


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 100 else text[:97] + "…"
