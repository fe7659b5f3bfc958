"""The pipeline with parts that pass, fail, hang and break; and killed at each of its writes."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chimera.adapters.storage.errors import StorageAway
from chimera.adapters.storage.identity import IdentityStorage
from chimera.adapters.storage.leases import StoredLeases
from chimera.delivery.errors import NoChange
from chimera.delivery.model import Change
from chimera.delivery.pipeline import LEASE, Pipeline
from chimera.delivery.policy import ApprovalRule, Approvals, DeliveryPolicy
from chimera.delivery.settings import DeliverySettings
from chimera.gateway.identity.principal import BOOTSTRAP_ADMIN
from chimera.testing.delivery import FakeCheck, FakeRollouts, FakeStaging

from .conftest import ADMIN, ANNA, TENANT, Delivery, better, plain


async def through(delivery: Delivery, change: Change, looks: int = 8) -> Change:
    """Let the pipeline work and time pass until the change has ended, or enough was seen."""
    rollouts = delivery.parts.rollouts
    for _ in range(looks):
        await delivery.settle()
        if isinstance(rollouts, FakeRollouts) and change.id in rollouts.rollouts:
            rollouts.step(change.id)
        delivery.clock.advance(5)
    return await delivery.now(change)


async def test_all_stages(delivery: Delivery) -> None:
    checks = [FakeCheck(name="secrets"), FakeCheck(name="tests")]
    staging, rollouts = FakeStaging(), FakeRollouts()
    delivery.parts.checks, delivery.parts.staging, delivery.parts.rollouts = checks, staging, rollouts
    change = await delivery.open(plain("one"), plain("two"))
    await delivery.settle()
    assert [check.asked for check in checks] == [[(change.id, change.content)]] * 2
    await delivery.approve(change)
    done = await through(delivery, change)
    assert done.state == "done"
    assert [(one.stage, one.check, one.outcome) for one in done.verdicts] == [
        ("build", "secrets", "passed"),
        ("build", "tests", "passed"),
        ("staging", "latency", "passed"),
        ("staging", "staging", "passed"),
    ]
    assert (rollouts.started, staging.removed) == ([change.id], [change.id])
    assert await delivery.facts() == [
        *("change.opened", "change.building", "change.built", "change.approved"),
        *("change.staging", "change.rolling-out", "change.done"),
    ]


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
async def test_a_check_that_fails_or_skips_stops_it(delivery: Delivery, outcome: Any) -> None:
    checks = [FakeCheck(name="secrets", outcome=outcome), FakeCheck(name="tests")]
    delivery.parts.checks = checks
    change = await delivery.open(plain("one"))
    await delivery.approve(change)
    await delivery.settle()
    found = await delivery.now(change)
    assert (found.state, found.next_step) == ("failed", f"mend it; then `chimera change amend {change.id} PATHS`")
    assert found.reason == "secrets: secrets found something"
    assert checks[1].asked, "all of them look, so that everything is known at once"
    checks[0].outcome = "passed"
    await delivery.changes.amend(TENANT, ANNA, change.id, batch=await delivery.batch(better("one")), remove=())
    await delivery.settle()
    assert (await delivery.now(change)).state == "awaiting-approval", "the approval was of another content"


async def test_a_check_that_never_ends(delivery: Delivery) -> None:
    delivery.settings = DeliverySettings(check_seconds=1.0)
    object.__setattr__(delivery.settings, "check_seconds", 0.02)
    delivery.parts.checks = [FakeCheck(name="tests", hangs=True)]
    change = await delivery.open(plain("one"))
    await delivery.settle()
    found = await delivery.now(change)
    assert (found.state, found.reason) == ("failed", "tests: it did not end within 0.02 s")


async def test_checks_that_kill_the_control_plane_each_time(delivery: Delivery) -> None:
    """A process that never survives the check still comes to an end, by the stage's deadline."""
    delivery.parts.checks = [FakeCheck(name="tests", hangs=True)]
    change = await delivery.open(plain("one"))
    for _ in range(3):
        killed = asyncio.create_task(delivery.pipeline().run())
        await until(delivery, change, "building")
        killed.cancel()
        await asyncio.gather(killed, return_exceptions=True)
        delivery.clock.advance(3 * 3_600)
    await delivery.settle()
    found = await delivery.now(change)
    assert found.state == "failed"
    assert "within 6 hours" in found.reason


async def until(delivery: Delivery, change: Change, state: str) -> None:
    await seen(lambda: _is(delivery, change, state))


async def _is(delivery: Delivery, change: Change, state: str) -> bool:
    return (await delivery.now(change)).state == state


async def seen(look: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what another task does through the database, which tells nobody."""
    async with asyncio.timeout(20):
        for _ in itertools.count():
            if await look():
                return
            await asyncio.sleep(0.01)


async def test_a_check_that_breaks_is_asked_again_and_not_for_ever(delivery: Delivery) -> None:
    once, always = FakeCheck(name="once", fails=1), FakeCheck(name="always", fails=100)
    delivery.parts.checks = [once, always]
    change = await delivery.open(plain("one"))
    pipeline = delivery.pipeline()
    running = asyncio.create_task(pipeline.run())

    async def failed() -> bool:
        delivery.clock.advance(400)
        pipeline.poke()
        return await _is(delivery, change, "failed")

    await seen(failed)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    found = await delivery.now(change)
    assert found.reason == "always: it could not look: RuntimeError"
    assert len(once.asked) == 2


async def test_silence_is_no_pass(delivery: Delivery) -> None:
    delivery.parts.checks = [FakeCheck(name="tests", silent=True)]
    change = await delivery.open(plain("one"))
    await delivery.settle()
    assert (await delivery.now(change)).reason == "tests: it said nothing"


async def test_reviewers_approve_low_risk_and_leave_the_rest_to_people(delivery: Delivery) -> None:
    quality, creator = FakeCheck(name="quality"), FakeCheck(name="creator")
    delivery.parts.reviewers = [quality, creator]
    await delivery.apply(plain("one"), plain("two"))
    low = await delivery.open(better("one"))
    await delivery.settle()
    assert ((await delivery.now(low)).state, (await delivery.now(low)).approvals) == ("done", ())
    creator.outcome = "failed"
    second = await delivery.open(better("two"))
    await delivery.settle()
    waiting = await delivery.now(second)
    assert waiting.state == "awaiting-approval"
    assert "not passed by creator" in waiting.reason
    creator.fails, creator.outcome = 9, "passed"
    third = await delivery.open(better("one", 3))
    await delivery.settle()
    assert (await delivery.now(third)).state == "awaiting-approval"
    for change in (second, third):
        await delivery.approve(change)
    await delivery.settle()
    assert [(await delivery.now(change)).state for change in (second, third)] == ["done", "done"]


async def test_staging_that_fails_or_never_passes(delivery: Delivery) -> None:
    staging = FakeStaging(outcome="failed")
    delivery.parts.staging = staging
    first = await delivery.open(plain("one"))
    await delivery.approve(first)
    found = await through(delivery, first)
    assert (found.state, found.reason, found.staged) == ("failed", "latency: measured (and 1 more)", False)
    staging.outcome = "running"
    second = await delivery.open(plain("two"))
    await delivery.approve(second)
    await delivery.settle()
    assert (await delivery.now(second)).state == "staging"
    delivery.clock.advance(25 * 3_600)
    found = await through(delivery, second)
    assert found.state == "failed"
    assert "24 hours" in found.reason
    assert staging.removed == [first.id, second.id]
    assert await delivery.live("one") is None


async def test_an_emergency_spares_staging_and_not_the_checks(delivery: Delivery) -> None:
    delivery.parts.checks = [FakeCheck(name="secrets", outcome="failed")]
    delivery.parts.staging = FakeStaging(outcome="running")
    stopped = await delivery.open(plain("one"), by=ADMIN, emergency="customers get wrong answers")
    await delivery.settle()
    assert (await delivery.now(stopped)).state == "failed"
    delivery.parts.checks = []
    passes = await delivery.open(plain("two"))
    await delivery.approve(passes)
    await delivery.settle()
    assert (await delivery.now(passes)).state == "staging"
    await delivery.changes.declare_emergency(TENANT, ADMIN, passes.id, "customers get wrong answers")
    assert (await through(delivery, passes)).state == "done"


async def test_a_rollout_is_paused_resumed_and_taken_back(delivery: Delivery) -> None:
    rollouts = delivery.parts.rollouts = FakeRollouts()
    change = await delivery.open(*(plain(f"agent-{number}") for number in range(9)))
    await delivery.approve(change)
    await through(delivery, change, 2)
    await delivery.changes.want(TENANT, ANNA, change.id, "pause", "looks odd")
    moved = rollouts.rollouts[change.id].moved
    paused = await through(delivery, change, 3)
    assert (paused.state, rollouts.rollouts[change.id].moved) == ("paused", moved)
    await delivery.changes.want(TENANT, ANNA, change.id, "go", "")
    assert (await through(delivery, change, 2)).state == "rolling-out"
    rollouts.rollouts[change.id].state = "paused"  # by its own judgement
    stopped = await through(delivery, change, 2)
    assert (stopped.state, stopped.wanted) == ("paused", "pause")
    await delivery.changes.want(TENANT, ANNA, change.id, "go", "")
    assert (await through(delivery, change, 2)).state == "rolling-out"
    await delivery.changes.abort(TENANT, ANNA, change.id, "wrong after all")
    assert (await through(delivery, change, 2)).state == "aborted"
    assert rollouts.asked == ["pause", "resume", "resume", "abort"]


@pytest.mark.parametrize("state", ["rolled-back", "failed"])
async def test_a_rollout_that_ends_by_itself(delivery: Delivery, state: Any) -> None:
    rollouts = delivery.parts.rollouts = FakeRollouts()
    change = await delivery.open(plain("one"), plain("two"))
    await delivery.approve(change)
    await delivery.settle()
    rollouts.rollouts[change.id].state, rollouts.rollouts[change.id].detail = state, "errors doubled"
    found = await through(delivery, change, 2)
    assert (found.state, found.reason) == (state, "errors doubled")


async def test_a_rollout_that_cant_begin_ends_the_change(delivery: Delivery) -> None:
    rollouts = delivery.parts.rollouts = FakeRollouts(refuses=NoChange("nothing to roll out", next_step="look again"))
    change = await delivery.open(plain("one"))
    await delivery.approve(change)
    await delivery.settle()
    found = await delivery.now(change)
    assert (found.state, found.reason, found.next_step) == ("failed", "nothing to roll out", "look again")
    rollouts.refuses = StorageAway("the database does not answer", next_step="wait")
    second = await delivery.open(plain("two"))
    await delivery.approve(second)
    await delivery.settle()
    assert (await delivery.now(second)).state == "rolling-out", "it is asked again"
    await delivery.apply(better("two"))
    await delivery.settle()
    assert (await delivery.now(second)).state == "superseded", "an apply came before the rollout had begun"


async def test_an_emergency_is_live_at_once(delivery: Delivery) -> None:
    rollouts = delivery.parts.rollouts = FakeRollouts()
    change = await delivery.open(plain("one"), by=ADMIN, emergency="customers get wrong answers")
    await delivery.settle()
    assert ((await delivery.now(change)).state, rollouts.started) == ("done", [])
    assert await delivery.live("one") == plain("one").digest
    assert [one.change for one in await delivery.catalogue.history(TENANT, "one")] == [change.id]
    await delivery.open(by=ADMIN, remove=("one",), emergency="customers get wrong answers")
    await delivery.settle()
    assert [bool(one.change) for one in await delivery.catalogue.history(TENANT, "one")] == [True, True]


async def test_other_content_stops_the_checks_of_the_old_one(delivery: Delivery) -> None:
    hanging = FakeCheck(name="tests", hangs=True)
    delivery.parts.checks = [hanging]
    change = await delivery.open(plain("one"))
    pipeline = delivery.pipeline()
    running = asyncio.create_task(pipeline.run())
    await until(delivery, change, "building")
    await hanging.begun.wait()
    hanging.hangs = False
    await delivery.changes.amend(TENANT, ANNA, change.id, batch=await delivery.batch(better("one")), remove=())
    pipeline.poke()
    await until(delivery, change, "awaiting-approval")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(hanging.asked) == 2


async def test_nothing_is_done_for_a_suspended_tenant(delivery: Delivery) -> None:
    identity = IdentityStorage(delivery.database, delivery.clock)
    change = await delivery.open(plain("one"))
    await identity.set_tenant(TENANT, "suspended", BOOTSTRAP_ADMIN, at=1.0)
    await delivery.settle()
    assert (await delivery.now(change)).state == "open"
    await identity.set_tenant(TENANT, "active", BOOTSTRAP_ADMIN, at=1.0)
    await delivery.settle()
    assert (await delivery.now(change)).state == "awaiting-approval"


async def test_a_waiting_change_is_left_alone_until_something_changes(delivery: Delivery) -> None:
    reads = Counting(delivery.store)
    change = await delivery.open(plain("one"))
    pipeline = delivery.pipeline(reads)
    running = asyncio.create_task(pipeline.run())
    await seen(lambda: _is(delivery, change, "awaiting-approval"))
    for _ in range(5):
        await reads.looked(pipeline)
    before = reads.of_policies
    for _ in range(5):
        await reads.looked(pipeline)
    assert reads.of_policies == before, "passes alone ask nothing of it"
    await delivery.changes.put_policy(
        TENANT, ADMIN, DeliveryPolicy(approvals=Approvals(medium=ApprovalRule(needs=()))), expect=None
    )
    pipeline.poke()
    await seen(lambda: _is(delivery, change, "done"))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class Counting:
    """A store that counts what it is asked."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.passes = self.of_policies = 0

    def __getattr__(self, name: str) -> Any:
        self.passes += name == "in_flight"
        self.of_policies += name == "policy"
        return getattr(self._store, name)

    async def looked(self, pipeline: Pipeline) -> None:
        """One pass more."""
        before = self.passes

        async def again() -> bool:
            pipeline.poke()
            return self.passes > before

        await seen(again)


async def test_who_has_lost_the_lease_writes_nothing(delivery: Delivery) -> None:
    leases = StoredLeases(delivery.database)
    old = await leases.acquire(LEASE, "old", 60.0)
    assert old is not None
    await leases.release(old)
    assert await leases.acquire(LEASE, "new", 60.0) is not None
    change = await delivery.open(plain("one"))
    await delivery.pipeline().settle(old)
    assert (await delivery.now(change)).state == "open"


# -- killed at each write ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


class Dying:
    """A store whose process dies at its nth write: before it is done, or after it, with nobody told of it."""

    def __init__(self, store: Any, dies_at: int, after: bool) -> None:
        self._store = store
        self._dies_at = dies_at
        self._after = after
        self.writes = 0
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def asked(*given: Any, **named: Any) -> Any:
            self._live()
            if name in ("save", "put_verdicts", "produce", "create"):
                self.writes += 1
                self.dead = self.writes == self._dies_at
                if not self._after:
                    self._live()
            done = await method(*given, **named)
            self._live()
            return done

        return asked

    def _live(self) -> None:
        if self.dead:
            raise Killed


async def deliver(delivery: Delivery, store: Any, change: Change) -> Change:
    """One process's life: it works until the change has ended, or it is killed."""
    rollouts = delivery.parts.rollouts
    for _ in range(12):
        task = asyncio.create_task(Pipeline(store, delivery.parts, delivery.clock, delivery.settings).settle())
        await asyncio.gather(task, return_exceptions=True)
        if isinstance(store, Dying) and store.dead:
            break
        if isinstance(rollouts, FakeRollouts) and change.id in rollouts.rollouts:
            rollouts.step(change.id)
        delivery.clock.advance(5)
    return await delivery.now(change)


@pytest.mark.parametrize("whole", [True, False])
async def test_killed_at_every_write_it_ends_the_same(delivery: Delivery, whole: bool) -> None:
    staging = FakeStaging()
    delivery.parts.checks = [FakeCheck(name="secrets"), FakeCheck(name="tests")]
    delivery.parts.staging = staging
    delivery.parts.rollouts = FakeRollouts() if whole else None
    moments, at = 0, 0
    while True:
        at += 1
        died = False
        for after in (False, True):
            name = f"agent-{at}-{int(after)}"
            change = await delivery.open(plain(name), plain(f"{name}-too"))
            await delivery.approve(change)
            before = len(await delivery.facts())
            dying = Dying(delivery.store, at, after)
            await deliver(delivery, dying, change)
            died = died or dying.dead
            done = await deliver(delivery, delivery.store, change)
            assert done.state == "done", f"killed {'after' if after else 'before'} write {at}"
            assert (await delivery.facts())[before:] == [
                *("change.building", "change.built", "change.staging", "change.rolling-out", "change.done")
            ]
            assert [one.outcome for one in done.verdicts] == ["passed"] * 4
            live = [await delivery.live(one) for one in (name, f"{name}-too")]
            assert all(live) if not whole else not any(live)
            assert not done.staged
            moments += 1
        if not died:
            break
    assert moments > 2 * 9, "it was killed at each write of the way"
    if isinstance(delivery.parts.rollouts, FakeRollouts):
        started = delivery.parts.rollouts.started
        assert len(started) == len(set(started)) == moments


async def test_who_loses_the_pipeline_ends_what_he_does_in_staging(delivery: Delivery) -> None:
    staging = delivery.parts.staging = FakeStaging(outcome="running")
    change = await delivery.open(plain("one"))
    await delivery.approve(change)
    running = asyncio.create_task(delivery.pipeline().run())
    await until(delivery, change, "staging")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert staging.rested == 1 and staging.removed == [], "whoever took over validates in what is there"


async def test_staging_is_shown_the_lease_that_the_pipeline_works_under(delivery: Delivery) -> None:
    staging = delivery.parts.staging = FakeStaging()
    lease = await StoredLeases(delivery.database).acquire(LEASE, "me", 3_600.0)
    assert lease is not None
    change = await delivery.open(plain("one"))
    await delivery.approve(change)
    for _ in range(8):
        await delivery.pipeline().settle(lease)
        delivery.clock.advance(5)
    assert (await delivery.now(change)).state == "done" and staging.removed == [change.id]
    assert staging.leases == {lease}
