"""What goes or changes while a pass of the operator waits: it ends no loop, nothing false is told, nothing is left."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.admission.manifests import configuration_name
from chimera.adapters.substrates.knative.resources.claims import CLAIM

CELLS = "cells"


def just_before(monkeypatch: Any, service: Any, name: str, do: Callable[[], Awaitable[None]]) -> None:
    """Do something, once, when a service is asked for something next, and before it hears of that."""
    asking = getattr(service, name)

    async def late(*asked: Any, **more: Any) -> Any:
        monkeypatch.setattr(service, name, asking)
        await do()
        return await asking(*asked, **more)

    monkeypatch.setattr(service, name, late)


def undisturbed(rig: Any) -> bool:
    """Whether the operator works, and never had to begin anew: it lists then, too."""
    return bool(rig.operator.leading and rig.cluster.calls["GET", "agents"] == rig.cluster.calls["GET", CELLS] == 1)


async def ends(rig: Any, name: str, how: str) -> None:
    """An Agent is deleted, waits for its finalizer or is another installation's, and the operator has seen it."""
    if how == "deleted":
        await rig.delete(name)
    elif how == "finalized":
        found = rig.cluster.object("agents", "team", name)
        deleted = {"deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["example.com/keep"]}
        meta = {**found["metadata"], **deleted, "generation": found["metadata"]["generation"] + 1}
        await rig.cluster.put("agents", {**found, "metadata": meta})
    else:
        labels = {names.MANAGED_BY: names.MANAGER, names.PART_OF: names.MANAGER}
        for day, installation in enumerate((rig.installation, "platform-b"), 1):
            meta = {"name": configuration_name(installation), "creationTimestamp": f"2026-01-0{day}T00:00:00Z"}
            await rig.cluster.put("validatingwebhookconfigurations", {"metadata": {**meta, "labels": labels}})
        await rig.cluster.put("namespaces", {"metadata": {"name": "team", "labels": {CLAIM: "platform-b"}}})
    await rig.until(lambda: ("team", name) not in rig.operator.agents._wanted)


async def carried(rig: Any, by: str) -> None:
    """What Agents want goes by a change, or by a Rollout."""
    await (rig.only_changes() if by == "change" else rig.govern("careful"))


async def agents_of(rig: Any, by: str, name: str) -> list[str]:
    if by == "change":
        return [one.agent for one in (await rig.delivery.changes.change("default", name)).items]
    return [one.agent for one in await rig.delivery.rollouts.members("default", name, -1, 100)]


@pytest.mark.parametrize("how", ["deleted", "finalized"])
@pytest.mark.parametrize("by", ["change", "rollout"])
async def test_an_agent_that_goes_while_its_group_is_staged_ends_no_loop(
    make: Callable[..., Any], monkeypatch: Any, by: str, how: str
) -> None:
    rig = make()
    await carried(rig, by)
    for name in ("one", "two"):
        await rig.apply(name)
    just_before(monkeypatch, rig.catalogue, "open_batch", lambda: ends(rig, "two", how))
    rig.start()
    told = await rig.phase("one", "Changing" if by == "change" else "RollingOut")
    assert undisturbed(rig) and await agents_of(rig, by, told[by]) == ["one"]
    assert rig.status("two") == {} and rig.operator.agents.phases == {told["phase"]: 1}
    await rig.quiet()
    assert undisturbed(rig) and set(rig.operator.agents._deliveries.held) == {("team", "one")}


@pytest.mark.parametrize("how", ["deleted", "finalized", "claimed"])
@pytest.mark.parametrize("by", ["change", "rollout"])
async def test_what_is_begun_for_an_agent_that_went_just_then_is_given_up(
    make: Callable[..., Any], monkeypatch: Any, by: str, how: str
) -> None:
    rig = make()
    await carried(rig, by)
    await rig.apply("one")
    service, name = (rig.delivery.changes, "open") if by == "change" else (rig.delivery.rollouts, "start")
    just_before(monkeypatch, service, name, lambda: ends(rig, "one", how))
    rig.start()

    async def given_up() -> bool:
        if by == "change":
            return list((await rig.changes()).values()) == ["aborted"]
        return [one.rollout.wanted for one in await rig.delivery.rollouts.page("default", "", 10)] == ["abort"]

    await rig.until(given_up)
    assert undisturbed(rig) and rig.status("one") == {}


@pytest.mark.parametrize("by", ["change", "rollout"])
async def test_what_is_begun_for_several_of_which_one_went_just_then_leaves_nothing_of_it(
    make: Callable[..., Any], monkeypatch: Any, by: str
) -> None:
    """A change makes room for one without it; of a rollout its agent becomes live with the others, and goes then."""
    rig = make()
    await carried(rig, by)
    for name in ("one", "two"):
        await rig.apply(name)
    service, name = (rig.delivery.changes, "open") if by == "change" else (rig.delivery.rollouts, "start")
    just_before(monkeypatch, service, name, lambda: ends(rig, "two", "deleted"))
    rig.start()
    if by == "change":

        async def room() -> bool:
            return list((await rig.changes()).values()) == ["superseded", "open"]

        await rig.until(room)
        _, rest = await rig.changes()
        assert await agents_of(rig, by, rest) == ["one"]
    else:
        began = (await rig.phase("one", "RollingOut"))["rollout"]
        assert await agents_of(rig, by, began) == ["one", "two"]
        await rig.roll()
        await rig.phase("one", "Live")

        async def gone() -> bool:
            return await rig.owners() == {"one": "team/one"}

        await rig.until(gone)
    assert undisturbed(rig)


@pytest.mark.parametrize("how", ["deleted", "finalized", "claimed"])
async def test_of_an_agent_that_is_no_longer_wanted_when_a_pass_ends_nothing_is_told(
    rig: Any, monkeypatch: Any, how: str
) -> None:
    await rig.apply("leaving")
    before = await rig.phase("leaving", "Live")
    await rig.only_changes()
    just_before(monkeypatch, rig.catalogue, "open_batch", lambda: ends(rig, "leaving", how))
    await rig.apply("one", "other")
    await rig.phase("one", "Changing", "other")
    assert undisturbed(rig) and rig.operator.agents.phases == {"Changing": 1}
    assert rig.status("leaving") == ({} if how == "deleted" else before)

    async def going() -> bool:
        named = [name for change in await rig.changes() for name in await agents_of(rig, "change", change)]
        return "leaving" in named

    await rig.until(going)
    assert undisturbed(rig)


async def test_of_a_definition_that_came_while_a_pass_waited_nothing_is_told_by_that_pass(
    rig: Any, monkeypatch: Any
) -> None:
    await rig.apply("restless")
    await rig.phase("restless", "Live")
    await rig.only_changes()
    writing, told = rig.operator.agents.writer.write, []

    async def written(documents: Any) -> None:
        told.extend((key[1], one["status"]["observedGeneration"], one["status"]["phase"]) for key, one in documents)
        await writing(documents)

    async def change() -> None:
        await rig.apply("restless", metadata={"description": "Changed."})
        await rig.until(lambda: rig.operator.agents._wanted["team", "restless"].version[1] == 2)

    monkeypatch.setattr(rig.operator.agents.writer, "write", written)
    just_before(monkeypatch, rig.catalogue, "open_batch", change)
    await rig.apply("one")
    await rig.phase("restless", "Changing")
    assert {one for one in told if one[0] == "restless"} == {("restless", 2, "Changing")}, "it isn't Live as it is now"


@pytest.mark.parametrize("anew", [False, True])
async def test_a_cell_that_goes_while_others_are_deleted_ends_no_loop_and_one_made_in_its_place_stays(
    make: Callable[..., Any], monkeypatch: Any, anew: bool
) -> None:
    rig = make()
    ours = {"labels": {names.MANAGED_BY: names.MANAGER}, "generation": 1}
    for name in ("first", "second"):
        await rig.cluster.put("cells", {"metadata": {"name": name, "namespace": CELLS, **ours}, "spec": {}})
    cells = rig.operator.cells.cells
    before = rig.cluster.object("cells", CELLS, "second")["metadata"]["uid"]

    async def go() -> None:
        await rig.cluster.remove("cells", CELLS, "second")
        if anew:
            meta = {"name": "second", "namespace": CELLS, "generation": 1}
            await rig.cluster.put("cells", {"metadata": meta, "spec": {"minScale": 2}})

        def seen() -> bool:
            found = cells.objects.get((CELLS, "second"))
            return found is None if not anew else found is not None and found.metadata.uid != before

        await rig.until(seen)

    just_before(monkeypatch, rig.api, "delete", go)
    rig.start()
    await rig.until(lambda: rig.cluster.object("cells", CELLS, "first") is None)
    if anew:
        await rig.phase("second", "Waiting", CELLS, "cells")
    await rig.quiet()
    assert undisturbed(rig) and rig.cluster.calls["DELETE", "cells"] == 1
