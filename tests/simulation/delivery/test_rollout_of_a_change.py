"""A rollout as the production stage of a change request: what the pipeline's port asks of it."""

from msgspec.structs import replace

from chimera.delivery.model import Change, ChangeItem, Verdict, content_of
from chimera.delivery.rollout.changes import ChangeRollouts, cases_of
from chimera.testing.rollout_world import TENANT, Rates, RolloutWorld


def change_of(world: RolloutWorld, *verdicts: Verdict) -> Change:
    items = tuple(ChangeItem(agent=one.agent, revision=one.revision, before=one.before) for one in world.items)
    return Change(
        id="chg-1",
        tenant=TENANT,
        title="warmer",
        author="user:ann",
        author_person="user:ann",
        items=items,
        content=content_of(items),
        risk="low",
        state="rolling-out",
        created=0.0,
        updated=0.0,
        since=0.0,
        verdicts=verdicts,
    )


async def ended(world: RolloutWorld, change: Change) -> str:
    for _ in range(200):
        # The port is asked anew each time, as a pipeline does that was killed meanwhile.
        view = await ChangeRollouts(world.service).look(change)
        assert view is not None
        if view.state not in ("rolling-out", "paused"):
            return view.state
        await world.tick()
    raise AssertionError(view)


async def test_a_change_is_rolled_out_once_and_followed_to_its_end() -> None:
    world = RolloutWorld(["anna", "bert"])
    await world.lead()
    change, rollouts = change_of(world), ChangeRollouts(world.service)
    assert await rollouts.look(change) is None
    await rollouts.start(change)
    await rollouts.start(change)
    view = await rollouts.look(change)
    assert view is not None
    assert (view.state, view.agents, view.moved) == ("rolling-out", 2, 0)
    assert len(await world.store.page(TENANT, "", 10)) == 1
    assert await ended(world, change) == "done"
    # Other content is another rollout.
    assert await rollouts.look(replace(change, content="sha256:other")) is None


async def test_a_change_that_got_worse_is_rolled_back_with_the_reason() -> None:
    world = RolloutWorld(["anna", "bert"], rates=lambda agent: Rates(green=0.9))
    await world.lead()
    change, rollouts = change_of(world), ChangeRollouts(world.service)
    await rollouts.start(change)
    assert await ended(world, change) == "rolled-back"
    view = await rollouts.look(change)
    assert view is not None
    assert "worse than before" in view.detail
    assert "chimera rollout show" in view.next_step


async def test_it_is_paused_resumed_and_aborted_as_the_change_is() -> None:
    world = RolloutWorld(["anna", "bert"])
    await world.lead()
    change, rollouts = change_of(world), ChangeRollouts(world.service)
    await rollouts.start(change)
    for _ in range(4):
        await world.tick()
    for _ in range(2):  # asked twice, it is done once
        await rollouts.pause(change, by="user:bob", reason="lunch")
    await world.tick()
    view = await rollouts.look(change)
    assert view is not None
    assert (view.state, view.detail) == ("paused", "paused by user:bob: lunch")
    await rollouts.resume(change, by="user:bob")
    await world.tick()
    await rollouts.abort(change, by="user:bob", reason="no")
    assert await ended(world, change) == "aborted"
    assert await world.all_at(new=False)
    await rollouts.abort(change, by="user:bob", reason="no")  # too late, and nobody minds
    await rollouts.pause(change, by="user:bob", reason="no")


async def test_what_staging_said_of_an_agent_are_its_evaluation_cases() -> None:
    world = RolloutWorld(["anna", "bert"])
    passed = Verdict(stage="staging", check="cases", outcome="passed", agent="anna")
    built = Verdict(stage="build", check="scan", outcome="passed", agent="bert")
    change = change_of(world, passed, built)
    assert (cases_of(change, "anna"), cases_of(change, "bert")) == ("passed", "none")
    failed = Verdict(stage="staging", check="latency", outcome="failed")
    assert cases_of(change_of(world, passed, failed), "anna") == "failed"


async def test_few_calls_are_told_of_a_change_that_is_done() -> None:
    world = RolloutWorld(["anna", "bert"], rates=lambda agent: Rates(calls=0))
    await world.lead()
    change, rollouts = change_of(world), ChangeRollouts(world.service)
    await rollouts.start(change)
    assert await ended(world, change) == "done"
    view = await rollouts.look(change)
    assert view is not None
    assert (view.moved, view.detail) == (2, "low evidence: 2 of 2 agents")
