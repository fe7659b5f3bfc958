"""`chimera apply`: definitions become live, all of them or none, behind a progress bar.

Files that are live already are recognised by their bytes and not even parsed. The rest goes to the API in chunks; one
commit at the end makes them live in one transaction. Every step may be repeated after a lost answer.
"""

import asyncio
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.failing import INVALID, place
from chimera.entrypoints.cli.sources import Source, read_sources
from chimera_host.contract.problem import ProblemError

CHUNK = 500
SHOWN_FAULTS = 50
LONGEST_TITLE = 150
DIRECT_REFUSED = "direct-refused"


class Progress(Protocol):
    """Something that hears how far it is."""

    def update(self, n_steps: int) -> None:
        """`n_steps` more are done."""


@click.command(epilog="Example: chimera apply agents/ ; generate | chimera apply -")
@click.argument("paths", nargs=-1, required=True)
@click.option("--keep-going", is_flag=True, help="Apply the valid ones though others have faults.")
@out.output_option
@click.pass_context
def apply(context: click.Context, paths: tuple[str, ...], keep_going: bool, output: str) -> int:
    """Make definitions live, from files, folders, globs, archives or standard input (-).

    All or nothing: a fault in one leaves everything as it was, unless --keep-going is given. Where the tenant's
    delivery policy takes no direct changes, it opens a change request.
    """
    began = time.perf_counter()
    applied = run(options_of(context), lambda api: apply_paths(api, paths, keep_going=keep_going))
    applied["seconds"] = round(time.perf_counter() - began, 2)
    if output != "table":
        out.show(applied, output)
    elif (change := applied.get("change")) is not None:
        tell_faults(applied)
        click.echo(f"Agents are changed by change requests here: opened {change['id']} ({change['risk']} risk).")
        click.echo(f"Next: `chimera change show {change['id']}`; somebody else approves it.", err=True)
    else:
        tell_faults(applied)
        for name in applied["owned"][:SHOWN_FAULTS]:
            click.echo(f"error: the agent {name!r} belongs to a resource: `chimera describe {name}` names it", err=True)
        click.echo(
            f"{applied['created']:,} created, {applied['updated']:,} updated, {applied['unchanged']:,} unchanged, "
            f"{applied['refused']:,} refused in {applied['seconds']} s"
        )
    if applied["refused"] and not keep_going:
        click.echo("Nothing was applied.\nNext: mend the faults, or apply the others with --keep-going.", err=True)
    return INVALID if applied["refused"] else 0


async def apply_paths(api: Api, paths: Iterable[str], *, keep_going: bool) -> dict[str, Any]:
    """Apply what `paths` name; counts, and the faults of what was refused.

    Where the tenant's agents are changed by change requests alone, it opens one (`change`).
    """
    result, batch = await stage_paths(api, paths)
    if batch is None or (result["refused"] and not keep_going):
        return result
    try:
        done = await api.call("POST", api.path("batches", batch, "commit"), {"keep_going": keep_going})
    except ProblemError as error:
        if error.code != DIRECT_REFUSED or result["refused"]:
            raise
        body = {"batch": batch, "title": title_of(paths)}
        result["change"] = await api.call_once(api.path("changes"), body)
        return result
    for name in ("created", "updated"):
        result[name] = done[name]
    result["unchanged"] += done["unchanged"]
    result["sequence"] = done["sequence"]
    result["owned"] = done.get("owned", [])
    result["refused"] += len(result["owned"])
    return result


async def stage_paths(api: Api, paths: Iterable[str]) -> tuple[dict[str, Any], str | None]:
    """Send what `paths` name and isn't live to a batch; counts and faults, and the batch (None: all of it is live)."""
    sources = await asyncio.to_thread(lambda: list(read_sources(list(paths))))
    answer = await api.call("POST", api.path("check"), {"sources": [source.digest for source in sources]})
    live: dict[str, str] = answer["live"]
    waiting = [source for source in sources if source.digest not in live]
    result: dict[str, Any] = {
        "created": 0,
        "updated": 0,
        "unchanged": len(sources) - len(waiting),
        "refused": 0,
        "faults": [],
        "owned": [],
    }
    if not waiting:
        return result, None
    batch: str = (await api.call("POST", api.path("batches")))["batch"]
    chunks = [waiting[first : first + CHUNK] for first in range(0, len(waiting), CHUNK)]
    with _bar(len(waiting)) as bar:
        # The next chunk is parsed here while the API checks this one: two cores, half the time.
        prepared = asyncio.create_task(asyncio.to_thread(_items, chunks[0]), name="prepare")
        for number, chunk in enumerate(chunks):
            items = await prepared
            if number + 1 < len(chunks):
                prepared = asyncio.create_task(asyncio.to_thread(_items, chunks[number + 1]), name="prepare")
            for source in chunk:
                await source.send_bundle(api)
            body = {"first": number * CHUNK, "items": items}
            told = await api.call("POST", api.path("batches", batch, "definitions"), body)
            for one in told["results"]:
                result["faults"].extend(_faults(waiting[one["position"]], one))
                result["refused"] += bool(one.get("faults"))
            if bar is not None:
                bar.update(len(chunk))
    return result, batch


def tell_faults(result: dict[str, Any]) -> None:
    """Say what is wrong with definitions, each in a line."""
    faults = result["faults"]
    for fault in faults[:SHOWN_FAULTS]:
        click.echo(f"{fault.get('severity', 'error')}: {place(fault)}", err=True)
    if len(faults) > SHOWN_FAULTS:
        click.echo(f"… and {len(faults) - SHOWN_FAULTS:,} more", err=True)


def title_of(paths: Iterable[str]) -> str:
    """What a change of these files is called where nobody says it."""
    text = ", ".join(paths)
    return f"Change {text}" if len(text) <= LONGEST_TITLE else f"Change {text[:LONGEST_TITLE]}…"


def _items(sources: list[Source]) -> list[dict[str, Any]]:
    return [source.item() for source in sources]


def _faults(source: Source, told: dict[str, Any]) -> list[dict[str, Any]]:
    """The faults of one definition with their lines: found again here, where the text is."""
    import msgspec

    found = [msgspec.to_builtins(fault) for fault in source.check()]
    if any(fault.get("severity", "error") == "error" for fault in found) or not told.get("faults"):
        return found
    return [{**fault, "file": source.document.file} for fault in told["faults"]]


def _bar(length: int) -> AbstractContextManager[Progress | None]:
    if length < CHUNK or not sys.stderr.isatty():
        return nullcontext()
    bar: AbstractContextManager[Progress] = click.progressbar(length=length, label="Applying", file=sys.stderr)
    return bar
