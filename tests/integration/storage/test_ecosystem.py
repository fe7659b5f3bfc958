"""The snapshot of live agents follows the catalogue, and says of each what its definition says."""

import pytest

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.jaegis.ecosystem import KEPT_FOR, Ecosystems, LiveRevision
from chimera.testing.clock import ManualClock
from chimera.testing.definitions import compiled, staged


class Counting:
    """A catalogue that counts how many agents were read of it."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self.read = 0

    async def changed_since(self, tenant: str, sequence: int, limit: int) -> list[LiveRevision]:
        found = await self._catalogue.changed_since(tenant, sequence, limit)
        self.read += len(found)
        return found


@pytest.fixture
def catalogue(database: Database) -> Catalogue:
    return Catalogue(database, max_hosts=4, clock=ManualClock())


async def applied(catalogue: Catalogue, *names: str, tenant: str = "default", version: str = "1.0.0") -> None:
    agents = [compiled(name, tenant=tenant, metadata={"version": version}) for name in names]
    await catalogue.apply(tenant, staged(*agents), keep_going=False, expect=None, by=None)


async def test_a_snapshot_follows_what_is_applied_changed_and_deleted(catalogue: Catalogue) -> None:
    counting = Counting(catalogue)
    ecosystems = Ecosystems(counting, ManualClock())
    await applied(catalogue, "anna", "bert", "carl")
    await applied(catalogue, "other", tenant="elsewhere")
    first = await ecosystems.of("default")
    assert first.names == ("anna", "bert", "carl")
    assert "anna" in first.members["anna"].terms
    await applied(catalogue, "bert", version="2.0.0")
    await catalogue.delete_agents("default", ["carl"])
    counting.read = 0
    second = await ecosystems.of("default")
    assert second.names == ("anna", "bert")
    assert second.members["bert"].revision != first.members["bert"].revision
    assert counting.read == 2, "only what was changed is read"
    assert first.names == ("anna", "bert", "carl"), "a snapshot stays what it was"
    assert await ecosystems.of("default") is second
    assert (await ecosystems.of("elsewhere")).names == ("other",)


async def test_pages_end_where_all_are_read(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chimera.jaegis.ecosystem.PAGE", 2)
    names = [f"agent-{number}" for number in range(5)]
    await applied(catalogue, *names)
    assert (await Ecosystems(catalogue, ManualClock()).of("default")).names == tuple(names)


async def test_a_snapshot_is_read_anew_before_the_traces_of_deletions_are_gone(catalogue: Catalogue) -> None:
    clock, counting = ManualClock(), Counting(catalogue)
    ecosystems = Ecosystems(counting, clock)
    await applied(catalogue, "anna")
    await ecosystems.of("default")
    clock.advance(KEPT_FOR + 1)
    counting.read = 0
    await ecosystems.of("default")
    assert counting.read == 1


async def test_tenants_beyond_the_bound_are_forgotten_and_read_again(catalogue: Catalogue) -> None:
    ecosystems = Ecosystems(catalogue, ManualClock(), kept=1)
    await applied(catalogue, "anna")
    await applied(catalogue, "other", tenant="elsewhere")
    for _ in range(2):
        assert (await ecosystems.of("default")).names == ("anna",)
        assert (await ecosystems.of("elsewhere")).names == ("other",)
