"""Runs at the gateway, over real sockets: hosts that die in the middle, callers who ask again, what hosts may save."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.call import InvokeRequest
from chimera_host.contract.state import (
    CHECKPOINT_ANSWERS,
    CHECKPOINT_ENCODER,
    CheckpointAnswer,
    CheckpointAsk,
    GetCheckpoint,
    PutCheckpoint,
    RunState,
    Typed,
)
from chimera_host.contract.tools import AgentTool, FunctionTool
from chimera_host.testing import builders

CODE = SourceCode(bundle="sha256:" + "0" * 64)
Worker = Callable[[InvokeRequest], Awaitable[str]]
STEPS = "/internal/v1/state/steps"
INVOKE = "/v1/tenants/default/agents/agent/invoke"


class Steps:
    """An agent of three steps, which dies at one the first time; `done` counts what it really did."""

    def __init__(self, world: Any, host: str, *, dies_at: int | None = None, kind: str = "node") -> None:
        self.world = world
        self.host = host
        self.dies_at = dies_at
        self.kind = kind
        self.done: list[int] = []

    async def __call__(self, request: InvokeRequest) -> str:
        finished = 0
        if request.resume is not None:
            status, page = await self.world.internal(STEPS, call=request.call, host=self.host)
            assert status == 200
            finished = len(page["steps"])
            assert finished == request.resume.finished
        for number in range(finished + 1, 4):
            self.done.append(number)
            if number == self.dies_at:
                raise ConnectionError
            output = {"role": "assistant", "content": f"m{number}"} if self.kind == "message" else number
            body = {"step": f"s{number}", "kind": self.kind, "output": output, "run": request.run}
            status, saved = await self.world.internal(STEPS, body, call=request.call, host=self.host)
            assert (status, saved) == (200, {"version": number})
        return f"after {finished}"


async def keyed(world: Any, text: str = "hi", key: str = "k-1", **fields: Any) -> tuple[int, Any, Any]:
    headers = {"Idempotency-Key": key}
    async with world.http.post(world.url + INVOKE, json={"input": text, **fields}, headers=headers) as answer:
        return answer.status, msgspec.json.decode(await answer.read()), answer.headers


async def test_a_call_without_session_or_key_has_no_run(world: Any) -> None:
    host = await world.host()
    await world.agent()
    status, body = await world.invoke()
    assert status == 200 and "run" not in body
    assert (host.requests[0].run, host.requests[0].resume) == (None, None)


async def test_finished_steps_are_not_repeated_after_a_hosts_death(world: Any) -> None:
    deaths = [3]

    def worker(name: str) -> Worker:
        async def answer(request: InvokeRequest) -> str:
            steps = Steps(world, name, dies_at=deaths.pop() if deaths else None)
            try:
                return await steps(request)
            finally:
                done.append((name, steps.done, request.resume))

        return answer

    done: list[Any] = []
    for name in ("host-1", "host-2"):
        await world.host(name, answer=worker(name))
    await world.agent(document=builders.document("agent", tools=(AgentTool(name="b", agent="b"),)))
    status, body, headers = await keyed(world)
    assert (status, body["output"]) == (200, "after 2")
    (first, did_first, _), (second, did_second, resumed) = done
    assert first != second
    assert (did_first, did_second) == ([1, 2, 3], [3])
    assert resumed == RunState(attempt=2, finished=2)
    assert "Idempotent-Replayed" not in headers

    status, again, headers = await keyed(world)
    assert (status, again["output"], again["run"]) == (200, "after 2", body["run"])
    assert headers["Idempotent-Replayed"] == "true" and len(done) == 2
    assert again["usage"]["total_tokens"] == 0
    status, refused, _ = await keyed(world, "something else")
    assert (status, refused["code"]) == (422, "idempotency-key-reused")


async def test_a_call_that_kills_host_after_host_is_given_up(make_world: Any) -> None:
    async with make_world(settings={"state": {"deaths": 2}}) as world:
        hosts = [
            await world.host(f"host-{number}", answer=Steps(world, f"host-{number}", dies_at=2)) for number in range(5)
        ]
        await world.agent()
        status, body, _ = await keyed(world)
        assert (status, body["code"]) == (502, "host-failed")
        assert "goes on from its last finished step" in body["next_step"]
        assert sum(len(host.requests) for host in hosts) == 3
        for host in hosts:
            host.answer = Steps(world, host.host)
        status, body, _ = await keyed(world)
        assert (status, body["output"]) == (200, "after 1")


ASKS = AgentTool(name="helper", agent="helper")
ACTS = FunctionTool(name="act", function="m:f")


@pytest.mark.parametrize(
    ("tools", "helpers", "goes_on"),
    [
        ((), (), True),
        ((ASKS,), (), True),
        ((ASKS,), (AgentTool(name="back", agent="agent"),), True),
        ((AgentTool(name="nobody", agent="nobody"),), (), True),
        ((ACTS,), (), False),
        ((ASKS,), (ACTS,), False),
    ],
    ids=["no-tools", "an-agent", "in-a-circle", "an-agent-that-isnt-there", "a-function", "an-agent-with-a-function"],
)
async def test_a_call_without_a_key_goes_on_by_itself_where_only_models_and_agents_are_asked(
    world: Any, tools: Any, helpers: Any, goes_on: bool
) -> None:
    deaths = [2]

    def worker(name: str) -> Worker:
        async def answer(request: InvokeRequest) -> str:
            return await Steps(world, name, dies_at=deaths.pop() if deaths else None)(request)

        return answer

    for name in ("host-1", "host-2"):
        await world.host(name, answer=worker(name))
    await world.agent(document=builders.document("agent", tools=tools))
    await world.agent("helper", protocols=("agent",), document=builders.document("helper", tools=helpers))
    status, body = await world.invoke(session="s")
    assert (status, body.get("output"), body.get("code")) == (
        (200, "after 1", None) if goes_on else (502, None, "host-failed")
    )


@pytest.mark.parametrize("key", [None, "k"])
async def test_what_an_agent_asks_of_an_agent_is_repeated_only_if_the_caller_allows_it(
    world: Any, key: str | None
) -> None:
    """The key of the call between them is the platform's, which doesn't say that repeating is safe."""
    deaths = [True]

    def worker(name: str) -> Worker:
        async def answer(request: InvokeRequest) -> str:
            if request.agent == "helper":
                helped.append(name)
                if deaths and deaths.pop():
                    raise ConnectionError
                return "helped"
            path, asks = "/internal/v1/agents/helper/invoke", {"Idempotency-Key": "the-tools-key"}
            status, said = await world.internal(path, {"message": "help"}, call=request.call, host=name, **asks)
            return f"{status} {said.get('output') or said['code']}"

        return answer

    helped: list[str] = []
    for name in ("host-1", "host-2", "host-3"):
        await world.host(name, answer=worker(name))
    await world.agent(document=builders.document("agent", tools=(ASKS,)))
    await world.agent("helper", protocols=("agent",), document=builders.document("helper", tools=(ACTS,)))
    headers = {} if key is None else {"Idempotency-Key": key}
    async with world.http.post(world.url + INVOKE, json={"input": "hi", "session": "s"}, headers=headers) as answer:
        body = await answer.json()
    assert (body["output"], len(helped)) == (("502 host-failed", 1) if key is None else ("200 helped", 2))


async def test_the_next_call_of_a_session_goes_on(make_world: Any) -> None:
    async with make_world() as world:
        host = await world.host(answer=Steps(world, "host-1", dies_at=3))
        # Code of its own: nobody but its caller can say that repeating it is safe.
        await world.agent(document=builders.document("agent", source=CODE))
        status, body = await world.invoke(text="do it", session="s", subject="ann")
        assert (status, body["code"]) == (502, "host-failed")
        await world.host("host-2", answer=Steps(world, "host-2"))
        host.answer = Steps(world, "host-1")
        status, body = await world.get("/v1/tenants/default/agents/agent/sessions/s")
        assert status == 404  # it begins with its first answer
        status, body = await world.invoke(session="s", resume=True, input=None)
        assert (status, body["output"]) == (200, "after 2")
        status, session = await world.get("/v1/tenants/default/agents/agent/sessions/s")
        assert [message["content"] for message in session["state"]["messages"]] == ["do it", "after 2"]
        assert (session["version"], session["subject"]) == (1, "ann")
        status, body = await world.invoke(session="s", resume=True)
        assert (status, body["code"]) == (409, "nothing-to-resume")


async def test_a_key_and_resume_are_not_taken_together(make_world: Any) -> None:
    """Work that a key names and nobody has begun would have no messages, and whose work is meant must be clear."""
    async with make_world() as world:
        host = await world.host()
        await world.agent()
        for body in ({"resume": True}, {"resume": True, "session": "s"}, {"resume": True, "input": "x"}):
            async with world.http.post(world.url + INVOKE, json=body, headers={"Idempotency-Key": "k"}) as answer:
                problem = msgspec.json.decode(await answer.read())
            assert (answer.status, problem["code"]) == (400, "invalid-request")
            assert "not both" in problem["detail"]
        assert host.requests == []


async def test_other_messages_follow_what_an_unfinished_call_had_said(make_world: Any) -> None:
    async with make_world() as world:
        host = await world.host(answer=Steps(world, "host-1", dies_at=3, kind="message"))
        await world.agent(document=builders.document("agent", source=CODE))
        await world.invoke(text="do it", session="s")
        await world.host("host-2")

        async def says(request: InvokeRequest) -> str:
            return "ok"

        host.answer = says
        status, _ = await world.invoke(text="never mind", session="s")
        assert status == 200
        _, session = await world.get("/v1/tenants/default/agents/agent/sessions/s")
        said = [message["content"] for message in session["state"]["messages"]]
        assert said[:4] == ["do it", "m1", "m2", "never mind"] and session["version"] == 2


async def test_a_key_at_work_is_told_to_wait(world: Any) -> None:
    begun, held = asyncio.Event(), asyncio.Event()

    async def waits(_: InvokeRequest) -> str:
        begun.set()
        await held.wait()
        return "done"

    await world.host(answer=waits)
    await world.agent()
    first = asyncio.create_task(keyed(world))
    await begun.wait()
    status, body, headers = await keyed(world)
    assert (status, body["code"], headers["Retry-After"]) == (409, "run-in-progress", "2")
    held.set()
    assert (await first)[1]["output"] == "done"
    assert (await keyed(world))[1]["output"] == "done"


async def test_a_caller_who_hangs_up_can_go_on(world: Any) -> None:
    started = asyncio.Event()

    async def first(request: InvokeRequest) -> str:
        await Steps(world, "host-1", dies_at=None)(request)
        started.set()
        await asyncio.sleep(60)
        return "never"

    host = await world.host(answer=first)
    await world.agent()
    call = asyncio.create_task(keyed(world))
    await started.wait()
    call.cancel()
    host.answer = Steps(world, "host-1")
    for _ in range(200):
        status, body, _ = await keyed(world)
        if status != 409:
            break
        await asyncio.sleep(0.01)
    assert (status, body["output"]) == (200, "after 3")


async def test_a_stream_gives_a_stored_answer_too(world: Any) -> None:
    host = await world.host()
    await world.agent()
    texts = []
    for _ in range(2):
        headers = {"Idempotency-Key": "k"}
        async with world.http.post(world.url + INVOKE, json={"input": "hi", "stream": True}, headers=headers) as answer:
            texts.append(await answer.text())
    assert len(host.requests) == 1
    assert all('"output":"echo: hi"' in text for text in texts)
    for _ in range(2):
        body = {"model": "agent/agent", "messages": [{"role": "user", "content": "yes"}]}
        headers = {"Idempotency-Key": "chat"}
        async with world.http.post(world.url + "/v1/chat/completions", json=body, headers=headers) as answer:
            assert (await answer.json())["choices"][0]["message"]["content"] == "echo: yes"
    assert len(host.requests) == 2


async def test_model_answers_of_a_step_that_runs_again_are_paid_once(world: Any) -> None:
    deaths = [True]
    chat = "/internal/v1/chat/completions"

    def worker(name: str) -> Worker:
        async def answer(request: InvokeRequest) -> str:
            body = {"messages": [{"role": "user", "content": "2+2?"}]}
            key = {"Idempotency-Key": f"{request.run}/s1/1"}
            _, said = await world.internal(chat, body, call=request.call, host=name, **key)
            if deaths and deaths.pop():
                raise ConnectionError
            return str(said["choices"][0]["message"]["content"])

        return answer

    for name in ("host-1", "host-2"):
        await world.host(name, answer=worker(name))
    await world.agent()
    status, body, _ = await keyed(world)
    assert (status, body["output"]) == (200, "model: 2+2?")
    assert len(world.model.requests) == 1
    _, metrics = await world.get("/metrics")
    assert "chimera_gateway_model_replays_total 1.0" in metrics
    assert 'chimera_gateway_model_calls_total{model="default",outcome="ok"} 1.0' in metrics


async def test_an_agent_called_twice_by_one_step_runs_once(world: Any) -> None:
    deaths = [True]

    def worker(name: str) -> Worker:
        async def answer(request: InvokeRequest) -> str:
            if request.agent == "helper":
                helped.append(request.messages[0].content)
                return "helped"
            key = {"Idempotency-Key": f"{request.run}/s1/1"}
            path = "/internal/v1/agents/helper/invoke"
            _, said = await world.internal(path, {"message": "help"}, call=request.call, host=name, **key)
            if deaths and deaths.pop():
                raise ConnectionError
            return str(said["output"])

        return answer

    helped: list[str] = []
    for name in ("host-1", "host-2"):
        await world.host(name, answer=worker(name))
    await world.agent(document=builders.document("agent", tools=(AgentTool(name="helper", agent="helper"),)))
    await world.agent("helper", protocols=("agent",))
    status, body, _ = await keyed(world)
    assert (status, body["output"], helped) == (200, "helped", ["help"])


async def test_hosts_keep_nothing_where_the_call_keeps_nothing(world: Any) -> None:
    async def tries(request: InvokeRequest) -> str:
        status, body = await world.internal(STEPS, {"step": "a", "kind": "node", "output": 1}, call=request.call)
        return f"{status} {body['code']}"

    await world.host(answer=tries)
    await world.agent()
    assert (await world.invoke())[1]["output"] == "409 no-run"


async def test_hosts_are_answered_when_they_ask_wrongly(world: Any) -> None:
    async def tries(request: InvokeRequest) -> str:
        seen = []
        for path, body in (
            (STEPS, {"step": "", "kind": "node", "output": 1}),
            (STEPS, {"step": "a", "kind": "node", "output": 1, "run": "another"}),
            (STEPS + "?after=x", None),
            ("/internal/v1/state/checkpoints", {}),
            ("/internal/v1/state/nothing", {}),
            ("/internal/v1/state/shared/-", {"read": ["a"]}),
            ("/internal/v1/state/shared/board", {"read": ["a"]}),
        ):
            status, answer = await world.internal(path, body, call=request.call)
            seen.append(f"{status} {answer['code']}")
        return ", ".join(seen)

    await world.host(answer=tries)
    await world.agent()
    _, body, _ = await keyed(world)
    assert body["output"].split(", ") == [
        "400 invalid-request",
        "400 invalid-request",
        "400 invalid-request",
        "400 invalid-request",
        "404 not-found",
        "400 invalid-request",
        "404 space-not-found",
    ]


async def test_checkpoints_belong_to_the_session(world: Any) -> None:
    async def ask(request: InvokeRequest, wanted: CheckpointAsk) -> CheckpointAnswer:
        headers = {"Authorization": f"Bearer {world.token()}", "Chimera-Call": request.call}
        url = f"{world.gateway.internal_url}/internal/v1/state/checkpoints"
        async with world.http.post(url, data=CHECKPOINT_ENCODER.encode(wanted), headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return CHECKPOINT_ANSWERS.decode(await answer.read())

    async def graph(request: InvokeRequest) -> str:
        found = (await ask(request, GetCheckpoint(thread="main"))).checkpoints
        before = found[0].value.data.decode() if found else "0"
        value = Typed(kind="bytes", data=str(int(before) + 1).encode())
        put = PutCheckpoint(thread="main", checkpoint=f"1ef{int(before):05d}", value=value, metadata=value)
        await ask(request, put)
        return before

    await world.host(answer=graph)
    await world.agent()
    outputs = [(await world.invoke(session=name))[1]["output"] for name in ("a", "a", "b", "a")]
    assert outputs == ["0", "1", "0", "2"]
    assert (await keyed(world))[1]["output"] == "0"
    assert (await keyed(world, key="k-2"))[1]["output"] == "0"


async def test_a_session_shows_its_unfinished_work(world: Any) -> None:
    host = await world.host(answer=Steps(world, "host-1"))
    await world.agent(document=builders.document("agent", source=CODE))
    assert (await world.invoke(text="one", session="s"))[0] == 200
    host.answer = Steps(world, "host-1", dies_at=3)
    assert (await world.invoke(text="two", session="s"))[0] == 502
    _, session = await world.get("/v1/tenants/default/agents/agent/sessions/s")
    assert (session["version"], session["unfinished"]["steps"], session["unfinished"]["held"]) == (1, 2, False)
    host.answer = Steps(world, "host-1")
    assert (await world.invoke(text="two", session="s"))[1]["output"] == "after 2"
    _, session = await world.get("/v1/tenants/default/agents/agent/sessions/s")
    assert (session["version"], session.get("unfinished")) == (2, None)


async def test_two_gateways_share_keys_sessions_and_unfinished_work(make_world: Any) -> None:
    fast = {"state": {"holder_life": 1.0}}
    async with make_world(settings=dict(fast)) as one, make_world(settings=dict(fast)) as two:
        held = asyncio.Event()
        begun = asyncio.Event()

        async def waits(request: InvokeRequest) -> str:
            body = {"step": "s1", "kind": "node", "output": 1}
            await one.internal(STEPS, body, call=request.call)
            begun.set()
            await held.wait()
            return "too late"

        await one.host(answer=waits)
        await one.agent()
        await two.host(answer=Steps(two, "host-1"))
        await two.agent()
        first = asyncio.create_task(keyed(one, session="s"))
        await begun.wait()
        status, body, _ = await keyed(two, session="s")
        assert (status, body["code"]) == (409, "run-in-progress")
        for loop in one.gateway._tasks:  # the first gateway falls silent
            if loop.get_name() == "gateway-runs":
                loop.cancel()
        for _ in range(300):
            status, body, _ = await keyed(two, session="s")
            if status == 200:
                break
            await asyncio.sleep(0.02)
        assert (status, body["output"]) == (200, "after 1")
        held.set()
        status, body, _ = await first
        assert (status, body["code"]) == (409, "run-taken")
        _, session = await one.get("/v1/tenants/default/agents/agent/sessions/s")
        assert (session["version"], session["state"]["messages"][-1]["content"]) == (1, "after 1")
