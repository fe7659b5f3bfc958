"""A tenant's bus on both databases: made with the first agent that takes events, adopted by who delivers."""

from typing import Any

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.bus import BusRows, lease_name
from chimera.adapters.storage.events.deliveries import DeliveryStorage
from chimera.adapters.storage.events.letters import LetterStorage, expire_agent_letters
from chimera.adapters.storage.events.reading import JournalStorage
from chimera.adapters.storage.events.subscriptions import SubscriptionStorage
from chimera.adapters.storage.gateway import GatewayStorage
from chimera.adapters.storage.leases import StoredLeases
from chimera.gateway.eventing.ports import AgentLetter
from chimera.testing.definitions import compiled, staged

from .conftest import KEEP, Happen


def agent(name: str = "anna", *types: str) -> Any:
    return compiled(
        name,
        capabilities={"communication_protocols": ["http", "events"]},
        subscriptions=[{"name": f"s{number}", "types": [text]} for number, text in enumerate(types)],
    )


async def apply(catalogue: Catalogue, *agents: Any) -> None:
    await catalogue.apply("default", staged(*agents), keep_going=False, expect=None, by=None)


async def test_a_bus_begins_where_the_first_agent_that_takes_events_was_applied(
    database: Database, deliveries: DeliveryStorage, journal_store: JournalStorage, happen: Happen
) -> None:
    catalogue = Catalogue(database, max_hosts=1)
    await apply(catalogue, compiled("bert"))
    await happen(3)
    await deliveries.adopt("k1")
    assert await deliveries.subscriptions("k1") == []
    last, changes = await journal_store.heads()
    await apply(catalogue, agent("anna", "task.failed"))
    await apply(catalogue, agent("carl", "task.failed"))

    assert (await journal_store.heads())[1] == changes + 1
    await deliveries.adopt("k1")

    (bus,) = await deliveries.subscriptions("k1")
    assert (bus.kind, bus.tenant, bus.cursor, bus.state) == ("bus", "default", last, "active")


async def test_an_agent_takes_events_since_it_first_did(database: Database, happen: Happen) -> None:
    catalogue, routes = Catalogue(database, max_hosts=1), GatewayStorage(database)

    async def since() -> int:
        return (await routes.changed_routes(0, 10))[0].events_since

    await happen(2)
    await apply(catalogue, agent("anna", "task.failed"))
    first = await since()
    assert first == 2
    await happen(2)
    await apply(catalogue, agent("anna", "task.failed", "task.expired"))
    assert await since() == first
    await catalogue.delete_agents("default", ["anna"])
    await apply(catalogue, agent("anna", "task.failed"))
    assert await since() > first


async def test_a_bus_is_taken_over_once_its_key_has_no_process_any_more(
    database: Database, deliveries: DeliveryStorage
) -> None:
    rows, leases = BusRows(database), StoredLeases(database)
    await database.write(lambda connection: rows.open(connection, "default", 0, 1.0))
    held = await leases.acquire(lease_name("k1"), "one", 100.0)
    assert held is not None
    await deliveries.adopt("k1")
    await deliveries.adopt("k2")
    assert [len(await deliveries.subscriptions(key)) for key in ("k1", "k2")] == [1, 0]
    await leases.release(held)
    await deliveries.adopt("k2")
    assert [len(await deliveries.subscriptions(key)) for key in ("k1", "k2")] == [0, 1]


async def test_a_bus_is_shown_and_paused_by_the_name_of_its_kind(
    database: Database, subscriptions: SubscriptionStorage
) -> None:
    rows = BusRows(database)
    await database.write(lambda connection: rows.open(connection, "default", 0, 1.0))
    (bus,) = await subscriptions.page("default", "", 10)
    assert bus.kind == "bus" and await subscriptions.letters("default", "bus", "", 9) == []


async def test_letters_of_agents_are_kept_once_found_removed_and_expire(database: Database) -> None:
    store = LetterStorage(database, keep=KEEP)
    made = [
        AgentLetter(
            tenant="default",
            letter=f"dl_{number}",
            agent=("anna", "bert")[number % 2],
            subscription="s",
            event={"id": str(number)},
            reason="no",
            died=5.0,
        )
        for number in range(4)
    ]
    await store.put(made)
    await store.put(made[:2])

    assert [one.letter for one in await store.page("default", None, None, "", 9)] == [f"dl_{n}" for n in range(4)]
    assert [one.letter for one in await store.page("default", "anna", "s", "dl_0", 9)] == ["dl_2"]
    assert await store.page("other", None, None, "", 9) == [] == await store.page("default", "anna", "t", "", 9)
    (found,) = await store.some("default", ["dl_1", "dl_9"])
    assert found.event == {"id": "1"} and found.expires == 5.0 + KEEP
    assert await store.remove("default", ["dl_1", "dl_9"], "key:one", replayed=True) == 1
    await database.write(lambda connection: expire_agent_letters(connection, 5.0 + KEEP, 2))
    assert len(await store.page("default", None, None, "", 9)) == 1
