"""A database of its own for each test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import migrate, open_engine
from chimera.adapters.storage.writer import Writer
from chimera.testing.clock import ManualClock


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = open_engine(tmp_path / "chimera.db")
    migrate(made)
    yield made
    made.dispose()


@pytest.fixture
async def writer(engine: Engine) -> AsyncIterator[Writer]:
    made = Writer(engine)
    yield made
    made.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def catalogue(engine: Engine, writer: Writer, clock: ManualClock) -> Catalogue:
    return Catalogue(engine, writer, max_hosts=4, clock=clock)
