"""The table for people and the JSON that is kept."""

import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.figures import ROWS, Measured, Row, Sizes, verdict
from benchmarks.stats import median, spread


class Beside(Struct, frozen=True, kw_only=True):
    """A figure of the same agents without Chimera. `extrapolated` says from how many, where not all were run."""

    what: str
    value: float
    unit: str
    extrapolated: str = ""


class Report(Struct, frozen=True, kw_only=True):
    """Everything of one `make bench`."""

    taken: str
    machine: dict[str, str | int]
    sizes: Sizes
    scale: int
    rows: dict[str, list[Measured]]
    beside: list[Beside]
    skipped: dict[str, str]


def report(
    sizes: Sizes, scale: int, runs: list[dict[str, Measured]], beside: list[Beside], skipped: dict[str, str]
) -> Report:
    """Put the runs together by row."""
    rows = {row.id: [run[row.id] for run in runs if row.id in run] for row in ROWS}
    return Report(
        taken=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        machine=machine.describe(),
        sizes=sizes,
        scale=scale,
        rows={name: several for name, several in rows.items() if several},
        beside=beside,
        skipped=skipped,
    )


def keep(made: Report, file: Path) -> None:
    """Write the JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")


def show(made: Report, console: Console) -> None:
    """Print the table."""
    runs = max((len(several) for several in made.rows.values()), default=0)
    told: dict[str, Any] = made.machine
    scale = f", at 1/{made.scale} of the size: not comparable" if made.scale > 1 else ""
    console.print(f"{told['cores']} cores, {told['processor']}, {told['memory_mib']} MiB; {runs} runs{scale}")
    table = Table(box=None, pad_edge=False)
    for name in ("what", "must", "aim", "median", "spread", "CPU s", "wall s", "client CPU s", "reached"):
        table.add_column(name, justify="left" if name in ("what", "reached") else "right")
    for row in ROWS:
        several = made.rows.get(row.id)
        if several is None:
            table.add_row(_what(row, made.sizes), *[""] * 7, "not measured")
            continue
        table.add_row(*_cells(row, several, made.sizes))
    console.print(table)
    for row in ROWS:
        for note in dict.fromkeys(one.note for one in made.rows.get(row.id, ()) if one.note):
            console.print(f"  {row.id}: {note}", highlight=False, markup=False)
    if made.beside:
        console.print("\nThe same agents without Chimera")
        for one in made.beside:
            marked = f"   (extrapolated from {one.extrapolated})" if one.extrapolated else ""
            console.print(f"  {one.what}: {one.value:,.4g} {one.unit}{marked}", highlight=False, markup=False)
    for name, reason in made.skipped.items():
        console.print(f"  {name}: not measured: {reason}", highlight=False, markup=False)


def _cells(row: Row, several: list[Measured], sizes: Sizes) -> list[str]:
    values = [one.value for one in several]
    middle = median(values)
    errors = sum(one.errors for one in several)
    sign = "≤" if row.better == "less" else "≥"
    walls = [one.wall if one.wall is not None else one.value for one in several if one.cpu is not None]
    return [
        _what(row, sizes),
        f"{sign} {row.must:g} {row.unit}" if row.must is not None else "",
        f"{sign} {row.aim:g}" if row.aim is not None else "",
        f"{middle:.4g} {row.unit}",
        f"{spread(values):.3g}",
        _number([one.cpu for one in several if one.cpu is not None]),
        _number(walls),
        _number([one.generator for one in several if one.generator is not None]),
        f"{errors} errors" if errors else verdict(row, middle),
    ]


def _number(values: list[float]) -> str:
    return f"{median(values):.3g}" if values else ""


def _what(row: Row, sizes: Sizes) -> str:
    return row.what.format(
        all=f"{sizes.all:,}", skills=f"{sizes.skills:,}", two=f"{sizes.two:,}", queued=f"{sizes.queued:,}"
    )
