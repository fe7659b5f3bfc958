"""What processes that scan may take: their part of memory, and of a check's time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chimera.adapters.memory import memory_there, share
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.opening import open_database
from chimera.bootstrap.scanner import ScannerConfig
from chimera.bootstrap.scanning_parts import make_scanning, readers_memory
from chimera.kernel.settings import SettingsError

GIB = 1024**3


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    database = open_database(str(tmp_path / "empty.db"))
    yield Catalogue(database, max_hosts=4)  # it is asked nothing here
    database.close()


def test_memory_is_parted_among_all_who_read_what_strangers_sent() -> None:
    assert readers_memory({"at_once": 3}, {"at_once": 2}) == share(memory_there(), 5)
    assert readers_memory({}, {}) == share(memory_there(), 4)
    with pytest.raises(SettingsError, match="at_once"):
        readers_memory({"at_once": 0}, {})


@pytest.mark.parametrize(
    ("at_once", "parallel", "seconds"), [(2, 4, 900.0), (1, 4, 450.0), (3, 4, 900.0), (4, 4, 1800.0), (16, 4, 1800.0)]
)
async def test_a_scan_leaves_time_for_those_that_wait_for_it(
    catalogue: Catalogue, at_once: int, parallel: int, seconds: float
) -> None:
    delivery = {"parallel": parallel, "check_seconds": 1800.0}
    _, scans = make_scanning(catalogue, {"at_once": at_once}, None, {}, delivery, memory=GIB)
    assert scans._seconds == seconds
    await scans.aclose()


@pytest.mark.parametrize(("part", "memory"), [(GIB, GIB), (16 * GIB, 2 * GIB)])
async def test_a_process_has_its_part_and_no_more_than_the_setting(
    catalogue: Catalogue, part: int, memory: int
) -> None:
    _, scans = make_scanning(catalogue, {"memory_bytes": 2 * GIB}, None, {}, {}, memory=part)
    first = scans._knowing._first
    assert isinstance(first, ScannerConfig) and first.memory == memory
    await scans.aclose()
