"""Does a host keep the contract? Each rule by its name, against one that is started for it, or one that runs already.

    python -m chimera_host check -- node host.mjs                     started with the environment that a pod has
    python -m chimera_host check --url URL --key KEY --token TOKEN    running; its calls name this checker's platform

A fake platform stands where the gateway would. What is checked is the HTTP contract alone (`chimera_host.contract`), so
the host may be in any language and image.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from chimera_host.contract.agent import AgentDocument, FrameworkName
from chimera_host.contract.behaviour import (
    AutoGenBehaviour,
    Behaviour,
    CrewAIBehaviour,
    CrewMember,
    CrewTask,
    FunctionBehaviour,
    LangGraphBehaviour,
    PromptNode,
)
from chimera_host.contract.call import ENCODER, InvokeResponse, LoadedReport, LoadRequest
from chimera_host.contract.problem import RemoteProblem
from chimera_host.contract.token import FreshToken
from chimera_host.testing.builders import document, invoke_request, session
from chimera_host.testing.doubles import refused, until
from chimera_host.testing.platform import FakePlatform, problem
from chimera_host.testing.process import HostClient

NAME, CELL, IDENTITY = "checked-host", "checked-cell", "a-service-account"
CONCURRENCY = 4
PATIENCE = 120.0
"""How long a rule may take before it counts as broken; a host that imports a framework takes its time to start."""


class Result(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one rule; `detail` says what was wrong."""

    rule: str
    kept: bool
    detail: str = ""


class Broken(Exception):
    """The rule isn't kept."""


class World(Struct, kw_only=True):
    """A host and the platform that it believes in."""

    client: HostClient
    platform: FakePlatform
    agent: AgentDocument
    process: asyncio.subprocess.Process | None = None

    async def call(self, text: str = "hello", **fields: Any) -> InvokeResponse:
        """One call, made by this platform."""
        request = invoke_request(
            self.agent, self.platform.add(self.agent), text, platform_url=self.platform.url, **fields
        )
        return await self.client.invoke(request)


Rule = Callable[[World], Awaitable[None]]


def expect(held: object, what: str) -> None:
    """Raise `Broken` unless something holds."""
    if not held:
        raise Broken(what)


# -- the rules --------------------------------------------------------------------------------------------------------


async def _waits_to_be_known(world: World) -> None:
    if world.process is None:
        return
    await until(lambda: world.platform.introductions > 0, PATIENCE)
    expect(not await _is_ready(world.client), "it is ready before the gateway has given it a key")
    world.platform.identities[IDENTITY] = FreshToken(
        token=world.platform.token, expires_in=3_600.0, host=NAME, cell=CELL, host_key=KEY
    )
    await until(lambda: _is_ready(world.client), PATIENCE)


async def _probes_need_no_key(world: World) -> None:
    for path in ("/livez", "/readyz"):
        status, _ = await world.client.get(path, key=False)
        expect(status == 200, f"GET {path} answered {status}")


async def _everything_else_needs_the_key(world: World) -> None:
    for path in ("/metrics", "/v1/loaded", "/v1/invoke", "/elsewhere"):
        status, body = await world.client.get(path, key=False)
        expect(status == 401 and _code(body) == "unauthorized", f"GET {path} without the key answered {status}")


async def _reports_what_it_holds(world: World) -> None:
    msgspec.convert(await world.client.loaded(), LoadedReport)
    status, page = await world.client.get("/metrics")
    expect(status == 200 and "chimera_host_in_flight" in page, "/metrics has no chimera_host_in_flight")


async def _refuses_what_is_no_call(world: World) -> None:
    for body in (b"", b"null", b"[]", b"{" * 5_000, b'{"call": "a"}'):
        status, answer = await world.client.request("POST", "/v1/invoke", body)
        expect(status == 400 and _code(answer) == "invalid-call", f"{body[:20]!r} was answered {status}")
    status, answer = await world.client.get("/v1/nothing")
    expect(status == 404 and _code(answer) == "not-found", f"an unknown path was answered {status}")


async def _answers_a_call(world: World) -> None:
    world.platform.say("an answer")
    answer = await world.call()
    expect("an answer" in answer.output, f"it answered {answer.output!r}")
    expect(answer.agent == world.agent.name and answer.model_calls >= 1, "the answer doesn't say agent or model calls")
    chat = world.platform.chats[-1]
    expect(chat.call == answer.call and chat.deadline, "its model call names no call, or no deadline")


async def _asks_the_gateway_of_the_call(world: World) -> None:
    async with FakePlatform(token=world.platform.token) as other:
        other.say("from another gateway")
        before = len(world.platform.chats)
        agent = document("other", world.agent.framework, behaviour=world.agent.behaviour)
        request = invoke_request(agent, other.add(agent), "hello", platform_url=other.url)
        answer = await world.client.invoke(request)
        expect("from another gateway" in answer.output, "it asked another gateway's model")
        expect(len(world.platform.chats) == before, "it asked its first gateway for a call of another")


async def _loads_before_the_first_call(world: World) -> None:
    agent = document("early", world.agent.framework, behaviour=world.agent.behaviour)
    revision = world.platform.add(agent)
    asked = LoadRequest(tenant=agent.tenant, agent=agent.name, revision=revision, platform_url=world.platform.url)
    status, body = await world.client.request("POST", "/v1/load", ENCODER.encode(asked))
    expect(status == 204, f"POST /v1/load answered {status} {body[:100]}")
    answer = await world.client.invoke(invoke_request(agent, revision, platform_url=world.platform.url))
    expect(not answer.timings.loaded, "it loads the agent again with its first call")


async def _carries_a_session(world: World) -> None:
    answer = await world.call("and now?", session=session(("user", "before"), ("assistant", "then")))
    said = [one.content for one in answer.session.messages] if answer.session else []
    expect(said[:3] == ["before", "then", "and now?"] and len(said) > 3, f"the session after the call is {said}")
    expect((await world.call()).session is None, "it gives a session to a call that had none")


async def _streams(world: World) -> None:
    request = invoke_request(world.agent, world.platform.add(world.agent), "hello", platform_url=world.platform.url)
    events = [event async for event in world.client.stream(request)]
    ended = bool(events) and events[-1][0] == "done" and bool(events[-1][1].get("output"))
    expect(ended, f"the stream ends with {events[-1:]}")
    expect(all(name in ("delta", "tool", "comment") for name, _ in events[:-1]), "the stream has unknown events")


async def _passes_on_problems(world: World) -> None:
    world.platform.say(problem("budget-exceeded", 429, "nothing left", retry_after=60.0))
    told = await refused(world.call())
    expect((told.code, told.status) == ("budget-exceeded", 429), f"the platform's refusal came as {told.code}")


async def _ends_at_the_deadline(world: World) -> None:
    world.platform.model_delay = 60.0
    told = await refused(world.call(deadline=0.5))
    expect((told.code, told.status) == ("deadline-exceeded", 504), f"it answered {told.status} {told.code}")


async def _cancels(world: World) -> None:
    world.platform.model_delay = 60.0
    count = len(world.platform.chats)
    revision = world.platform.add(world.agent)
    request = invoke_request(world.agent, revision, "hello", platform_url=world.platform.url)
    running = asyncio.ensure_future(world.client.invoke(request))
    await until(lambda: len(world.platform.chats) > count, PATIENCE)
    status = await world.client.cancel(request.call)
    expect(status == 202, f"DELETE of a running call answered {status}")
    told = await refused(running)
    expect((told.code, told.status) == ("call-cancelled", 499), f"the call was answered {told.status} {told.code}")
    expect(await world.client.cancel("no-such-call") == 404, "DELETE of no call isn't answered 404")


async def _lets_go_when_the_caller_leaves(world: World) -> None:
    world.platform.model_delay = 60.0
    count = len(world.platform.chats)
    running = asyncio.ensure_future(world.call())
    await until(lambda: len(world.platform.chats) > count, PATIENCE)
    running.cancel()
    await until(lambda: world.platform.chats[-1].cancelled, PATIENCE)


async def _takes_as_many_as_it_was_told(world: World) -> None:
    if world.process is None:
        return
    world.platform.model_delay = 60.0
    agent = msgspec.structs.replace(world.agent, name="busy", concurrency=100)
    revision, count = world.platform.add(agent), len(world.platform.chats)
    requests = [
        invoke_request(agent, revision, "hello", platform_url=world.platform.url) for _ in range(CONCURRENCY + 1)
    ]
    running = [asyncio.ensure_future(world.client.invoke(request)) for request in requests[:-1]]
    try:
        await until(lambda: len(world.platform.chats) == count + CONCURRENCY, PATIENCE)
        told = await refused(world.client.invoke(requests[-1]))
        expect((told.code, told.status) == ("host-busy", 503), f"one call too many was answered {told.code}")
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    await until(lambda: _is_idle(world.client), PATIENCE)


async def _finishes_its_calls_when_told_to_end(world: World) -> None:
    if world.process is None:
        return
    world.platform.model_delay = 2.0
    count = len(world.platform.chats)
    running = asyncio.ensure_future(world.call())
    await until(lambda: len(world.platform.chats) > count, PATIENCE)
    world.process.send_signal(signal.SIGTERM)
    await until(lambda: _is_ready(world.client, ready=False), PATIENCE)
    expect("echo" in (await running).output, "the running call had no answer")
    async with asyncio.timeout(PATIENCE):
        code = await world.process.wait()
    expect(code == 0, f"it ended with {code}")


RULES: tuple[tuple[str, Rule], ...] = (
    ("is ready once the gateway has given it a key, and not before", _waits_to_be_known),
    ("probes need no key", _probes_need_no_key),
    ("everything else needs the key", _everything_else_needs_the_key),
    ("reports what it holds, and metrics", _reports_what_it_holds),
    ("refuses what is no call", _refuses_what_is_no_call),
    ("answers a call by the model", _answers_a_call),
    ("asks the gateway that made the call", _asks_the_gateway_of_the_call),
    ("loads an agent before its first call", _loads_before_the_first_call),
    ("carries a session", _carries_a_session),
    ("streams", _streams),
    ("passes on the platform's problems", _passes_on_problems),
    ("ends at the deadline", _ends_at_the_deadline),
    ("cancels", _cancels),
    ("lets go of the model when the caller leaves", _lets_go_when_the_caller_leaves),
    ("takes as many calls as it was told", _takes_as_many_as_it_was_told),
    ("finishes its calls when it is told to end, and ends with 0", _finishes_its_calls_when_told_to_end),
)


# -- running them -----------------------------------------------------------------------------------------------------

KEY = "the key of the checked host"


async def check(world: World) -> AsyncIterator[Result]:
    """All rules, one after the other; a broken one doesn't stop the others."""
    for name, rule in RULES:
        world.platform.model_delay = 0.0
        world.platform.script.clear()
        try:
            async with asyncio.timeout(2 * PATIENCE):
                await rule(world)
        except Broken as broken:
            yield Result(rule=name, kept=False, detail=str(broken))
        except (
            aiohttp.ClientError,
            TimeoutError,
            AssertionError,
            RemoteProblem,
            msgspec.MsgspecError,
            OSError,
        ) as error:
            detail = error.detail if isinstance(error, RemoteProblem) else str(error)
            yield Result(rule=name, kept=False, detail=f"{type(error).__name__}: {detail}"[:300])
        else:
            yield Result(rule=name, kept=True)


def agent_of(framework: FrameworkName) -> AgentDocument:
    """An agent that is a declaration alone, and answers with what its model says."""
    declared = {
        "function": Behaviour(function=FunctionBehaviour(system_message="Answer.")),
        "langgraph": Behaviour(
            langgraph=LangGraphBehaviour(nodes=(PromptNode(name="a", prompt="{input}"),), start=("a",))
        ),
        "autogen": Behaviour(autogen=AutoGenBehaviour(kind="conversational", system_message="Answer.")),
        "crewai": Behaviour(
            crewai=CrewAIBehaviour(
                members=(CrewMember(name="m", role="r", goal="g", backstory="b"),),
                tasks=(CrewTask(name="t", description="{input}", expected_output="an answer", member="m"),),
            )
        ),
    }
    return document("checked", framework, behaviour=declared[framework])


@asynccontextmanager
async def started(command: Sequence[str], framework: FrameworkName) -> AsyncIterator[World]:
    """A host that `command` starts, with the environment of a pod, on this machine's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="chimera-check-", ignore_cleanup_errors=True) as folder:
        _prepare(Path(folder))
        async with FakePlatform() as platform:
            environ = {
                **os.environ,
                "PORT": str(port),
                "CHIMERA_HOST": NAME,
                "CHIMERA_CELL": CELL,
                "CHIMERA_FRAMEWORK": framework,
                "CHIMERA_PLATFORM_URL": platform.url,
                "CHIMERA_IDENTITY_FILE": f"{folder}/token",
                "CHIMERA_WORK_DIR": f"{folder}/work",
                "CHIMERA_CONCURRENCY": str(CONCURRENCY),
            }
            process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=sys.stderr.fileno())
            client = HostClient(f"http://127.0.0.1:{port}", KEY)
            try:
                yield World(client=client, platform=platform, agent=agent_of(framework), process=process)
            finally:
                await client.close()
                if process.returncode is None:
                    with suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()


@asynccontextmanager
async def running(url: str, key: str, token: str, framework: FrameworkName) -> AsyncIterator[World]:
    """A host that runs at `url`, takes calls that show `key`, and shows its platform `token`."""
    async with FakePlatform(token=token) as platform:
        client = HostClient(url.rstrip("/"), key)
        try:
            yield World(client=client, platform=platform, agent=agent_of(framework))
        finally:
            await client.close()


async def run(world: World, output: str) -> int:
    """Check and tell; 0 where every rule is kept."""
    results = []
    async for result in check(world):
        results.append(result)
        if output == "table":
            sys.stdout.write(f"{'ok    ' if result.kept else 'BROKEN'} {result.rule}\n")
            if result.detail:
                sys.stdout.write(f"       {result.detail}\n")
            sys.stdout.flush()
    if output == "json":
        sys.stdout.write(json.dumps(msgspec.to_builtins(results), indent=2) + "\n")
    return 0 if all(result.kept for result in results) else 1


def _prepare(folder: Path) -> None:
    """A token and a folder for work, for whoever the host runs as: a container's user is another than ours."""
    folder.chmod(0o755)
    (folder / "token").write_text(IDENTITY)
    (folder / "token").chmod(0o644)
    (folder / "work").mkdir()
    (folder / "work").chmod(0o777)


async def _is_ready(client: HostClient, *, ready: bool = True) -> bool:
    try:
        # A host that isn't known yet may let a probe wait: that is no answer, and so not ready.
        async with asyncio.timeout(2.0):
            return ((await client.get("/readyz", key=False))[0] == 200) is ready
    except (aiohttp.ClientError, OSError):
        return not ready


async def _is_idle(client: HostClient) -> bool:
    return bool((await client.loaded())["in_flight"] == 0)


def _code(body: str) -> object:
    try:
        return json.loads(body).get("code")
    except (ValueError, AttributeError):
        return None
