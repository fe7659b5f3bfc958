"""`chimera upkeep`: what is removed when, how much there is, and doing it now."""

import asyncio
from typing import Any

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.failing import TRY_AGAIN

POLL = 0.5
DAY = 86_400.0
COLUMNS = (
    ("kind", "KIND"),
    ("kept", "KEPT"),
    ("rows", "ROWS"),
    ("size", "SIZE"),
    ("age", "OLDEST"),
    ("removed", "REMOVED"),
    ("ended", "LAST PASS"),
    ("problem", "PROBLEM"),
)
WOULD_COLUMNS = (("kind", "KIND"), ("would_go", "WOULD GO"))
DONE_COLUMNS = (("kind", "KIND"), ("last", "REMOVED"), ("seconds", "SECONDS"), ("problem", "PROBLEM"))


@click.group(epilog="Example: chimera upkeep status")
def upkeep() -> None:
    """Show and run what removes rows that have ended or are old enough (settings: `retention`, `upkeep`)."""


@upkeep.command(epilog="Example: chimera upkeep status --output json")
@out.output_option
@click.pass_context
def status(context: click.Context, output: str) -> None:
    """Show each kind of rows: how long it is kept, how much there is, what was removed."""
    found = run(options_of(context), lambda api: api.call("GET", "/v1/upkeep"))
    out.show(found, output, columns=COLUMNS, rows=[_row(kind) for kind in found["kinds"]])


@upkeep.command(name="run", epilog="Example: chimera upkeep run sessions events --dry-run")
@click.argument("kinds", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Only say how many rows of each kind would go.")
@click.option("--wait", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds to wait for it.")
@out.output_option
@click.pass_context
def run_now(context: click.Context, kinds: tuple[str, ...], dry_run: bool, wait: float, output: str) -> int:
    """Remove what may go of KINDS (all of them where none is named), and wait until it is done.

    It goes on when the wait is over. A kind whose removal failed is tried again by itself.
    """
    body = {"kinds": list(kinds), "dry_run": dry_run}
    if dry_run:
        told = run(options_of(context), lambda api: api.call("POST", "/v1/upkeep/run", body))
        rows = [{"kind": kind, "would_go": count} for kind, count in told["would_go"].items()]
        out.show(told, output, columns=WOULD_COLUMNS, rows=rows)
        return 0
    done = run(options_of(context), lambda api: _until_done(api, body, wait))
    out.show(done, output, columns=DONE_COLUMNS, rows=done)
    return TRY_AGAIN if any(one["problem"] or one["last"] is None for one in done) else 0


async def _until_done(api: Api, body: dict[str, Any], wait: float) -> list[dict[str, Any]]:
    asked = await api.call("POST", "/v1/upkeep/run", body)
    until = asyncio.get_running_loop().time() + wait
    while True:
        found = await api.call("GET", "/v1/upkeep")
        wanted = [one for one in found["kinds"] if one["kind"] in asked["asked"]]
        waiting = [one for one in wanted if (one["finished"] or 0.0) < asked["at"] and not one["problem"]]
        if not waiting or asyncio.get_running_loop().time() > until:
            return [_done(one, asked["at"]) for one in wanted]
        await asyncio.sleep(POLL)


def _done(kind: dict[str, Any], asked: float) -> dict[str, Any]:
    ended = (kind["finished"] or 0.0) >= asked
    problem = kind["problem"] or (None if ended else "it is still at work, or no control plane is")
    return {
        "kind": kind["kind"],
        "last": kind["last"] if ended else None,
        "seconds": kind["seconds"],
        "problem": problem,
    }


def _row(kind: dict[str, Any]) -> dict[str, Any]:
    return {
        **kind,
        "kept": "for ever" if kind["keep"] is None else _days(kind["keep"]),
        "size": out.size(kind["bytes"]),
        "age": None if kind["oldest"] is None else _days(kind["oldest"]),
        "ended": out.moment(kind["finished"]),
    }


def _days(seconds: float) -> str:
    return f"{seconds / DAY:.1f} d" if seconds >= DAY else f"{seconds / 3600:.1f} h"
