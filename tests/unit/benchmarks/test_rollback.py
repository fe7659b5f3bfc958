"""The benchmark of rollbacks runs, and says what it found."""

from pathlib import Path

from rich.console import Console

from benchmarks.rollback import measure, show
from chimera.testing.postgresql import PostgreSQLServer


async def test_rollbacks_and_switches_are_measured_and_no_call_fails(
    postgresql_server: PostgreSQLServer, tmp_path: Path
) -> None:
    found = await measure(postgresql_server, tmp_path, rollbacks=2, switches=3, many=20)
    assert (found.rollbacks, found.switches, found.many, found.failed) == (2, 3, 20, 0)
    assert found.calls > 0 and 0 < found.asked_p50 <= found.asked_p95 and found.many_asked > 0
    assert 0 <= found.holds_p50 <= found.holds_p95 <= found.holds_max
    console = Console(width=120, record=True)
    show(found, console)
    assert "0 failed" in console.export_text()
