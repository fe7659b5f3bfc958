"""The benchmarks are a package beside the project's own: its folder's parent goes onto the path here."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chimera.testing.postgresql import PostgreSQLServer

sys.path.insert(0, str(Path(__file__).parents[3]))


@pytest.fixture(autouse=True)
def one_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark starts a durable server of its own, for figures that mean something; here all have the run's."""

    @contextmanager
    def shared(*, durable: bool) -> Iterator[PostgreSQLServer]:
        assert durable
        yield request.getfixturevalue("postgresql_server")

    for name in ("backup", "storage"):
        if module := sys.modules.get(f"benchmarks.{name}"):
            monkeypatch.setattr(module, "PostgreSQLServer", shared)
