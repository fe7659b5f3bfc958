"""The journal as it is read, subscriptions as they are changed, and what retention may remove, on both databases."""

import asyncio
import time
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import delete, select

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.reading import JournalStorage
from chimera.adapters.storage.events.retention import expire_letters, unneeded_events
from chimera.adapters.storage.events.subscriptions import SubscriptionStorage
from chimera.adapters.storage.leases import LeaseLost, StoredLeases
from chimera.adapters.storage.schema.journal import audit_entry, event
from chimera.adapters.storage.schema.subscriptions import delivery as table
from chimera.events.delivery.model import Progress, Row
from chimera.events.errors import (
    EventsGone,
    InvalidSubscription,
    LetterNotFound,
    SubscriptionExists,
    SubscriptionNotFound,
    TooManySubscriptions,
)
from chimera.kernel.leases import Lease

from .conftest import KEEP, Happen, subscription

HOLD = 100.0


async def forget(database: Database, through: int) -> None:
    await database.write(lambda connection: connection.execute(delete(event).where(event.c.seq <= through)))


async def unneeded(database: Database, now: float | None = None) -> int:
    at = time.time() if now is None else now
    return await database.write(lambda connection: unneeded_events(connection, at, HOLD))


async def facts(database: Database) -> list[str]:
    query = select(event.c.type).where(event.c.subject != "tenant").order_by(event.c.seq)
    return await database.read(lambda connection: list(connection.execute(query).scalars()))


def progress(of: Any, cursor: int, *put: Row, **fields: Any) -> Progress:
    return Progress(subscription=of.id, epoch=of.epoch, cursor=cursor, put=put, **fields)


# -- the journal -------------------------------------------------------------------------------------------------------


async def test_facts_are_read_in_order_by_page_and_by_place(journal_store: JournalStorage, happen: Happen) -> None:
    assert await journal_store.heads() == (0, 0)
    assert await journal_store.oldest() == 1
    await happen(3)
    await happen(2, tenant="other")
    assert (await journal_store.heads())[0] == 5
    assert [fact.seq for fact in await journal_store.facts(1, 3)] == [2, 3, 4]
    assert [fact.seq for fact in await journal_store.facts_at([5, 2, 99])] == [2, 5]
    assert [fact.seq for fact in await journal_store.facts_of("other", after=0, limit=9)] == [4, 5]
    assert [fact.seq for fact in await journal_store.facts_of("default", before=3, limit=9)] == [2, 1]
    assert [fact.seq for fact in await journal_store.facts_of(None, limit=2)] == [5, 4]
    (first, *_) = await journal_store.facts(0, 1)
    assert (first.type, bytes(first.data)) == ("tenant.resumed", b'{"name":"default","by":"system:test"}')


async def test_the_oldest_place_is_the_next_one_where_all_is_gone(
    journal_store: JournalStorage, database: Database, happen: Happen
) -> None:
    await happen(3)
    await forget(database, 2)
    assert await journal_store.oldest() == 3
    await forget(database, 3)
    assert await journal_store.oldest() == 4


# -- subscriptions -----------------------------------------------------------------------------------------------------


async def test_a_subscription_is_stored_told_and_counted(
    subscriptions: SubscriptionStorage, journal_store: JournalStorage, database: Database
) -> None:
    wanted = subscription(filters=[{"prefix": {"type": "chimera.task."}}])
    made = await subscriptions.create(wanted, "now", "key:one", most=5)

    assert await subscriptions.get("default", "shop") == made == replace(wanted, cursor=0)
    assert [one.name for one in await subscriptions.page("default", "", 9)] == ["shop"]
    assert await subscriptions.page("other", "", 9) == []
    assert (await journal_store.heads())[1] == 1
    assert await facts(database) == ["subscription.created"]
    (told,) = await journal_store.facts(0, 9)
    assert b"token" not in bytes(told.data) and b"https://shop.example" in bytes(told.data)
    query = select(audit_entry.c.action, audit_entry.c.entry)
    (entry,) = await database.read(lambda connection: connection.execute(query).all())
    assert entry.action == "subscription.created" and b"token" not in entry.entry


async def test_a_name_is_taken_once_and_room_is_bounded(subscriptions: SubscriptionStorage, database: Database) -> None:
    await subscriptions.create(subscription(), "now", "b", most=2)
    with pytest.raises(SubscriptionExists):
        await subscriptions.create(subscription(), "now", "b", most=2)
    ended = await asyncio.gather(
        *(subscriptions.create(subscription(f"s{number}"), "now", "b", most=2) for number in range(3)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, TooManySubscriptions) for one in ended) == 2
    assert await facts(database) == ["subscription.created"] * 2


async def test_where_a_subscription_begins(
    subscriptions: SubscriptionStorage, database: Database, happen: Happen
) -> None:
    await happen(5)
    await forget(database, 2)
    starts: list[Any] = ["now", "beginning", 4]
    made = [await subscriptions.create(subscription(f"s{n}"), start, "b", most=9) for n, start in enumerate(starts)]
    assert [one.cursor for one in made] == [5, 2, 4]
    with pytest.raises(EventsGone, match="place 2"):
        await subscriptions.create(subscription("gone"), 1, "b", most=9)
    with pytest.raises(InvalidSubscription, match="last place"):
        await subscriptions.create(subscription("later"), 99, "b", most=9)


async def test_changes_count_versions_and_a_move_makes_an_epoch(
    subscriptions: SubscriptionStorage, database: Database, happen: Happen
) -> None:
    made = await subscriptions.create(subscription(), "now", "b", most=9)
    await happen(2)
    paused = await subscriptions.change(
        "default", "shop", lambda one: replace(one, state="paused", why="asked", paused=5.0), what="paused", by="b"
    )
    assert (paused.version, paused.epoch, paused.why) == (made.version + 1, made.epoch, "asked")
    same = await subscriptions.change("default", "shop", lambda one: one, what="updated", by="b")
    assert same == paused
    moved = await subscriptions.change("default", "shop", lambda one: one, what="updated", by="b", start="now")
    assert moved.epoch == made.epoch + 1 and moved.cursor > made.cursor
    await subscriptions.delete("default", "shop", "b")
    assert await subscriptions.get("default", "shop") is None
    for work in (
        subscriptions.delete("default", "shop", "b"),
        subscriptions.change("default", "shop", lambda one: one, what="updated", by="b"),
    ):
        with pytest.raises(SubscriptionNotFound):
            await work
    names = ["created", "paused", "updated", "deleted"]
    assert await facts(database) == [f"subscription.{name}" for name in names]


async def test_a_paused_subscription_whose_events_are_gone_says_so_when_it_is_to_go_on(
    subscriptions: SubscriptionStorage, database: Database, happen: Happen
) -> None:
    await subscriptions.create(subscription(state="paused"), "now", "b", most=9)
    await happen(3)
    await forget(database, 3)

    def resumed(one: Any) -> Any:
        return replace(one, state="active", why="", paused=None)

    with pytest.raises(EventsGone):
        await subscriptions.change("default", "shop", resumed, what="resumed", by="b")
    made = await subscriptions.change("default", "shop", resumed, what="resumed", by="b", start="beginning")
    assert (made.state, made.cursor) == ("active", 3)


# -- deliveries --------------------------------------------------------------------------------------------------------


async def test_progress_is_written_under_the_lease_alone(
    subscriptions: SubscriptionStorage, deliveries: Any, database: Database, lease: Lease, happen: Happen
) -> None:
    made = await subscriptions.create(subscription(), "now", "b", most=9)
    await happen(5)
    rows = [Row(seq=2, tenant="default", attempts=1, first=7.0, due=9.0, reason="r"), Row(seq=3, tenant="default")]
    await deliveries.save([progress(made, 4, *rows, delivered=5.0, failed=6.0, failure="r")], lease)

    (stored,) = await deliveries.subscriptions("k1")
    assert (stored.cursor, stored.delivered, stored.failed, stored.failure) == (4, 5.0, 6.0, "r")
    assert await deliveries.subscriptions("k2") == []
    assert (await deliveries.kept(made, 4)).rows == rows

    await deliveries.save([progress(made, 3, drop=[2])], lease)
    (stored,) = await deliveries.subscriptions("k1")
    assert (stored.cursor, stored.delivered) == (4, 5.0), "a cursor never goes back"
    assert [row.seq for row in (await deliveries.kept(made, 4)).rows] == [3]

    leases = StoredLeases(database)
    await leases.release(lease)
    assert await leases.acquire("delivery", "you", 100.0)
    with pytest.raises(LeaseLost):
        await deliveries.save([progress(made, 5)], lease)


async def test_progress_of_an_older_epoch_or_a_deleted_subscription_is_nobodys(
    subscriptions: SubscriptionStorage, deliveries: Any, lease: Lease, happen: Happen
) -> None:
    await happen(3)
    moved = await subscriptions.create(subscription("moved"), "now", "b", most=9)
    gone = await subscriptions.create(subscription("gone"), "now", "b", most=9)
    await subscriptions.change("default", "moved", lambda one: one, what="updated", by="b", start=1)
    await subscriptions.delete("default", "gone", "b")
    row = Row(seq=2, tenant="default")
    await deliveries.save([progress(moved, 9, row), progress(gone, 9, row)], lease)
    (stored,) = await deliveries.subscriptions("k1")
    assert stored.cursor == 1
    assert (await deliveries.kept(moved, 0)).rows == (await deliveries.kept(gone, 0)).rows == []


async def test_a_receiver_that_wants_no_more_pauses_its_subscription(
    subscriptions: SubscriptionStorage, deliveries: Any, journal_store: JournalStorage, lease: Lease, database: Database
) -> None:
    made = await subscriptions.create(subscription(), "now", "b", most=9)
    changes = (await journal_store.heads())[1]
    await deliveries.save([progress(made, 1, pause="gone")], lease)
    (stored,) = await deliveries.subscriptions("k1")
    assert (stored.state, stored.why, stored.version) == ("paused", "gone", made.version + 1)
    assert stored.paused is not None
    assert (await journal_store.heads())[1] > changes
    assert (await facts(database))[-1] == "subscription.paused"


async def dead(journal_store: JournalStorage, seq: int) -> Row:
    (fact,) = await journal_store.facts_at([seq])
    return Row(seq=seq, tenant="default", attempts=9, first=1.0, letter=f"dl_{seq}", died=2.0, reason="no", fact=fact)


async def test_dead_letters_hold_their_event_and_are_replayed_or_dropped_once(
    subscriptions: SubscriptionStorage,
    deliveries: Any,
    journal_store: JournalStorage,
    lease: Lease,
    database: Database,
    happen: Happen,
) -> None:
    made = await subscriptions.create(subscription(), "now", "b", most=9)
    await happen(4)
    await deliveries.save([progress(made, 2, await dead(journal_store, 2), await dead(journal_store, 4))], lease)
    await forget(database, 5)

    found = await subscriptions.letters("default", None, "", 9)
    assert [(one.letter, one.subscription, one.fact.seq, one.reason) for one in found] == [
        ("dl_2", "shop", 2, "no"),
        ("dl_4", "shop", 4, "no"),
    ]
    assert found[0].expires == 2.0 + KEEP
    assert await subscriptions.letters("default", "other", "", 9) == []
    assert await subscriptions.letters("other", None, "", 9) == []
    assert [one.letter for one in await subscriptions.letters("default", "shop", "dl_2", 9)] == ["dl_4"]
    assert (await subscriptions.counts("default", [made.id]))[made.id].letters == 2
    assert (await deliveries.kept(made, 2)).over == frozenset({4}), "what is behind the cursor isn't read as new"

    with pytest.raises(LetterNotFound):
        await subscriptions.replay("default", ["dl_2", "dl_9"], "b")
    with pytest.raises(LetterNotFound):
        await subscriptions.drop("other", ["dl_2"], "b")
    assert await subscriptions.replay("default", ["dl_2"], "b") == 1
    (row,) = (await deliveries.kept(made, 2)).rows
    assert (row.seq, row.attempts, row.first, row.fact) == (2, 0, None, found[0].fact)
    assert await subscriptions.letter("default", "dl_2") is None

    assert await subscriptions.drop("default", ["dl_4"], "b") == 1
    kept = await deliveries.kept(made, 2)
    assert (kept.over, [one.seq for one in kept.rows]) == (frozenset({4}), [2]), "dropped, and still not to be read"
    for again in (subscriptions.drop, subscriptions.replay):
        with pytest.raises(LetterNotFound):
            await again("default", ["dl_4"], "b")
    (stored,) = await deliveries.subscriptions("k1")
    assert stored.version == made.version + 2


async def test_too_many_dead_letters_pause_a_subscription(
    subscriptions: SubscriptionStorage, deliveries: Any, journal_store: JournalStorage, lease: Lease, happen: Happen
) -> None:
    made = await subscriptions.create(subscription(), "now", "b", most=9)
    await happen(3)
    for seq in (2, 3):
        await deliveries.save([progress(made, seq, await dead(journal_store, seq))], lease)
    (stored,) = await deliveries.subscriptions("k1")
    assert stored.state == "active"
    await deliveries.save([progress(made, 4, await dead(journal_store, 4))], lease)
    (stored,) = await deliveries.subscriptions("k1")
    assert (stored.state, stored.why) == ("paused", "letters")


# -- retention ---------------------------------------------------------------------------------------------------------


async def test_what_nobody_needs_of_the_journal(
    subscriptions: SubscriptionStorage,
    deliveries: Any,
    journal_store: JournalStorage,
    lease: Lease,
    database: Database,
    happen: Happen,
) -> None:
    assert await unneeded(database) == 0
    await happen(5)
    assert await unneeded(database) == 5, "without subscriptions all of it"
    made = await subscriptions.create(subscription(), 1, "b", most=9)
    assert await unneeded(database) == 1
    await deliveries.save([progress(made, 5, Row(seq=3, tenant="default"), await dead(journal_store, 2))], lease)
    assert await unneeded(database) == 2, "a pending delivery needs its event, a dead letter holds it"
    await deliveries.save([progress(made, 5, drop=[3])], lease)
    assert await unneeded(database) == 5

    def paused(one: Any) -> Any:
        return replace(one, state="paused", why="asked", paused=1_000.0)

    await subscriptions.change("default", "shop", paused, what="paused", by="b")
    last = (await journal_store.heads())[0]
    assert await unneeded(database, 1_000.0 + HOLD - 1) == 5
    assert await unneeded(database, 1_000.0 + HOLD + 1) == last


async def test_dead_letters_end_and_none_before_the_cursor_is_behind_it(
    subscriptions: SubscriptionStorage,
    deliveries: Any,
    journal_store: JournalStorage,
    lease: Lease,
    database: Database,
    happen: Happen,
) -> None:
    made = await subscriptions.create(subscription(), "now", "b", most=9)
    await happen(3)
    await deliveries.save([progress(made, 2, *[await dead(journal_store, seq) for seq in (2, 3)])], lease)

    async def expire(now: float) -> int:
        return await database.write(lambda connection: expire_letters(connection, now, 10))

    assert await expire(2.0 + KEEP - 1) == 0
    assert await expire(2.0 + KEEP) == 1
    assert [one.seq for one in await subscriptions.letters("default", None, "", 9)] == [3]
    await deliveries.save([progress(made, 3)], lease)
    assert await expire(2.0 + KEEP) == 1
    rows = await database.read(lambda connection: connection.execute(select(table)).all())
    assert rows == []
