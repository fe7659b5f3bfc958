"""The benchmark of backups runs, and counts what it says."""

from rich.console import Console

from benchmarks.backup import one_run, show


def test_every_way_is_measured() -> None:
    runs = [one_run(2_000)]
    assert [way.partition(",")[0].partition(":")[0] for way in runs[0]] == [
        *("backup", "backup", "restore", "restore", "move", "copied", "copied")
    ]
    for figures in runs[0].values():
        assert figures.seconds > 0
        assert figures.rows == 1 + 2 * 6 + 50
        assert figures.size > 0
    console = Console(width=120, record=True)
    show(runs, console)
    assert "rows/s" in console.export_text()
