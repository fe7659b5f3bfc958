"""The loop over cells, on a cluster in memory: what it makes, what it leaves alone, and how it bears trouble."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from chimera.adapters.substrates.knative import client
from chimera.adapters.substrates.knative.plan import Phase
from chimera.testing.cells import NAMESPACE, CellsRig, cell, name_of, until
from chimera.testing.cluster import FakeCluster, refusal


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., CellsRig]]:
    rigs: list[CellsRig] = []
    async with FakeCluster() as cluster:

        def rig(**settings: Any) -> CellsRig:
            rigs.append(CellsRig(cluster, **settings))
            return rigs[-1]

        yield rig
        for one in rigs:
            await one.stop()


async def test_wanted_cells_become_services_and_their_states_are_told(make: Callable[..., CellsRig]) -> None:
    rig, one, other = make(), cell("langgraph"), cell("crewai")
    rig.catalogue.put(one, other)
    rig.start()
    await until(lambda: rig.services().keys() == {name_of(one), name_of(other)})
    await rig.ready(one)
    await rig.ready(other, "False", "RevisionMissing", "Unable to fetch image: manifest unknown")
    await until(lambda: rig.phase(one) is Phase.READY and rig.phase(other) is Phase.FAILED)
    failed = next(state for state in rig.reconciler.states if state.phase is Phase.FAILED)
    assert "manifest unknown" in failed.cause and "knative.image" in failed.next_step


async def test_nothing_is_written_and_nothing_is_listed_while_nothing_changes(
    make: Callable[..., CellsRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "WATCH_SECONDS", 1)
    rig, spec = make(poll=0.01), cell()
    rig.catalogue.put(spec)
    rig.start()
    await until(lambda: bool(rig.services()))
    await rig.ready(spec)
    await until(lambda: rig.phase(spec) is Phase.READY)
    before, passes, read = rig.cluster.calls.copy(), rig.reconciler.passes, rig.catalogue.read
    watches = before["WATCH", "services"]
    await until(lambda: rig.cluster.calls["WATCH", "services"] >= watches + 2)  # two seconds of looking on
    made = rig.cluster.calls - before
    assert set(made) == {("WATCH", "services"), ("WATCH", "revisions")} and max(made.values()) <= 3
    assert (rig.reconciler.passes, rig.catalogue.read) == (passes, read)


async def test_a_reconciler_that_starts_again_changes_nothing(make: Callable[..., CellsRig]) -> None:
    first, spec = make(), cell()
    first.catalogue.put(spec)
    first.start()
    await until(lambda: bool(first.services()))
    await first.ready(spec)
    await until(lambda: first.phase(spec) is Phase.READY)
    await first.stop()
    writes = first.cluster.writes()
    second = make()
    second.catalogue.put(spec)
    second.start()
    await until(lambda: second.phase(spec) is Phase.READY)
    assert second.cluster.writes() == writes


async def test_a_changed_cell_is_applied_and_what_somebody_else_changed_is_put_right(
    make: Callable[..., CellsRig],
) -> None:
    rig, spec = make(), cell()
    rig.catalogue.put(spec)
    rig.start()
    await until(lambda: bool(rig.services()))
    rig.catalogue.put(cell(min_hosts=100))

    def least() -> str:
        annotations = rig.services()[name_of(spec)]["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["autoscaling.knative.dev/min-scale"])

    await until(lambda: least() == "100")
    value = rig.services()[name_of(spec)]
    value["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"] = "1"
    await rig.cluster.put("services", value)
    await until(lambda: least() == "100")


async def test_what_somebody_changed_while_nobody_looked_is_put_right_once(make: Callable[..., CellsRig]) -> None:
    first, spec = make(), cell()
    first.catalogue.put(spec)
    first.start()
    await until(lambda: bool(first.services()))
    await first.stop()
    value = first.services()[name_of(spec)]
    value["spec"]["template"]["spec"]["timeoutSeconds"] = 1
    await first.cluster.put("services", value)
    second = make()
    second.catalogue.put(spec)
    second.start()
    await until(lambda: second.services()[name_of(spec)]["spec"]["template"]["spec"]["timeoutSeconds"] == 600)
    await second.ready(spec)
    await until(lambda: second.phase(spec) is Phase.READY)
    writes = second.cluster.writes()
    second.reconciler.poke()
    passes = second.reconciler.passes
    await until(lambda: second.reconciler.passes > passes)
    assert second.cluster.writes() == writes


async def test_who_else_has_set_a_field_is_overruled_once_and_never_in_a_loop(make: Callable[..., CellsRig]) -> None:
    rig, spec = make(), cell()
    rig.catalogue.put(spec)
    rig.start()
    await until(lambda: bool(rig.services()))
    value = rig.services()[name_of(spec)]
    value["spec"]["extra"] = "somebody's own"  # which Chimera doesn't set, and so leaves
    await rig.cluster.put("services", value)
    await until(lambda: rig.cluster.calls["PATCH", "services"] == 2)
    await rig.ready(spec)
    await until(lambda: rig.phase(spec) is Phase.READY)
    assert rig.services()[name_of(spec)]["spec"]["extra"] and rig.cluster.calls["PATCH", "services"] == 2


async def test_an_unused_cell_goes_after_its_grace_and_no_other(make: Callable[..., CellsRig]) -> None:
    rig, kept, unused = make(unused_grace=0.3), cell("langgraph"), cell("crewai")
    foreign = {"metadata": {"name": "c-foreign", "namespace": NAMESPACE}, "spec": {}}
    await rig.cluster.put("services", foreign)
    rig.catalogue.put(kept, unused)
    rig.start()
    await until(lambda: len(rig.services()) == 3)
    rig.catalogue.put(kept)
    await until(lambda: rig.phase(unused) is Phase.UNUSED)
    assert name_of(unused) in rig.services(), "not before its grace is over"
    await until(lambda: rig.services().keys() == {name_of(kept), "c-foreign"})


async def test_no_more_cells_are_made_than_may_be(make: Callable[..., CellsRig]) -> None:
    rig = make(most_cells=3)
    rig.catalogue.put(*(cell(tenant=f"tenant-{number}") for number in range(8)))
    rig.start()
    await until(lambda: len(rig.reconciler.states) == 8)
    await asyncio.sleep(0.2)
    assert len(rig.services()) == 3
    held = [state for state in rig.reconciler.states if state.phase is Phase.HELD]
    assert len(held) == 5 and "most_cells" in held[0].next_step


TROUBLE = {
    "throttled": (refusal(429, "TooManyRequests", "too many requests", Retry_After="1"), "slow down"),
    "quota": (refusal(403, "Forbidden", "exceeded quota: objects, used 10 of 10"), "quota"),
    "denied": (refusal(403, "Forbidden", "services is forbidden: User cannot patch"), "not allow"),
    "refused": (refusal(422, "Invalid", "admission webhook denied the request: no"), "refused"),
    "conflict": (refusal(409, "Conflict", "Apply failed with 1 conflict"), "Somebody else"),
    "webhook down": (refusal(500, "InternalError", "failed calling webhook: connection refused"), "does not answer"),
}


@pytest.mark.parametrize("kind", TROUBLE)
async def test_trouble_is_told_with_cause_and_next_step_and_does_not_become_a_hot_loop(
    make: Callable[..., CellsRig], kind: str
) -> None:
    rig = make(poll=0.01)
    fault, words = TROUBLE[kind]
    specs = [cell(tenant=f"tenant-{number}") for number in range(5)]

    def on_writes(request: web.BaseRequest) -> web.StreamResponse | None:
        return fault(request) if request.method == "PATCH" else None

    rig.cluster.faults.append(on_writes)
    rig.catalogue.put(*specs)
    rig.start()
    await until(lambda: any(state.phase is Phase.FAILED for state in rig.reconciler.states))
    tried = rig.cluster.calls["PATCH", "services"]
    await asyncio.sleep(0.5)  # a loop that doesn't wait would have tried hundreds of times by now
    assert tried <= len(specs) and rig.cluster.calls["PATCH", "services"] == tried
    failed = [state for state in rig.reconciler.states if state.phase is Phase.FAILED]
    assert all(words in state.cause and state.next_step for state in failed)
    rig.cluster.faults.clear()
    if kind in ("throttled", "conflict", "webhook down"):  # the others wait longer than a test should
        await until(lambda: len(rig.services()) == len(specs))


async def test_a_cluster_that_goes_away_is_waited_for(make: Callable[..., CellsRig]) -> None:
    rig, spec = make(), cell()
    rig.catalogue.put(spec)
    rig.start()
    await until(lambda: bool(rig.services()))

    def away(request: web.BaseRequest) -> web.StreamResponse | None:
        if request.transport is not None:
            request.transport.abort()
        return None

    rig.cluster.faults.append(away)
    rig.cluster.cut_watches()
    await until(lambda: rig.reconciler.failure is not None)
    assert "does not answer" in str(rig.reconciler.failure)
    calls = sum(rig.cluster.calls.values())
    await asyncio.sleep(0.5)
    assert sum(rig.cluster.calls.values()) - calls <= 2, "it is not knocked at without a pause"
    rig.cluster.faults.clear()
    rig.catalogue.put(spec, cell("crewai"))
    await until(lambda: len(rig.services()) == 2 and rig.reconciler.failure is None)


async def test_a_watch_that_is_forgotten_is_begun_anew_with_one_list(make: Callable[..., CellsRig]) -> None:
    rig, spec = make(), cell()
    rig.catalogue.put(spec)
    rig.start()
    await until(lambda: bool(rig.services()))
    lists = rig.cluster.calls["GET", "services"]
    rig.cluster.forget()
    rig.cluster.cut_watches()
    await until(lambda: rig.cluster.calls["GET", "services"] == lists + 1)
    await rig.ready(spec)
    await until(lambda: rig.phase(spec) is Phase.READY)
    assert rig.cluster.calls["GET", "services"] == lists + 1
