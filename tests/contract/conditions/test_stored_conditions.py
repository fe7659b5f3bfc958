"""Conditions on both databases: what is kept, told once, and counts for callers only while somebody keeps it."""

import msgspec
import pytest
from sqlalchemy import select, text

from chimera.adapters.storage.conditions import StoredConditions
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import LeaseLost, StoredLeases
from chimera.adapters.storage.schema.journal import event
from chimera.events.catalogue import ConditionsChanged
from chimera.kernel.leases import Lease
from chimera.platform.condition_keeper import Judged, worth_telling
from chimera.platform.conditions import HOME, Condition, Evidence, Seen, cell_subject, judge
from chimera.platform.reasons import Reason

LEASE = "cells"


def seen(cell: str, *reasons: Reason) -> Seen:
    evidence = tuple(Evidence(reason=reason, message="a secret path /x") for reason in reasons)
    return Seen(subject=cell_subject(cell), tenant="acme", evidence=evidence)


def judged(one: Seen, before: tuple[Condition, ...] = (), now: float = 1.0) -> Judged:
    found = judge(one, before, now)
    return Judged(subject=one.subject, tenant=one.tenant, conditions=found, told=worth_telling(before, found))


async def facts(database: Database) -> list[tuple[str, str, str, ConditionsChanged]]:
    rows = await database.read(lambda connection: connection.execute(select(event).order_by(event.c.seq)).all())
    return [(row.type, row.tenant, row.subject, msgspec.json.decode(row.data, type=ConditionsChanged)) for row in rows]


async def held(database: Database, owner: str = "me", life: float = 60.0) -> Lease:
    lease = await StoredLeases(database).acquire(LEASE, owner, life)
    assert lease is not None
    return lease


async def test_what_is_stored_is_there_after_a_restart_and_is_the_homes_own(database: Database) -> None:
    store = StoredConditions(database, "knative/cells")
    one, other = judged(seen("a", Reason.IMAGE_PULL_FAILED)), judged(seen("b"))
    await store.put([one, other], [], None)
    again = StoredConditions(database, "knative/cells")
    assert await again.load() == {one.subject: one.conditions, other.subject: other.conditions}
    assert await StoredConditions(database, "machine/1").load() == {}
    await again.put([], [one.subject], None)
    assert set(await again.load()) == {other.subject}


async def test_what_a_newer_release_wrote_is_no_fault(database: Database) -> None:
    store = StoredConditions(database, "here")
    await store.put([judged(seen("a", Reason.CRASH_LOOP))], [], None)
    newer = text("UPDATE condition_record SET conditions = replace(conditions, 'CrashLoop', 'AnotherReason')")
    await database.write(lambda connection: connection.execute(newer))
    assert await store.load() == {"cells/a": ()}
    await store.put([judged(seen("a", Reason.QUOTA_EXCEEDED))], [], None)
    assert (await store.load())["cells/a"]


async def test_pages_are_by_name(database: Database) -> None:
    store = StoredConditions(database, "here")
    await store.put([judged(seen(name)) for name in "cab"], [], None)
    first = await store.page("", 2)
    assert [one.subject for one in first] == ["cells/a", "cells/b"]
    assert [one.subject for one in await store.page("cells/b", 2)] == ["cells/c"]
    found = await store.of("cells/c")
    assert found is not None and found.tenant == "acme" and await store.of("cells/d") is None


async def test_trouble_is_a_fact_once_and_names_no_words(database: Database) -> None:
    store = StoredConditions(database, "here")
    fine = judged(seen("a"))
    await store.put([fine], [], None)
    assert await facts(database) == [], "what only came is none"
    bad = judged(seen("a", Reason.QUOTA_EXCEEDED), fine.conditions, 2.0)
    await store.put([bad], [], None)
    (told,) = await facts(database)
    assert told[:3] == ("cell.changed", "acme", "cells/a") and told[3].cell == "a"
    assert {(one.type, one.status, one.reason) for one in told[3].conditions} == {
        ("Ready", "False", "QuotaExceeded"),
        ("Startable", "False", "QuotaExceeded"),
    }
    assert "/x" not in str(told[3])
    home = Seen(subject=HOME, tenant="default", evidence=(Evidence(reason=Reason.HOME_AWAY, message="no"),))
    await store.put([judged(home)], [], None)
    assert (await facts(database))[1][:3] == ("home.changed", "default", "home")


async def test_a_keeper_that_was_replaced_writes_and_tells_nothing(database: Database) -> None:
    store = StoredConditions(database, "here")
    mine = await held(database)
    await StoredLeases(database).release(mine)
    theirs = await held(database, "another")
    with pytest.raises(LeaseLost):
        await store.put([judged(seen("a", Reason.CRASH_LOOP))], [], mine)
    assert await store.load() == {} and await facts(database) == []
    await store.put([judged(seen("a", Reason.CRASH_LOOP))], [], theirs)
    assert len(await facts(database)) == 1


async def test_callers_are_told_what_somebody_keeps(database: Database) -> None:
    store = StoredConditions(database, "here")
    lease = await held(database)
    one = judged(seen("a", Reason.CRASH_LOOP))
    home = judged(Seen(subject=HOME, tenant="default"))
    await store.put([one, judged(seen("b")), home], [], lease)
    assert set(await store.kept("a", LEASE)) == {*one.conditions, *home.conditions}
    await StoredLeases(database).release(lease)
    assert await store.kept("a", LEASE) == (), "the trouble may be long over"
    assert await store.kept("a", "another lease") == ()
