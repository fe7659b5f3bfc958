"""The benchmark of the audit log runs, and counts what it says."""

from rich.console import Console

from benchmarks.audit import Figures, one_run, show


def test_everything_is_measured_on_both_databases() -> None:
    runs = [one_run(500)]
    assert set(runs[0]) == {"SQLite", "PostgreSQL"}
    for figures in runs[0].values():
        assert all(getattr(figures, name) > 0 for name in Figures.__struct_fields__ if name != "call")
    console = Console(width=120, record=True)
    show(runs, console)
    assert "verified/s" in console.export_text()
