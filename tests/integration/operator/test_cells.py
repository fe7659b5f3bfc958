"""Cells as resources: one for each cell, what a person asks of it, and what the operator may do at all."""

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest

from chimera.adapters.storage.conditions import StoredConditions
from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.resources.kinds import CELLS as CELL_KIND
from chimera.adapters.substrates.knative.rights import OPERATOR, RIGHTS
from chimera.entrypoints.operator import cells as loop
from chimera.platform.condition_keeper import Judged
from chimera.platform.conditions import Evidence, Seen, cell_subject, judge
from chimera.platform.reasons import Reason
from chimera.testing.cluster import refusal
from chimera.testing.definitions import definition

NAMESPACE = "cells"


async def cell(rig: Any) -> Any:
    """The one cell of the catalogue, with its Service's name."""
    (found,) = await rig.catalogue.live_cells()
    return names.service_name(found.cell, found.runtime_class.framework), found


async def service(rig: Any, name: str, *, ready: str = "True", message: str = "") -> None:
    meta = {"name": name, "namespace": NAMESPACE, "labels": {names.MANAGED_BY: names.MANAGER}}
    condition = {
        "type": "Ready",
        "status": ready,
        "reason": "RevisionMissing" if ready != "True" else "",
        "message": message,
    }
    status = {"observedGeneration": 1, "conditions": [condition], "latestReadyRevisionName": f"{name}-00001"}
    await rig.cluster.put("services", {"metadata": {**meta, "generation": 1}, "spec": {}, "status": status})


async def revision(rig: Any, name: str, hosts: int, number: int = 1) -> None:
    labels = {names.MANAGED_BY: names.MANAGER, names.KNATIVE_SERVICE: name}
    meta = {"name": f"{name}-{number:05d}", "namespace": NAMESPACE, "labels": labels, "uid": f"revision-{number}"}
    await rig.cluster.put("revisions", {"metadata": meta, "status": {"actualReplicas": hosts}})


async def scale(rig: Any, name: str, least: int) -> None:
    """As `kubectl scale` does."""
    meta = {"name": name, "namespace": NAMESPACE}
    value = {"apiVersion": CELL_KIND.api_version, "kind": "Cell", "metadata": meta, "spec": {"minScale": least}}
    await rig.api.apply(CELL_KIND, value, manager="kubectl")


async def test_a_cell_is_shown_with_its_hosts_and_what_they_are_doing(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "NUMBERS", 0.0)
    await rig.apply("one")
    await rig.phase("one", "Live")
    name, spec = await cell(rig)
    told = await rig.phase(name, "Waiting", NAMESPACE, "cells")
    assert (told["cell"], told["agents"], told["maxReplicas"]) == (spec.cell, 1, spec.max_hosts)
    await service(rig, name, ready="Unknown")
    await rig.phase(name, "Deploying", NAMESPACE, "cells")
    await service(rig, name)
    await rig.phase(name, "Asleep", NAMESPACE, "cells")
    await revision(rig, name, 2)
    await revision(rig, name, 1, number=2)
    told = await rig.phase(name, "Ready", NAMESPACE, "cells")
    await rig.until(lambda: rig.status(name, NAMESPACE, "cells")["replicas"] == 3)
    assert rig.condition(name, NAMESPACE, plural="cells")["status"] == "True"
    await service(rig, name, ready="False", message="Unable to fetch image: manifest unknown")
    await rig.phase(name, "Failed", NAMESPACE, "cells")
    assert "knative.image" in rig.condition(name, NAMESPACE, plural="cells")["message"]


async def test_a_cells_conditions_are_those_that_the_control_plane_keeps(
    rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CONDITIONS", 0.05)
    rig.conditions = StoredConditions(rig.database, "knative/cells")
    await rig.again()
    await rig.apply("one")
    await rig.phase("one", "Live")
    name, spec = await cell(rig)
    evidence = (Evidence(reason=Reason.IMAGE_PULL_FAILED, message="manifest unknown"),)
    seen = Seen(subject=cell_subject(spec.cell), tenant="default", evidence=evidence)
    for one, status in ((seen, "False"), (msgspec.structs.replace(seen, evidence=(), ready_hosts=1), "True")):
        made = Judged(subject=one.subject, tenant="default", conditions=judge(one, (), 1_000_000_000.0))
        await rig.conditions.put([made], [], None)

        def told() -> dict[str, Any]:
            found = (rig.status(name, NAMESPACE, "cells") or {}).get("conditions", ())
            return {one["type"]: one for one in found}

        await rig.until(lambda status=status: told().get("Startable", {}).get("status") == status)
        assert told().keys() == {"Ready", "Accepted", "Reachable", "Startable", "Healthy"}
        if status == "False":
            startable = told()["Startable"]
            assert startable["reason"] == "ImagePullFailed" and "knative.image" in startable["message"]
            assert startable["lastTransitionTime"] == "2001-09-09T01:46:40Z"


async def test_hosts_that_a_person_asks_for_go_into_the_catalogue_and_out_again(rig: Any) -> None:
    await rig.apply("one")
    await rig.phase("one", "Live")
    name, spec = await cell(rig)
    await rig.phase(name, "Waiting", NAMESPACE, "cells")
    await scale(rig, name, 3)

    async def least() -> int:
        return int((await cell(rig))[1].min_hosts)

    async def three() -> bool:
        return await least() == 3

    async def none() -> bool:
        return await least() == 0

    await rig.until(three)
    await rig.until(lambda: rig.status(name, NAMESPACE, "cells")["minReplicas"] == 3)
    assert rig.cluster.object("cells", NAMESPACE, name)["spec"] == {"minScale": 3}, "the operator owns none of it"
    await rig.again()
    await rig.until(lambda: rig.operator.cells.passes > 0)
    assert await least() == 3
    await rig.cluster.remove("cells", NAMESPACE, name)
    await rig.until(none)
    await rig.until(lambda: rig.cluster.object("cells", NAMESPACE, name) is not None)
    assert spec.cell in (await rig.catalogue.agents_in_cells())


async def test_a_cell_without_agents_goes_with_its_service_and_one_that_somebody_made_stays(rig: Any) -> None:
    await scale(rig, "mine", 2)
    await rig.apply("one")
    await rig.phase("one", "Live")
    name, _ = await cell(rig)
    await service(rig, name)
    await rig.phase(name, "Asleep", NAMESPACE, "cells")
    await rig.delete("one")
    told = await rig.phase(name, "Waiting", NAMESPACE, "cells")
    assert told["agents"] == 0
    await rig.cluster.remove("services", NAMESPACE, name)
    await rig.until(lambda: rig.cluster.object("cells", NAMESPACE, name) is None)
    await rig.phase("mine", "Waiting", NAMESPACE, "cells")


async def test_numbers_alone_are_not_written_all_the_time(rig: Any) -> None:
    await rig.apply("one")
    await rig.phase("one", "Live")
    name, _ = await cell(rig)
    await service(rig, name)
    await revision(rig, name, 1)
    await rig.phase(name, "Ready", NAMESPACE, "cells")
    await rig.quiet()
    written = rig.cluster.calls["PATCH", "cells/status"]
    for hosts in range(2, 30):
        await revision(rig, name, hosts)
        await asyncio.sleep(0.02)
    assert rig.cluster.calls["PATCH", "cells/status"] <= written + 1


async def test_steady_cells_cost_no_call(rig: Any) -> None:
    await rig.apply("one")
    await rig.phase("one", "Live")
    name, _ = await cell(rig)
    await service(rig, name)
    await rig.phase(name, "Asleep", NAMESPACE, "cells")
    await rig.quiet()
    calls = Counter(rig.cluster.calls)
    await asyncio.sleep(20 * rig.settings.poll)
    assert rig.cluster.calls == calls
    assert {calls["WATCH", kind] for kind in ("agents", "agenttemplates", "cells", "services", "revisions")} == {1}


async def test_a_cell_that_is_refused_is_not_made_in_a_loop(make: Any) -> None:
    rig = make()
    quota = refusal(403, "Forbidden", "exceeded quota: cells")
    rig.cluster.faults.append(
        lambda asked: quota(asked) if asked.method == "PATCH" and "/cells/" in asked.path else None
    )
    rig.start()
    await rig.apply("one")
    await rig.phase("one", "Live")
    await rig.until(lambda: rig.cluster.calls["PATCH", "cells"] > 0)
    await asyncio.sleep(0.5)
    assert rig.cluster.calls["PATCH", "cells"] == 1


async def test_the_operators_rights_are_exactly_what_it_does(rig: Any) -> None:
    await rig.stop()
    rig.cluster.verbs.clear()
    rig.start("three")
    await rig.cluster.put(
        "agents", {"metadata": {"name": "one", "namespace": "team", "generation": 1}, "spec": definition("one")}
    )
    template = {"metadata": {"name": "mine", "namespace": "team", "generation": 1}, "spec": {}}
    await rig.cluster.put("agenttemplates", template)
    await rig.phase("one", "Live")
    await rig.phase("mine", "Ready", plural="agenttemplates")
    rollout = {"metadata": {"name": "careful", "namespace": "team", "generation": 1}}
    await rig.cluster.put("rollouts", {**rollout, "spec": {"agents": {"names": ["two"]}}})
    await rig.phase("careful", "Idle", plural="rollouts")
    name, _ = await cell(rig)
    await rig.phase(name, "Waiting", NAMESPACE, "cells")
    await rig.cluster.remove("agents", "team", "one")
    await rig.until(lambda: rig.cluster.object("cells", NAMESPACE, name) is None)
    # An apply of what isn't there is a create, too.
    used = {(kind, verb) for _, kind, verb in rig.cluster.verbs} | {("cells", "create")}
    assert used == {(right.resource, verb) for right in RIGHTS[OPERATOR] for verb in right.verbs}
    everywhere = {right.resource for right in RIGHTS[OPERATOR] if right.everywhere}
    for namespace, kind, _ in rig.cluster.verbs:
        assert namespace == NAMESPACE or kind in everywhere
