"""Durable tasks over HTTP, on a real gateway with fake hosts: accepted, worked off, followed, cancelled, handed on."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from chimera.gateway.tasks.errors import WorkerLost
from chimera.testing.hosts import FakeHost
from chimera_host.contract.call import InvokeRequest
from chimera_host.errors import AgentFailed
from chimera_host.testing.doubles import until

TASKS = "/v1/tenants/default/agents/agent/tasks"
QUICK = {"poll": 0.02, "lease": 2.0, "backoff": 0.01, "progress": 0.05, "rest": 0.1, "request_bytes": 65_536}


@pytest.fixture
async def world(make_world: Callable[..., Any]) -> AsyncIterator[Any]:
    async with make_world(settings={"tasks": QUICK}) as made:
        await made.agent()
        yield made


async def ended(world: Any, task: str, agent: str = "agent") -> dict[str, Any]:
    status, found = await world.get(f"/v1/tenants/default/agents/{agent}/tasks/{task}?wait=20")
    assert status == 200 and found["state"] not in ("queued", "running", "waiting"), found
    return dict(found)


async def submit(world: Any, text: str = "hi", headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    status, task = await world.post(TASKS, {"input": text, **fields}, **(headers or {}))
    assert status in (200, 202), task
    return dict(task)


class Gate:
    """A host's answer that waits until it is let go."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.begun = 0

    async def __call__(self, request: InvokeRequest) -> str:
        self.begun += 1
        await self.open.wait()
        return "done"


async def test_a_task_is_accepted_and_its_result_is_that_of_a_call(world: Any) -> None:
    host = await world.host()
    async with world.http.post(world.url + TASKS, json={"input": "hi"}) as answer:
        task = msgspec.json.decode(await answer.read())
        assert answer.status == 202 and answer.headers["Location"] == f"{TASKS}/{task['task']}"
    assert task["state"] == "queued" and task["by"] == "key:bootstrap"

    done = await ended(world, task["task"])

    assert done["state"] == "succeeded" and done["result"]["output"] == "echo: hi"
    assert done["result"]["run"] == task["task"] == host.requests[0].run
    assert [change["why"] for change in done["history"]] == ["submitted", "claimed", "succeeded"]
    assert await world.get(f"{TASKS}/{task['task']}/result") == (200, done["result"])
    _, page = await world.get(TASKS + "?state=succeeded&after=")
    assert [one["task"] for one in page["tasks"]] == [task["task"]] and page["next"] is None


async def test_the_same_key_is_one_task_and_another_body_is_refused(world: Any) -> None:
    await world.host()
    key = {"Idempotency-Key": "k-1"}
    first, second = await submit(world, headers=key), await submit(world, headers=key)
    assert first["task"] == second["task"]
    status, problem = await world.post(TASKS, {"input": "other"}, **key)
    assert (status, problem["code"]) == (422, "idempotency-key-reused")


async def test_a_batch_is_accepted_in_its_order_or_not_at_all(world: Any) -> None:
    await world.host()
    tasks = [{"agent": "agent", "input": f"n{number}", "key": f"k{number % 3}"} for number in range(3)]
    status, answer = await world.post("/v1/tenants/default/tasks", {"tasks": tasks})
    assert status == 202
    names = [entry["task"] for entry in answer["tasks"]]
    assert names == sorted(names) and len(set(names)) == 3
    for number, name in enumerate(names):
        assert (await ended(world, name))["result"]["output"] == f"echo: n{number}"
    status, problem = await world.post(
        "/v1/tenants/default/tasks", {"tasks": [*tasks, {"agent": "none", "input": "x"}]}
    )
    assert (status, problem["code"]) == (404, "agent-not-found")
    _, page = await world.get("/v1/tenants/default/tasks")
    assert len(page["tasks"]) == 3


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid-request"),
        ({"input": "x", "priority": 101}, "invalid-request"),
        ({"input": "x", "deadline": 5}, "invalid-request"),
        ({"input": "x", "not_before": 9e9, "deadline": 8e9}, "invalid-request"),
        ({"input": "x", "unknown": 1}, "invalid-request"),
        ({"input": "x" * 70_000}, "payload-too-large"),
    ],
)
async def test_what_is_wrong_is_refused_at_once(world: Any, body: dict[str, Any], code: str) -> None:
    status, problem = await world.post(TASKS, body)
    assert status in (400, 413) and problem["code"] == code
    status, problem = await world.post("/v1/tenants/default/agents/none/tasks", {"input": "x"})
    assert (status, problem["code"]) == (404, "agent-not-found")
    for path in ("", "/events", "/result"):
        status, problem = await world.get(f"{TASKS}/task_none{path}")
        assert (status, problem["code"]) == (404, "task-not-found")
    for query in ("?wait=61", "?wait=x"):
        assert (await world.get(f"{TASKS}/task_none{query}"))[0] == 400
    assert (await world.get(TASKS + "?state=none"))[0] == 400
    assert (await world.get(TASKS + "?session="))[0] == 400


async def test_a_failed_attempt_is_tried_again_and_what_fails_for_good_is_not(world: Any) -> None:
    host = await world.host()
    failures = 0

    async def answer(request: InvokeRequest) -> str:
        nonlocal failures
        if request.messages[-1].content == "flaky" and failures < 2:
            failures += 1
            raise AgentFailed("not yet")
        if request.messages[-1].content == "broken":
            raise AgentFailed("never")
        return "done"

    host.answer = answer
    done = await ended(world, (await submit(world, "flaky"))["task"])
    assert (done["state"], done["attempts"], done["failures"]) == ("succeeded", 3, 2)
    broken = await ended(world, (await submit(world, "broken", max_attempts=2))["task"])
    assert (broken["state"], broken["attempts"]) == ("failed", 2)
    assert broken["problem"]["code"] == "agent-failed"
    status, problem = await world.get(f"{TASKS}/{broken['task']}/result")
    assert (status, problem["code"]) == (502, "agent-failed")


async def test_agents_that_are_busy_keep_their_tasks_in_the_queue(world: Any) -> None:
    gate = Gate()
    host = await world.host(answer=gate)
    await world.agent("narrow", concurrency=2)
    paths = "/v1/tenants/default/agents/narrow/tasks"
    names = [(await world.post(paths, {"input": str(number)}))[1]["task"] for number in range(6)]
    await until(lambda: gate.begun == 1)  # 0.8 of two calls at once is one
    await world.get(TASKS)
    assert (await world.get(f"{paths}/{names[1]}"))[1]["state"] == "queued"
    gate.open.set()
    assert {(await ended(world, name, "narrow"))["state"] for name in names} == {"succeeded"}
    assert host.most_at_once == 1


async def test_a_queued_and_a_running_task_are_cancelled(world: Any) -> None:
    gate = Gate()
    host = await world.host(answer=gate)
    later = await submit(world, "later", not_before=time.time() + 900)
    running = await submit(world, "running")
    await until(lambda: gate.begun == 1)
    status, problem = await world.get(f"{TASKS}/{running['task']}/result")
    assert (status, problem["code"]) == (409, "task-unfinished")

    assert (await world.post(f"{TASKS}/{later['task']}/cancel", None))[0] == 200
    assert (await world.post(f"{TASKS}/{running['task']}/cancel", None))[0] == 202

    done = await ended(world, running["task"])
    assert done["state"] == "cancelled" and len(host.cancelled) == 1
    assert (await world.post(f"{TASKS}/{running['task']}/cancel", None))[0] == 200
    status, problem = await world.get(f"{TASKS}/{running['task']}/result")
    assert (status, problem["code"]) == (409, "task-cancelled")
    host.answer = FakeHost().answer
    finished = await ended(world, (await submit(world))["task"])
    status, problem = await world.post(f"{TASKS}/{finished['task']}/cancel", None)
    assert (status, problem["code"]) == (409, "task-finished")


async def test_a_task_ends_at_its_deadline(world: Any) -> None:
    gate = Gate()
    host = await world.host(answer=gate)
    done = await ended(world, (await submit(world, deadline=time.time() + 2))["task"])
    assert (done["state"], done["problem"]["code"]) == ("expired", "task-expired")
    assert len(host.cancelled) == 1


async def events(world: Any, task: str, after: int | None = None) -> list[tuple[str | None, str, Any]]:
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    found = []
    async with world.http.get(f"{world.url}{TASKS}/{task}/events", headers=headers) as answer:
        assert answer.status == 200 and answer.content_type == "text/event-stream"
        for block in (await answer.text()).split("\n\n"):
            lines = dict(line.partition(": ")[::2] for line in block.split("\n") if line and not line.startswith(":"))
            if "event" in lines:
                found.append((lines.get("id"), lines["event"], msgspec.json.decode(lines["data"])))
    return found


async def test_a_task_is_followed_from_any_event_on(world: Any) -> None:
    host = await world.host()
    host.delay = 0.03
    task = await submit(world, "one two three four")
    seen = await events(world, task["task"])

    states = [(number, event["state"]) for number, kind, event in seen if kind == "state"]
    assert states == [("1", "queued"), ("2", "running"), ("3", "succeeded")]
    assert "".join(event["text"] for _, kind, event in seen if kind == "delta") == "echo: one two three four"
    assert next(event["text"] for _, kind, event in seen if kind == "progress").startswith("echo:")
    assert seen[-1][1:] == ("end", {"state": "succeeded"})
    again = await events(world, task["task"], after=2)
    assert [(kind, event.get("state")) for _, kind, event in again] == [("state", "succeeded"), ("end", "succeeded")]


async def test_a_tasks_steps_are_told_as_progress(world: Any) -> None:
    async def answer(request: InvokeRequest) -> str:
        body = {"step": "s1", "kind": "node", "output": 1}
        assert (await world.internal("/internal/v1/state/steps", body, call=request.call))[0] == 200
        await gate.open.wait()
        return "done"

    gate = Gate()
    await world.host(answer=answer)
    task = await submit(world)

    async with asyncio.timeout(10):
        found: dict[str, Any] = {}
        while found.get("progress", {}).get("steps") != 1:
            _, found = await world.get(f"{TASKS}/{task['task']}")
    gate.open.set()
    assert (await ended(world, task["task"]))["state"] == "succeeded"


async def test_an_answer_that_was_committed_is_not_made_again(world: Any) -> None:
    """The gateway dies between the answer and the task's end: the next attempt finds the answer."""
    host = await world.host()
    store = world.gateway.tasks.worker._store
    whole, failed = store.settle, asyncio.Event()

    async def settle(*arguments: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("a power cut")
        return await whole(*arguments)

    store.settle = settle
    done = await ended(world, (await submit(world))["task"])
    assert (done["state"], done["attempts"]) == ("succeeded", 2)
    assert len(host.requests) == 1


async def test_two_gateways_share_a_queue_and_one_ends_in_order(make_world: Callable[..., Any], world: Any) -> None:
    """Every task is done once, though one gateway leaves in the middle of it."""
    async with make_world(drain=0.05, settings={"tasks": QUICK}) as other:
        for gateway in (world, other):
            await gateway.agent(concurrency=40)
        kept, done_here = Gate(), Gate()
        first, second = await world.host(answer=done_here), await other.host(answer=kept)
        tasks = [{"agent": "agent", "input": str(number)} for number in range(200)]
        _, answer = await world.post("/v1/tenants/default/tasks", {"tasks": tasks})
        await until(lambda: kept.begun > 0 and done_here.begun > 0)

        await other.gateway.tasks.worker.leave(0.05)  # what it has taken, it can't finish
        assert len(second.cancelled) == kept.begun > 0
        done_here.open.set()
        for entry in answer["tasks"]:
            done = await ended(world, entry["task"])
            assert done["state"] == "succeeded" and not done.get("failures")
    said = [request.messages[-1].content for request in first.requests]
    assert sorted(said, key=int) == [str(number) for number in range(200)]


async def test_a_worker_that_was_lost_ends_its_calls_and_another_goes_on(world: Any) -> None:
    gate = Gate()
    host = await world.host(answer=gate)
    task = await submit(world)
    await until(lambda: gate.begun == 1)
    worker = world.gateway.tasks.worker
    name = worker.name

    async def beat(*_: Any) -> None:
        raise WorkerLost("taken", next_step="begin again")

    worker._store.beat = beat
    await until(lambda: worker.name != name and not worker.running)
    del worker._store.beat
    await until(lambda: len(host.cancelled) == 1)
    await until(lambda: gate.begun == 2)
    gate.open.set()
    done = await ended(world, task["task"])
    assert done["state"] == "succeeded" and "worker-lost" in [change["why"] for change in done["history"]]


async def test_a_persons_tasks_are_exported_and_erased_with_the_rest(world: Any) -> None:
    await world.host()
    await ended(world, (await submit(world, subject="ann"))["task"])
    _, counts = await world.get("/v1/tenants/default/subjects/ann")
    assert counts["kept"]["tasks"] == 1
    async with world.http.delete(world.url + "/v1/tenants/default/subjects/ann") as answer:
        assert msgspec.json.decode(await answer.read())["kept"]["tasks"] == 1
    assert (await world.get("/v1/tenants/default/tasks"))[1]["tasks"] == []
