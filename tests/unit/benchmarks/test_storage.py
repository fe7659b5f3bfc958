"""The benchmark of storage runs, and counts what it says."""

from rich.console import Console

from benchmarks.storage import CALLERS, one_run, show


def test_every_way_is_measured_on_both_databases() -> None:
    runs = [one_run(8)]
    assert set(runs[0]) == {"SQLite", "PostgreSQL", "SQLite, a commit each", "PostgreSQL, a commit each"}
    for figures in runs[0].values():
        assert 0 < figures.p50 <= figures.p99
        assert figures.rate > 0
    console = Console(width=120, record=True)
    show(runs, console)
    assert f"{CALLERS} callers" in console.export_text()
