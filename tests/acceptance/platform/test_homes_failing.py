"""What goes wrong in both homes: limits, crashes, cells that can't start. The same answers, the same conditions.

That an image comes after the pods that want it is tried where `CHIMERA_TEST_LATE_IMAGE` names an image like that of
`CHIMERA_TEST_CUSTOM_IMAGE` which no node has, and `CHIMERA_TEST_LOAD` is a command that brings it there.
"""

import asyncio
import os
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.errors import NotInCluster
from chimera.adapters.substrates.knative.objects import KNATIVE_SERVICES, PODS, Meta, Resource
from chimera.platform.reasons import Reason

from .homes import PATIENCE, Cluster, Home, together

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]


EXAMPLE = Path(__file__).parents[3] / "examples" / "image"


class Quota(Struct, frozen=True, kw_only=True):
    metadata: Meta = Meta()


QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota", Quota)


async def conditions(home: Home, agent: str) -> dict[str, dict[str, Any]]:
    """The conditions of the agent's cell, by type."""
    found = await home.get(f"/v1/conditions?subject=cells/{await home.cell(agent)}")
    return {one["type"]: one for subject in found["subjects"] for one in subject["conditions"]}


async def until_told(home: Home, agent: str, kind: str, status: str, reason: Reason | None = None) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while True:
            one = (await conditions(home, agent)).get(kind)
            if one is not None and one["status"] == status and reason in (None, Reason(one["reason"])):
                return one
            await asyncio.sleep(0.3)


async def until_answered(home: Home, agent: str) -> None:
    """Until a call is answered; nobody has to do anything for it."""
    async with asyncio.timeout(PATIENCE):
        while (await home.call(agent, "hello"))[0] != 200:  # noqa: ASYNC110 - it happens elsewhere
            await asyncio.sleep(1)


async def until_tried_again(home: Cluster, agent: str) -> None:
    """Until Knative has given the first revision of the agent's cell up, and another one was made in its place."""
    name = names.service_name(await home.cell(agent), "function")
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                made = (await home.api.get(KNATIVE_SERVICES, home.cells, name)).spec.template.metadata.annotations
                if int(made.get(names.ATTEMPT, "1")) > 1:
                    return
            except NotInCluster:
                pass
            await asyncio.sleep(0.5)


async def test_a_cell_that_serves_is_well_in_every_respect(home: Home) -> None:
    await home.apply("well")
    assert await home.answer("well", "hello") == "hello"
    await until_told(home, "well", "Ready", "True")
    assert {one["status"] for one in (await conditions(home, "well")).values()} == {"True"}
    listed = await home.data("get", "conditions", "--cell", await home.cell("well"))
    assert {row["type"] for row in listed} >= {"Ready", "Accepted", "Reachable", "Startable", "Healthy"}
    described = await home.data("describe", f"cell/{await home.cell('well')}")
    assert {one["status"] for one in described["conditions"]} == {"True"}


async def test_calls_above_an_agents_concurrency_are_refused_and_the_others_answered(home: Home) -> None:
    await home.apply("narrow", target=1, most=1)
    assert await home.answer("narrow", "hello") == "hello"
    answers = await together(*(home.call("narrow", "sleep 3") for _ in range(4)))
    assert sorted(status for status, _ in answers) == [200, 429, 429, 429]
    assert {body["code"] for status, body in answers if status == 429} == {"agent-busy"}


async def test_a_host_that_takes_too_much_memory_ends_and_is_told_of_and_replaced(home: Home) -> None:
    await home.apply("greedy")
    assert await home.answer("greedy", "hello") == "hello"
    status, body = await home.call("greedy", "grow 600")
    assert (status, body["code"]) == (502, "host-failed"), body
    told = await until_told(home, "greedy", "Healthy", "False")
    assert Reason(told["reason"]) is Reason.HOST_OUT_OF_MEMORY, told
    assert told["message"] and told["next_step"]
    await until_answered(home, "greedy")
    await until_told(home, "greedy", "Ready", "True")


async def test_a_host_that_ends_is_told_of_while_calls_go_on(home: Home) -> None:
    await home.apply("crashing")
    assert await home.answer("crashing", "hello") == "hello"
    status, body = await home.call("crashing", "die")
    assert (status, body["code"]) == (502, "host-failed"), body
    told = await until_told(home, "crashing", "Healthy", "False", Reason.HOST_DIED)
    assert "exit code 3" in told["message"]
    await until_answered(home, "crashing")


async def test_who_waits_for_a_cell_without_room_in_the_quota_hears_so_and_it_comes_once_there_is(home: Home) -> None:
    if not isinstance(home, Cluster):
        pytest.skip("a machine has no quotas")
    await home.apply("quoted")
    assert await home.answer("quoted", "hello") == "hello"
    await home.until_hosts("quoted", lambda hosts: hosts == 0)
    meta = {"name": "none", "namespace": home.cells}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": {"pods": "0"}}}
    await home.api.apply(QUOTAS, quota)
    try:
        began = time.monotonic()
        status, body = await home.call("quoted", "hello")
        print(f"{home.kind}: a caller heard of the quota after {time.monotonic() - began:.1f} s")
        assert (status, body["code"], body["reason"]) == (503, "cell-unavailable", "QuotaExceeded")
        assert "exceeded quota" in body["detail"] and "ResourceQuota" in body["next_step"] and body["retry_after"]
        await until_told(home, "quoted", "Ready", "False", Reason.QUOTA_EXCEEDED)
    finally:
        await home.api.delete(QUOTAS, home.cells, "none")
    began = time.monotonic()
    await until_answered(home, "quoted")
    print(f"{home.kind}: {time.monotonic() - began:.1f} s after there was room it answered")


async def test_a_first_revision_that_was_given_up_is_made_anew_and_comes_once_there_is_room(home: Home) -> None:
    if not isinstance(home, Cluster):
        pytest.skip("a machine has no quotas, and no revisions")
    meta = {"name": "none", "namespace": home.cells}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": {"pods": "0"}}}
    await home.api.apply(QUOTAS, quota)
    try:
        await home.apply("unlucky")
        await until_told(home, "unlucky", "Ready", "False", Reason.QUOTA_EXCEEDED)
        began = time.monotonic()
        await until_tried_again(home, "unlucky")
        print(f"{home.kind}: given up and made anew {time.monotonic() - began:.1f} s after it was told of")
    finally:
        await home.api.delete(QUOTAS, home.cells, "none")
    await until_answered(home, "unlucky")
    await until_told(home, "unlucky", "Ready", "True")


async def test_a_first_revision_whose_image_comes_late_is_made_anew_and_comes(home: Home, tmp_path: Path) -> None:
    image, load = os.environ.get("CHIMERA_TEST_LATE_IMAGE"), os.environ.get("CHIMERA_TEST_LOAD")
    if not isinstance(home, Cluster) or image is None or load is None:
        pytest.skip("no cluster, or CHIMERA_TEST_LATE_IMAGE or CHIMERA_TEST_LOAD is not set")
    shutil.copytree(EXAMPLE, tmp_path / "image")
    definition = tmp_path / "image" / "agent.yaml"
    text = definition.read_text().replace("registry.example/size-teller:1", image)
    definition.write_text(text.replace("name: size-teller", "name: late-teller"))
    await home.run("apply", str(tmp_path / "image"))
    told = await until_told(home, "late-teller", "Startable", "False", Reason.IMAGE_PULL_FAILED)
    assert image in told["message"], told
    await until_tried_again(home, "late-teller")
    loading = await asyncio.create_subprocess_exec(*shlex.split(load), image)
    assert await loading.wait() == 0
    async with asyncio.timeout(PATIENCE):
        while (answered := await home.call("late-teller", "1048576"))[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(1)
    assert answered[1]["output"] == "1.0 MiB"
    await until_told(home, "late-teller", "Ready", "True")


async def test_a_pod_that_is_evicted_finishes_its_calls_and_is_told_of_and_replaced(home: Home) -> None:
    if not isinstance(home, Cluster):
        pytest.skip("a machine evicts nobody")
    await home.apply("evicted")
    assert await home.answer("evicted", "hello") == "hello"
    (host,) = await home.hosts("evicted")
    running = asyncio.create_task(home.answer("evicted", "sleep 4"))
    await asyncio.sleep(1)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": host, "namespace": home.cells}}
    await home.api.create(PODS.path(home.cells, host) + "/eviction", eviction)
    told = await until_told(home, "evicted", "Healthy", "False", Reason.HOST_EVICTED)
    assert host in told["message"]
    assert await running == "sleep 4"
    await until_answered(home, "evicted")
    assert host not in await home.hosts("evicted")


async def test_a_pod_that_is_removed_by_force_breaks_its_calls_by_name_and_gets_no_other(home: Home) -> None:
    if not isinstance(home, Cluster):
        pytest.skip("a machine's hosts are told by its node agent alone")
    await home.apply("forced")
    assert await home.answer("forced", "hello") == "hello"
    (host,) = await home.hosts("forced")
    running = asyncio.create_task(home.call("forced", "sleep 8"))
    await asyncio.sleep(1)
    await home.remove_by_force(host)
    status, body = await running
    assert (status, body["code"]) == (502, "host-failed") and host in body["detail"]
    await until_told(home, "forced", "Healthy", "False", Reason.HOST_DIED)
    await until_answered(home, "forced")
    assert host not in await home.hosts("forced")


async def test_trouble_and_its_end_are_events(home: Home) -> None:
    cell = await home.cell("crashing")
    page = await home.get(f"/v1/tenants/default/events?type=chimera.cell.changed&subject=cells/{cell}&limit=100")
    told = [one for event in page["events"] for one in event["data"]["conditions"]]
    assert {"type": "Healthy", "status": "False", "reason": "HostDied"}.items() <= told[0].items()
