"""Agents that a Rollout governs, in a real cluster: rolled out, paused, taken back, tried again, and by a change.

Wants what `test_homes.py` wants of a cluster, and is skipped without. The installation is as in `test_resources.py`.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from chimera.adapters.substrates.knative.errors import ClusterRefused
from chimera.adapters.substrates.knative.objects import PODS
from chimera.adapters.substrates.knative.resources.kinds import AGENTS, ROLLOUTS
from tests.acceptance.platform.test_resources import PATIENCE, Rig, installed

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

NAME, MANY = "careful", 5
QUICK = {"waves": [1.0], "steps": [50.0], "step_seconds": 1.0, "bake_seconds": 1.0, "hold_seconds": 5.0}


class Governed(Rig):
    """With a Rollout in the team's namespace."""

    async def govern(self, **spec: Any) -> None:
        meta = {"name": NAME, "namespace": self.team}
        manifest = {"apiVersion": ROLLOUTS.api_version, "kind": "Rollout", "metadata": meta, "spec": spec}
        await self.api.apply(ROLLOUTS, manifest, manager="kubectl", force=True)

    async def rollout(self, phase: str) -> Any:
        """The Rollout's status once it has this phase."""

        async def reached() -> bool:
            return (await self.api.get(ROLLOUTS, self.team, NAME)).status.phase == phase

        await self.until(reached)
        return (await self.api.get(ROLLOUTS, self.team, NAME)).status

    async def agent(self, name: str, phase: str) -> Any:
        """An Agent's status once it has this phase."""

        async def reached() -> bool:
            return (await self.api.get(AGENTS, self.team, name)).status.phase == phase

        await self.until(reached)
        return (await self.api.get(AGENTS, self.team, name)).status

    async def describe(self, number: int, words: str) -> None:
        await self.apply(f"governed-{number}", metadata={"description": words})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Governed]:
    async with installed(Governed, tmp_path_factory.mktemp("rollouts")) as made:
        yield made


async def test_what_agents_want_is_rolled_out_and_begun_once_whoever_is_killed(rig: Governed) -> None:
    await rig.govern(policy=QUICK, state="Paused")
    for number in range(MANY):
        await rig.describe(number, "The first.")
    assert (await rig.agent(f"governed-{MANY - 1}", "Held")).revision == ""
    held = await rig.rollout("Held")
    await rig.govern(policy=QUICK)
    await rig.api.delete(PODS, rig.namespace, await rig.pod("operator"))
    done = await rig.rollout("Done")
    assert (held.rollout, done.agents, done.moved, done.selected) == ("", MANY, MANY, MANY)
    await rig.until_phases({"Live": MANY})
    begun = json.loads(await rig.run("rollout", "list", "--output", "json"))
    assert [one["id"] for one in begun if one.get("resource") == f"{rig.team}/{NAME}"] == [done.rollout]
    address = f"{rig.url}/v1/tenants/default/agents/governed-0/invoke"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session:
        headers = {"Authorization": f"Bearer {rig.key}"}
        async with session.post(address, json={"input": "hello"}, headers=headers) as answer:
            assert answer.status == 200, await answer.text()


async def test_an_aborted_rollout_leaves_the_old_revision_and_is_tried_again_when_told(rig: Governed) -> None:
    before = (await rig.agent("governed-1", "Live")).revision
    await rig.govern(policy={**QUICK, "bake_seconds": 600.0, "longest_bake": 900.0})
    await rig.describe(1, "The second.")
    running = await rig.agent("governed-1", "RollingOut")
    assert running.revision == before and running.rollout
    await rig.govern(policy=QUICK, state="Aborted")
    await rig.rollout("Aborted")
    assert (await rig.agent("governed-1", "Refused")).revision == before
    await rig.govern(policy=QUICK, attempt=1)
    await rig.rollout("Done")
    assert (await rig.agent("governed-1", "Live")).revision != before


async def test_a_policy_that_is_not_valid_is_refused_by_the_api_server(rig: Governed) -> None:
    for policy in ({"canary": 0}, {"steps": []}, {"canary": "many"}):
        with pytest.raises(ClusterRefused):
            await rig.govern(policy=policy)


async def test_where_the_tenant_takes_no_direct_changes_a_change_carries_them(rig: Governed) -> None:
    before = (await rig.agent("governed-2", "Live")).revision
    file = rig.folder / "policy.yaml"
    file.write_text("direct: false\n")
    await rig.run("change", "policy", "set", str(file))
    await rig.describe(2, "By a change.")
    told = await rig.agent("governed-2", "Changing")
    assert told.revision == before and told.change.startswith("chg_")
    assert next(one for one in told.conditions if one.type == "Delivered").status == "False"
    await rig.rollout("ByChanges")
    await rig.run("change", "abort", told.change)
    assert (await rig.agent("governed-2", "Refused")).change == told.change


async def test_nothing_is_written_where_nothing_changes(rig: Governed) -> None:
    await asyncio.sleep(15.0)  # numbers are written every ten seconds at most

    async def versions() -> list[str]:
        found = [*(await rig.api.list(AGENTS, rig.team)).items, *(await rig.api.list(ROLLOUTS, rig.team)).items]
        return sorted(f"{one.metadata.name} {one.metadata.resource_version}" for one in found)

    before = await versions()
    await asyncio.sleep(15.0)
    assert await versions() == before
