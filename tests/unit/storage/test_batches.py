"""Batches: all or nothing, the good rest with `keep_going`, safe to send twice and from two places."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import func, select

from chimera.adapters.storage import batches
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.catalogue import batch, batch_item, revision
from chimera.adapters.storage.schema.state import session
from chimera.agents.catalogue import (
    Applied,
    BatchHasFaults,
    ChangedMeanwhile,
    DuplicateNames,
    UnknownBatch,
    source_digest,
)
from chimera.agents.compile import CompiledAgent
from chimera.testing.clock import ManualClock
from chimera.testing.definitions import compiled, fleet, refused, staged

TENANT = "default"
NOWHERE = "batch_nowhere"


async def apply(catalogue: Catalogue, *agents: CompiledAgent, **options: Any) -> Applied:
    options = {"keep_going": False, "expect": None, "by": None, **options}
    return await catalogue.apply(TENANT, staged(*agents), **options)


async def names(catalogue: Catalogue, tenant: str = TENANT) -> list[str]:
    return [row["name"] for row in await catalogue.agents(tenant, {}, "", 1000)]


async def rows(database: Database, table: Any) -> int:
    counting = select(func.count()).select_from(table)
    return await database.read(lambda connection: int(connection.execute(counting).scalar() or 0))


async def test_nothing_is_live_before_the_commit_and_all_is_after_it(catalogue: Catalogue, database: Database) -> None:
    batch_id = await catalogue.open_batch(TENANT)
    agents = [compiled(f"agent-{number:04d}") for number in range(1203)]
    items = staged(*agents)
    for first in range(0, len(items), 500):
        await catalogue.stage(TENANT, batch_id, items[first : first + 500])
    assert await names(catalogue) == []
    assert (await catalogue.status())["open_batches"] == 1

    applied = await catalogue.commit(TENANT, batch_id)

    assert (applied.created, applied.updated, applied.unchanged, applied.sequence) == (1203, 0, 0, 1203)
    assert (await catalogue.status())["agents"] == 1203
    assert await rows(database, batch_item) == 0


async def test_the_same_again_changes_nothing(catalogue: Catalogue) -> None:
    await apply(catalogue, compiled("anna"), compiled("bert"))
    before = await catalogue.agent(TENANT, "anna")

    again = await apply(catalogue, compiled("anna"), compiled("bert"))

    assert (again.created, again.updated, again.unchanged, again.sequence) == (0, 0, 2, 2)
    assert await catalogue.agent(TENANT, "anna") == before


async def test_a_change_is_an_update_and_keeps_when_it_was_made(catalogue: Catalogue, clock: ManualClock) -> None:
    await apply(catalogue, compiled("anna"), compiled("bert"))
    made = (await catalogue.agent(TENANT, "anna"))["created"]
    clock.advance(10)

    applied = await apply(catalogue, compiled("anna", metadata={"version": "2.0.0"}), compiled("bert"))

    assert (applied.updated, applied.unchanged, applied.same_version, applied.sequence) == (1, 1, 0, 3)
    row = await catalogue.agent(TENANT, "anna")
    assert (row["version"], row["created"], row["updated"], row["sequence"]) == ("2.0.0", made, made + 10, 3)


async def test_another_content_under_the_same_version_is_taken_and_counted(catalogue: Catalogue) -> None:
    await apply(catalogue, compiled("anna"))
    applied = await apply(catalogue, compiled("anna", metadata={"description": "Knows more."}))
    assert (applied.updated, applied.same_version) == (1, 1)


async def test_another_layout_of_the_same_content_is_remembered_and_tells_nobody(catalogue: Catalogue) -> None:
    agent = compiled("anna")
    first, second = source_digest(b"a: 1"), source_digest(b"a:   1")
    for source in (first, second):
        (item,) = staged(agent)
        moved = type(item)(position=0, source=source, file="elsewhere.yaml", compiled=agent)
        applied = await catalogue.apply(TENANT, [moved], keep_going=False, expect=None, by=None)

    assert (applied.unchanged, applied.sequence) == (1, 1)
    assert await catalogue.live_sources(TENANT, [first, second]) == ({second: "anna"}, 1)


async def test_faults_stop_a_batch_and_can_be_left_out(catalogue: Catalogue) -> None:
    batch_id = await catalogue.open_batch(TENANT)
    await catalogue.stage(TENANT, batch_id, [*staged(compiled("anna"), compiled("bert")), refused(2), refused(3)])

    with pytest.raises(BatchHasFaults):
        await catalogue.commit(TENANT, batch_id)
    assert await names(catalogue) == []

    applied = await catalogue.commit(TENANT, batch_id, keep_going=True)
    assert (applied.created, applied.refused) == (2, 2)
    assert await names(catalogue) == ["anna", "bert"]


async def test_a_name_that_stands_twice_stops_a_batch_and_both_can_be_left_out(catalogue: Catalogue) -> None:
    one, other = compiled("anna"), compiled("anna", metadata={"description": "Another."})
    batch_id = await catalogue.open_batch(TENANT)
    await catalogue.stage(TENANT, batch_id, staged(one, other, compiled("bert")))

    with pytest.raises(DuplicateNames) as caught:
        await catalogue.commit(TENANT, batch_id)
    assert "anna.yaml" in caught.value.detail

    applied = await catalogue.commit(TENANT, batch_id, keep_going=True)
    assert (applied.created, applied.refused, applied.duplicates) == (1, 2, ("anna",))
    assert await names(catalogue) == ["bert"]


async def test_a_chunk_sent_again_replaces_itself(catalogue: Catalogue) -> None:
    batch_id = await catalogue.open_batch(TENANT)
    await catalogue.stage(TENANT, batch_id, [refused(0)])
    for _ in range(2):
        await catalogue.stage(TENANT, batch_id, staged(compiled("anna"), compiled("bert")))

    assert (await catalogue.commit(TENANT, batch_id)).created == 2


async def test_a_second_commit_answers_what_the_first_one_did(catalogue: Catalogue) -> None:
    batch_id = await catalogue.open_batch(TENANT)
    await catalogue.stage(TENANT, batch_id, staged(compiled("anna")))
    first = await catalogue.commit(TENANT, batch_id)
    await apply(catalogue, compiled("bert"))

    assert await catalogue.commit(TENANT, batch_id) == first
    with pytest.raises(UnknownBatch):
        await catalogue.stage(TENANT, batch_id, staged(compiled("carl")))


async def test_the_same_key_opens_the_same_batch_of_its_tenant(catalogue: Catalogue) -> None:
    first = await catalogue.open_batch(TENANT, "k")
    assert await catalogue.open_batch(TENANT, "k") == first
    others = {await catalogue.open_batch(*args) for args in [(TENANT, "l"), ("other", "k"), (TENANT,), (TENANT,)]}
    assert len(others | {first}) == 5


async def test_a_batch_belongs_to_its_tenant(catalogue: Catalogue) -> None:
    batch_id = await catalogue.open_batch(TENANT)
    with pytest.raises(UnknownBatch):
        await catalogue.stage("other", batch_id, [])
    with pytest.raises(UnknownBatch):
        await catalogue.commit("other", batch_id)
    with pytest.raises(UnknownBatch):
        await catalogue.commit(TENANT, NOWHERE)


async def test_an_abandoned_batch_goes_with_the_revisions_that_only_it_knew(
    catalogue: Catalogue, clock: ManualClock, database: Database
) -> None:
    await apply(catalogue, compiled("anna"))
    await apply(catalogue, compiled("anna", metadata={"version": "2.0.0"}))
    abandoned = await catalogue.open_batch(TENANT)
    await catalogue.stage(TENANT, abandoned, staged(compiled("bert"), compiled("anna")))
    clock.advance(batches.BATCH_LIFE / 2)
    going_on = await catalogue.open_batch(TENANT)
    await catalogue.stage(TENANT, going_on, staged(compiled("carl")))
    assert await rows(database, revision) == 4

    clock.advance(batches.BATCH_LIFE / 2 + 1)
    await catalogue.open_batch(TENANT)

    assert await rows(database, revision) == 3  # anna's two, of which one was live once, and carl's
    assert await rows(database, batch_item) == 1
    with pytest.raises(UnknownBatch):
        await catalogue.commit(TENANT, abandoned)
    assert (await catalogue.commit(TENANT, going_on)).created == 1


async def test_each_chunk_gives_a_batch_its_time_again(catalogue: Catalogue, clock: ManualClock) -> None:
    batch_id = await catalogue.open_batch(TENANT)
    for number in range(3):
        clock.advance(batches.BATCH_LIFE * 0.9)
        (item,) = staged(compiled(f"agent-{number}"))
        await catalogue.stage(TENANT, batch_id, [type(item)(position=number, source="", compiled=item.compiled)])
        await catalogue.open_batch(TENANT)
    assert (await catalogue.commit(TENANT, batch_id)).created == 3


async def test_results_of_batches_do_not_pile_up(catalogue: Catalogue, clock: ManualClock, database: Database) -> None:
    for _ in range(5):
        await apply(catalogue, compiled("anna"))
        clock.advance(batches.BATCH_LIFE + 1)
    await catalogue.open_batch(TENANT)
    assert await rows(database, batch) == 1


async def test_whoever_expects_a_state_is_refused_if_it_moved_on(catalogue: Catalogue) -> None:
    seen = (await apply(catalogue, compiled("anna"), compiled("bert"))).sequence
    await apply(catalogue, compiled("anna", metadata={"version": "2.0.0"}))
    await catalogue.delete_agents(TENANT, ["bert"])

    for name in ("anna", "bert"):
        with pytest.raises(ChangedMeanwhile) as caught:
            await apply(catalogue, compiled(name, metadata={"version": "3.0.0"}), expect=seen)
        assert name in caught.value.detail
    assert (await apply(catalogue, compiled("carl"), expect=seen)).created == 1
    now = (await catalogue.live_sources(TENANT, []))[1]
    assert (await apply(catalogue, compiled("anna", metadata={"version": "3.0.0"}), expect=now)).updated == 1


async def test_two_that_apply_at_once_are_put_in_an_order(catalogue: Catalogue) -> None:
    ids = [await catalogue.open_batch(TENANT) for _ in range(8)]
    for number, batch_id in enumerate(ids):
        agents = [compiled(f"agent-{i}", metadata={"version": f"1.0.{number}"}) for i in range(20)]
        await catalogue.stage(TENANT, batch_id, staged(*agents))

    done = await asyncio.gather(*(catalogue.commit(TENANT, batch_id) for batch_id in ids))

    live = await catalogue.agents(TENANT, {}, "", 100)
    assert len({row["version"] for row in live}) == 1, "batches must not mix"
    assert sorted((one.created, one.updated) for one in done) == [(0, 20)] * 7 + [(20, 0)]
    assert sorted(one.sequence for one in done) == [20 * (number + 1) for number in range(8)]


async def test_control_planes_on_one_database_are_put_in_an_order(
    catalogue: Catalogue, database_name: str, clock: ManualClock
) -> None:
    more = [open_database(database_name) for _ in range(2)]
    everyone = [catalogue, *(Catalogue(one, max_hosts=4, clock=clock) for one in more)]

    def agents(number: int) -> list[CompiledAgent]:
        return [compiled(f"agent-{i}", metadata={"version": f"1.0.{number}"}) for i in range(20)]

    async def in_chunks(number: int) -> Applied:
        one = everyone[number % 3]
        batch_id = await one.open_batch(TENANT)
        await one.stage(TENANT, batch_id, staged(*agents(number)))
        return await one.commit(TENANT, batch_id)

    async def at_once(number: int) -> Applied:
        return await apply(everyone[number % 3], *agents(number))

    done = await asyncio.gather(*((in_chunks if number % 2 else at_once)(number) for number in range(24)))
    deleted = await asyncio.gather(*(one.delete_agents(TENANT, ["agent-0"]) for one in everyone))
    for one in more:
        await asyncio.to_thread(one.close)

    assert sorted(one.sequence for one in done) == [20 * (number + 1) for number in range(24)]
    assert sorted((one.created, one.updated) for one in done) == [(0, 20)] * 23 + [(20, 0)]
    assert sorted(count for count, _ in deleted) == [0, 0, 1]
    live = await catalogue.agents(TENANT, {}, "", 100)
    assert len({row["version"] for row in live}) == 1, "batches must not mix"


async def test_a_deleted_agent_is_gone_with_its_sessions_and_comes_back_as_created(
    catalogue: Catalogue, database: Database
) -> None:
    await apply(catalogue, compiled("anna"), compiled("bert"))
    saved = [
        {"tenant": TENANT, "agent": name, "session": "s", "version": 1, "state": b"{}", "updated": 0.0}
        for name in ("anna", "bert")
    ]
    await database.write(lambda connection: connection.execute(session.insert(), saved).rowcount)

    assert await catalogue.delete_agents(TENANT, ["anna", "nobody", "anna"], by="key") == (1, 3)

    assert await names(catalogue) == ["bert"]
    assert await catalogue.agent(TENANT, "anna") is None
    assert await rows(database, session) == 1
    sources = [item.source for item in staged(compiled("anna"))]
    assert await catalogue.live_sources(TENANT, sources) == ({}, 3)
    assert (await apply(catalogue, compiled("anna"))).created == 1


async def test_history_names_every_live_revision_and_who_changed_it(catalogue: Catalogue, clock: ManualClock) -> None:
    first, second = compiled("anna"), compiled("anna", metadata={"version": "1.1.0"})
    await apply(catalogue, first, by="one")
    await apply(catalogue, second, by="two")
    await apply(catalogue, second, by="three")
    await catalogue.delete_agents(TENANT, ["anna"])

    history = await catalogue.history(TENANT, "anna")

    assert [(entry.version, entry.by) for entry in history] == [(None, None), ("1.1.0", "two"), ("1.0.0", "one")]
    assert [entry.revision for entry in history] == [None, second.digest, first.digest]
    assert [entry.sequence for entry in history] == [3, 2, 1]


async def test_tenants_share_nothing(catalogue: Catalogue) -> None:
    await apply(catalogue, compiled("anna"))
    other = staged(compiled("anna", tenant="other"))
    assert (await catalogue.apply("other", other, keep_going=False, expect=None, by=None)).created == 1

    await catalogue.delete_agents("other", ["anna"])

    assert await names(catalogue) == ["anna"]
    assert await names(catalogue, "other") == []
    assert await catalogue.canonical("other", compiled("anna").digest) is None


async def test_what_another_compiler_made_counts_as_changed(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply(catalogue, compiled("anna"))
    sources = [item.source for item in staged(compiled("anna"))]
    assert (await catalogue.live_sources(TENANT, sources))[0] == {sources[0]: "anna"}

    monkeypatch.setattr("chimera.adapters.storage.batches.compiler_id", lambda: "later")
    monkeypatch.setattr("chimera.adapters.storage.catalogue.compiler_id", lambda: "later")

    assert (await catalogue.live_sources(TENANT, sources))[0] == {}
    assert (await apply(catalogue, compiled("anna"))).unchanged == 1
    assert (await catalogue.live_sources(TENANT, sources))[0] == {sources[0]: "anna"}


async def test_a_cell_keeps_the_highest_minimum_of_its_live_agents(catalogue: Catalogue) -> None:
    await apply(catalogue, compiled("anna"), compiled("bert", scaling={"min_instances": 2}))
    await apply(catalogue, compiled("carl", scaling={"min_instances": 1}), compiled("dora"))

    (kept,) = await catalogue.kept_cells()
    assert (kept.min_hosts, kept.max_hosts) == (2, 4)

    await catalogue.delete_agents(TENANT, ["bert"])
    assert [spec.min_hosts for spec in await catalogue.kept_cells()] == [1]
    await catalogue.delete_agents(TENANT, ["carl"])
    assert await catalogue.kept_cells() == []


async def test_a_dedicated_cell_follows_its_agent(catalogue: Catalogue) -> None:
    for most in (3, 2):
        scaling = {"min_instances": 1, "max_instances": most, "concurrency_target": 5, "idle_timeout": f"{most}m"}
        await apply(catalogue, compiled("anna", isolation="dedicated", scaling=scaling))
        (kept,) = await catalogue.kept_cells()
        assert (kept.min_hosts, kept.max_hosts, kept.target, kept.idle_timeout) == (1, most, 5.0, most * 60.0)


async def test_lists_are_paged_and_filtered(catalogue: Catalogue) -> None:
    agents = [
        compiled("anna", metadata={"tags": ["domain:law", "capability:draft"], "description": "Drafts CONTRACTS"}),
        compiled("bert", metadata={"tags": ["domain:lawn"]}, specification={"framework": "CrewAI"}),
        compiled("carl", metadata={"tags": ["law"], "description": "100%_sure"}),
    ]
    await apply(catalogue, *agents)

    async def found(**filters: str) -> list[str]:
        return [row["name"] for row in await catalogue.agents(TENANT, filters, "", 10)]

    assert await found(domain="law") == ["anna"]
    assert await found(tag="law") == ["carl"]
    assert await found(framework="CrewAI") == ["bert"]
    assert await found(q="contracts") == ["anna"]
    assert await found(q="0%_s") == ["carl"]
    assert await found(q="%") == ["carl"]
    assert await found(q="law", framework="autogen") == ["anna", "carl"]
    row = (await catalogue.agents(TENANT, {}, "anna", 1))[0]
    assert (row["name"], row["tags"], row["protocols"]) == ("bert", ["domain:lawn"], ["http", "openai", "sse"])


async def test_status_counts(catalogue: Catalogue) -> None:
    agents = [compiled(one["metadata"]["name"], specification=one["specification"]) for one in fleet(8)]
    await apply(catalogue, *agents)
    await catalogue.delete_agents(TENANT, [agents[0].value.agent.name])

    status = await catalogue.status()

    assert status["agents_by_framework"] == {"autogen": 1, "crewai": 2, "function": 2, "langgraph": 2}
    assert (status["agents"], status["revisions"], status["cells"], status["sequence"]) == (7, 8, 4, 9)
    assert status["database_bytes"] > 0


def test_a_source_is_its_text_its_folder_and_its_place() -> None:
    found = {
        source_digest(b"a"),
        source_digest(b"b"),
        source_digest(b"a", "sha256:1"),
        source_digest(b"a", "sha256:2"),
        source_digest(b"a", None, 1),
    }
    assert len(found) == 5
    assert source_digest(b"a") == source_digest(b"a")


async def test_a_cell_that_this_machine_cannot_run_is_not_kept(catalogue: Catalogue) -> None:
    image = {"runtime": "registry.example/team/agent:1", "framework": "AutoGen"}
    await apply(catalogue, compiled("eva", specification=image, scaling={"min_instances": 1}))
    assert await catalogue.kept_cells() == []
