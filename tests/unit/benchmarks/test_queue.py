"""The benchmark of the queue runs, and counts what it says."""

import re
from pathlib import Path

from rich.console import Console

from benchmarks.figures import ROWS
from benchmarks.queue import BARE, measure, one_run, show


def test_the_queue_is_measured_on_both_databases() -> None:
    runs = [one_run(70, beside=False)[0]]
    assert set(runs[0]) == {"SQLite", "PostgreSQL"}
    for figures in runs[0].values():
        assert min(figures.accepted, figures.batched, figures.completed) > 0
    console = Console(width=120, record=True)
    show(runs, console)
    assert "completed/s" in console.export_text()


def test_its_rows_are_rows_of_the_report_and_say_why_there_is_no_dbos() -> None:
    rows = measure(70, beside=False)
    assert set(rows) < {row.id for row in ROWS}
    assert rows["queue_completed_sqlite"].note == "no DBOS: it was not asked for"


def test_what_dbos_runs_with_is_locked() -> None:
    lock = (Path(BARE) / "dbos.txt").read_text()
    assert re.search(r"^dbos==\S+ \\$", lock, re.MULTILINE)
    packages = [line for line in lock.splitlines() if line and not line.startswith(" ")]
    assert all("==" in package for package in packages) and lock.count("--hash=sha256:") >= len(packages)
