"""The benchmark of state runs, and counts what it says."""

from rich.console import Console

from benchmarks.state import one_run, show
from benchmarks.storage import CALLERS


def test_everything_is_measured_on_both_databases() -> None:
    runs = [one_run(8)]
    assert set(runs[0]) == {"SQLite", "PostgreSQL"}
    for results in runs[0].values():
        assert len(results) == 6
        assert all(0 < figures.p50 <= figures.p99 and figures.rate > 0 for figures in results.values())
    console = Console(width=130, record=True)
    show(runs, console)
    assert f"{CALLERS} callers" in console.export_text()
