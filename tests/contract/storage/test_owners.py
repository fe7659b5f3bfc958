"""An agent's one owner, and the least hosts of a cell, on both databases."""

from collections.abc import Sequence

import pytest

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.gateway import GatewayStorage
from chimera.adapters.storage.leases import LeaseLost, StoredLeases
from chimera.agents.catalogue import Applied, OwnedByResource
from chimera.agents.compile import CompiledAgent
from chimera.kernel.leases import Lease
from chimera.testing.definitions import compiled, staged


@pytest.fixture
def catalogue(database: Database) -> Catalogue:
    return Catalogue(database, max_hosts=7)


async def apply(catalogue: Catalogue, *agents: CompiledAgent, keep_going: bool = False, **owners: str) -> Applied:
    items = staged(*agents)
    named = {name.replace("_", "-"): owner for name, owner in owners.items()}
    return await catalogue.apply("default", items, keep_going=keep_going, expect=None, by="user:x", owners=named)


async def owners(catalogue: Catalogue) -> dict[str, str | None]:
    rows = await catalogue.agents("default", {}, "", 100)
    return {row["name"]: row["owner"] for row in rows}


async def test_an_owned_agent_is_changed_by_its_owner_alone(catalogue: Catalogue) -> None:
    await apply(catalogue, compiled("one"), compiled("two"), one="team/one")
    assert await owners(catalogue) == {"one": "team/one", "two": None}

    changed = compiled("one", metadata={"description": "Other."})
    with pytest.raises(OwnedByResource, match="Agent 'one' in the namespace 'team'") as refused:
        await apply(catalogue, changed, compiled("three"))
    assert refused.value.status == 409 and "kubectl -n team edit agents.chimera.ecosystem one" in str(
        refused.value.next_step
    )
    assert "three" not in await owners(catalogue), "all or nothing"
    with pytest.raises(OwnedByResource, match="applied through the API"):
        await apply(catalogue, compiled("two"), two="team/two")
    with pytest.raises(OwnedByResource):
        await apply(catalogue, changed, one="another/one")
    assert (await apply(catalogue, changed, one="team/one")).updated == 1


async def test_who_keeps_going_is_told_which_agents_belong_to_others(catalogue: Catalogue) -> None:
    await apply(catalogue, compiled("one"), one="team/one")
    changed = compiled("one", metadata={"description": "Other."})
    done = await apply(catalogue, changed, compiled("two"), keep_going=True)
    assert (done.created, done.refused, done.owned) == (1, 1, ("one",))


async def test_the_same_content_from_a_file_changes_nothing_and_is_no_conflict(catalogue: Catalogue) -> None:
    await apply(catalogue, compiled("one"), one="team/one")
    done = await apply(catalogue, compiled("one"))
    assert (done.unchanged, done.owned) == (1, ())
    assert await owners(catalogue) == {"one": "team/one"}


async def test_only_the_owner_deletes_and_then_the_name_is_free(catalogue: Catalogue) -> None:
    await apply(catalogue, compiled("one"), compiled("two"), one="team/one")
    with pytest.raises(OwnedByResource):
        await catalogue.delete_agents("default", ["two", "one"])
    with pytest.raises(OwnedByResource):
        await catalogue.delete_agents("default", ["two"], owners={"two": "team/two"})
    assert await owners(catalogue) == {"one": "team/one", "two": None}, "nothing was deleted"
    assert (await catalogue.delete_agents("default", ["one", "none"], owners={"one": "team/one"}))[0] == 1
    await apply(catalogue, compiled("one"))
    assert (await owners(catalogue))["one"] is None


async def test_owned_agents_are_read_in_pages_and_changes_by_sequence(catalogue: Catalogue) -> None:
    await apply(catalogue, compiled("a"), compiled("b"), compiled("c"), compiled("d"), a="t/a", b="t/b", d="t/d")
    first = await catalogue.owned_agents(("", ""), 2)
    rest = await catalogue.owned_agents((first[-1].tenant, first[-1].name), 2)
    assert [one.name for one in [*first, *rest]] == ["a", "b", "d"]
    assert {one.owner for one in [*first, *rest]} == {"t/a", "t/b", "t/d"}
    since = await catalogue.sequence()
    await catalogue.delete_agents("default", ["b"], owners={"b": "t/b"})
    await apply(catalogue, compiled("c", metadata={"description": "New."}))
    changes = await catalogue.changed_agents(since, 10)
    assert [(one.name, bool(one.live), one.owner) for one in changes] == [("b", False, None), ("c", True, None)]


async def test_who_lost_the_lease_writes_nothing(catalogue: Catalogue, database: Database) -> None:
    leases = StoredLeases(database)
    late = await leases.acquire("operator", "first", 60.0)
    assert late is not None
    await leases.release(late)
    assert await leases.acquire("operator", "second", 60.0)
    with pytest.raises(LeaseLost):
        await catalogue.apply(
            "default",
            staged(compiled("one")),
            keep_going=True,
            expect=None,
            by=None,
            owners={"one": "t/one"},
            held=late,
        )
    with pytest.raises(LeaseLost):
        await catalogue.delete_agents("default", ["one"], held=late)
    with pytest.raises(LeaseLost):
        await catalogue.put_bounds({}, held=late)
    assert await owners(catalogue) == {}


async def held(database: Database) -> Lease:
    found = await StoredLeases(database).acquire("operator", "me", 60.0)
    assert found is not None
    return found


async def bounded(catalogue: Catalogue, database: Database, cell: str) -> Sequence[int]:
    kept = [spec.min_hosts for spec in await catalogue.kept_cells() if spec.cell == cell]
    live = [spec.min_hosts for spec in await catalogue.live_cells() if spec.cell == cell]
    found = await GatewayStorage(database).cell(cell)
    assert found is not None
    return (*kept, *live, found.min_hosts)


async def test_a_cell_keeps_the_hosts_that_a_person_or_its_agents_ask_for(
    catalogue: Catalogue, database: Database
) -> None:
    lease = await held(database)
    await apply(catalogue, compiled("one"))
    ((cell, agents),) = (await catalogue.agents_in_cells()).items()
    assert agents == 1 and await bounded(catalogue, database, cell) == (0, 0)
    before = await catalogue.sequence()
    assert await catalogue.put_bounds({cell: 3, "no-such-cell": 2}, held=lease)
    assert await catalogue.sequence() > before, "whoever follows the catalogue is told"
    assert await bounded(catalogue, database, cell) == (3, 3, 3)
    assert await catalogue.bounds() == {cell: 3}
    before = await catalogue.sequence()
    assert not await catalogue.put_bounds({cell: 3}, held=lease)
    assert await catalogue.sequence() == before, "nothing changed"
    assert await catalogue.put_bounds({cell: 0}, held=lease)
    assert await bounded(catalogue, database, cell) == (0, 0)
