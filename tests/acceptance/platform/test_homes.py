"""One suite for both homes: local processes, and Knative in a cluster. Whoever calls can't tell which it is.

`homes` says what a cluster must be for these; without one, what wants it is skipped. What people see of it is in
`test_homes_seen`.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.objects import KNATIVE_SERVICES, PODS

from .homes import CODE, PATIENCE, Cluster, Home, together

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]


async def test_an_agent_answers_soon_after_it_was_applied(home: Home) -> None:
    began = time.monotonic()
    await home.apply("first", code=False, shared=True)
    assert "hello" in await home.answer("first", "hello")
    print(f"{home.kind}: applied to first answer, a new cell: {time.monotonic() - began:.1f} s")


async def test_another_agent_of_a_running_cell_needs_no_other_host(home: Home) -> None:
    began = time.monotonic()
    await home.apply("second", code=False, shared=True)
    assert "hello" in await home.answer("second", "hello")
    print(f"{home.kind}: applied to first answer, a running cell: {time.monotonic() - began:.1f} s")
    assert await home.cell("first") == await home.cell("second")
    assert len(await home.hosts("second")) == 1


async def test_hosts_are_added_under_load(home: Home) -> None:
    await home.apply("loaded", target=1, most=3)
    assert await home.answer("loaded", "hello") == "hello"
    long = f"sleep {20 if isinstance(home, Cluster) else 6}"  # a pod takes its time to come
    calls = [asyncio.create_task(home.answer("loaded", long)) for _ in range(3)]
    await home.until_hosts("loaded", lambda hosts: hosts >= 2)
    assert await together(*calls) == [long] * 3
    assert len(await home.hosts("loaded")) <= 3


async def test_an_unused_cell_falls_asleep_and_wakes_for_all_who_call_meanwhile(home: Home) -> None:
    await home.apply("sleeper")
    assert await home.answer("sleeper", "hello") == "hello"
    await home.until_hosts("sleeper", lambda hosts: hosts == 0)
    began = time.monotonic()
    answers = await together(*(home.answer("sleeper", f"call {number}") for number in range(10)))
    print(f"{home.kind}: from zero to ten answers: {time.monotonic() - began:.1f} s")
    assert answers == [f"call {number}" for number in range(10)]
    assert len(await home.hosts("sleeper")) >= 1


async def test_hosts_that_load_brought_are_taken_away_after_it(home: Home) -> None:
    if not isinstance(home, Cluster):
        pytest.skip("a machine's window is a minute: simulated elsewhere")
    await home.until_hosts("loaded", lambda hosts: hosts == 0)  # meanwhile another cell fell asleep


async def test_a_call_that_takes_too_long_is_ended_and_costs_nothing_else(home: Home) -> None:
    await home.have("told")
    (status, body), other = await together(home.call("told", "sleep 60", deadline=1.0), home.answer("told", "sleep 2"))
    assert (status, body["code"], other) == (504, "deadline-exceeded", "sleep 2")


async def test_a_host_that_dies_is_named_and_replaced(home: Home) -> None:
    await home.have("told")
    status, body = await home.call("told", "die")
    assert (status, body["code"]) == (502, "host-failed")
    assert await home.answer("told", "hello again") == "hello again", "no other call breaks with it"


async def test_calls_go_on_while_the_control_plane_is_killed(home: Home) -> None:
    await home.kill_control_plane()
    assert "hello" in await home.answer("first", "hello")
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(AssertionError):
                await home.apply(f"after-{uuid4().hex[:6]}", code=False, shared=True)
                break
            await asyncio.sleep(1)


async def test_a_host_that_is_told_to_end_finishes_its_calls(home: Home) -> None:
    if not isinstance(home, Cluster):
        pytest.skip("a machine's hosts are told by its node agent alone: tests/contract/launchers")
    await home.have("told")
    running = asyncio.create_task(home.answer("told", "sleep 8"))
    await asyncio.sleep(2)
    (host,) = await home.hosts("told")
    await home.api.delete(PODS, home.cells, host)
    assert await running == "sleep 8"


async def test_a_new_revision_of_an_agent_and_the_way_back_move_inside_its_cell(home: Home) -> None:
    await home.apply("rolled")
    assert await home.answer("rolled", "hello") == "hello"
    hosts, cell = await home.hosts("rolled"), await home.cell("rolled")
    await home.change("rolled", CODE.replace("return prompt", 'return "second: " + prompt'))
    assert await home.answer("rolled", "hello") == "second: hello"
    back = await home.data("rollback", "rolled")
    assert await home.answer("rolled", "hello") == "hello"
    first, second = back["revision"], back["before"]
    listed = [row["revision"] for row in await home.data("get", "revisions", "rolled")]
    assert listed == [first, second, first]
    assert (await home.get("/v1/tenants/default/agents/rolled"))["cell"] == cell
    assert set(await home.hosts("rolled")) <= set(hosts), "no host was started for it"


class Callers:
    """Three who call all the time, until they are left."""

    def __init__(self, home: Home, agent: str) -> None:
        self._home = home
        self._agent = agent
        self._done = asyncio.Event()
        self.failed: list[Any] = []
        self.answers = 0

    async def __aenter__(self) -> "Callers":
        self._tasks = [asyncio.create_task(self._call()) for _ in range(3)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._done.set()
        await together(*self._tasks)

    async def _call(self) -> None:
        while not self._done.is_set():
            status, body = await self._home.call(self._agent, "sleep 0.2")
            self.answers += 1
            if status != 200:
                self.failed.append(body)


async def serving(home: Cluster, agent: str) -> tuple[Any, set[str | None]]:
    """The Service of an agent's cell, and its revisions that have calls."""
    name = names.service_name(await home.cell(agent), "function")
    service = await home.api.get(KNATIVE_SERVICES, home.cells, name)
    return service, {part.revision_name for part in service.status.traffic if part.percent}


async def test_a_new_revision_of_a_cell_takes_over_without_a_failed_call(home: Home) -> None:
    if not isinstance(home, Cluster):
        pytest.skip("a machine's cells have no revisions")
    await home.apply("steady", most=2)
    assert await home.answer("steady", "hello") == "hello"
    before = set(await home.hosts("steady"))
    generation = (await serving(home, "steady"))[0].metadata.generation
    began = time.monotonic()
    async with Callers(home, "steady") as callers:
        await home.install(threads=9)  # another environment of every cell, and the control plane anew

        async def moved() -> bool:
            service, revisions = await serving(home, "steady")
            newest = service.status.latest_created_revision_name
            return (
                service.metadata.generation > generation
                and revisions == {newest}
                and not before & set(await home.hosts("steady"))
            )

        async with asyncio.timeout(PATIENCE):
            while not await moved():  # noqa: ASYNC110
                await asyncio.sleep(0.5)
    failed = len(callers.failed)
    taken = f"{time.monotonic() - began:.0f} s"
    print(f"{home.kind}: {callers.answers} calls while a revision took over in {taken}, {failed} failed")
    assert callers.answers and not callers.failed


async def test_a_revision_that_does_not_come_leaves_what_serves_without_a_failed_call(home: Home) -> None:
    if not isinstance(home, Cluster):
        pytest.skip("a machine's cells have no revisions")
    await home.apply("kept", most=2)
    assert await home.answer("kept", "hello") == "hello"
    _, before = await serving(home, "kept")
    async with Callers(home, "kept") as callers:
        await home.install(threads=9, hosts="chimera-no-such-host-{framework}")
        async with asyncio.timeout(PATIENCE):
            while names.FAILED not in (await serving(home, "kept"))[0].metadata.annotations:
                assert (await serving(home, "kept"))[1] == before
                await asyncio.sleep(0.5)
        service, revisions = await serving(home, "kept")
        print(f"{home.kind}: given up: {service.metadata.annotations[names.FAILED]}")
        assert revisions == before and await home.answer("kept", "still here") == "still here"
        await home.install(threads=9)  # the image of before, which is another revision again
        async with asyncio.timeout(PATIENCE):
            while (await serving(home, "kept"))[1] & before:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
    print(f"{home.kind}: {callers.answers} calls while a revision did not come, {len(callers.failed)} failed")
    assert callers.answers and not callers.failed
