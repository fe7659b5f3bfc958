"""The benchmark of upkeep in small: it runs to its end on both databases, removes all, and is printed."""

from rich.console import Console

from benchmarks.upkeep import SHARES, measure, show


def test_each_database_is_measured_alone_and_meanwhile() -> None:
    found = measure(300, SHARES[:1])
    assert set(found) == {"SQLite, share 0.25", "PostgreSQL, share 0.25"}
    for one in found.values():
        assert one.removed == 300 and one.rate > 0
        assert 0 < one.p50 <= one.p99 and 0 < one.during_p50 <= one.during_p99 <= one.during_most
    console = Console(width=130, record=True)
    show(found, console)
    assert "SQLite, share 0.25" in console.export_text()
