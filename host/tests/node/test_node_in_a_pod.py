"""The Node host as a pod has it: configured by its environment, known by an identity, asking each call's gateway."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from chimera_host.checking import check, started
from chimera_host.contract.agent import SourceCode
from chimera_host.contract.token import FreshToken
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.doubles import refused, until
from chimera_host.testing.platform import FakePlatform
from chimera_host.testing.process import HostClient, listen

from .conftest import SCRIPT

CODE = (
    "export const make = () => async (prompt, call) => (await call.chat({ messages: [] })).choices[0].message.content;"
)
IDENTITY = "a-service-account"


class Pod:
    """A host started with an environment alone."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    def client(self, key: str) -> HostClient:
        return HostClient(self.url, key)

    async def ready(self) -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.url}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


@pytest.fixture
async def pod(node: str, tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Start one: `await pod(platform_url, **variables)`."""
    async with AsyncExitStack() as stack:

        async def start(platform_url: str, **variables: str) -> Pod:
            return await stack.enter_async_context(_running(node, tmp_path, platform_url, variables))

        yield start


@asynccontextmanager
async def _running(node: str, folder: Path, platform_url: str, variables: dict[str, str]) -> AsyncIterator[Pod]:
    bound = listen()
    port = bound.getsockname()[1]
    bound.close()
    log = folder / "log"
    environ = {
        "PATH": os.environ["PATH"],
        "HOSTNAME": "pod-1",
        "PORT": str(port),
        "CHIMERA_FRAMEWORK": "function",
        "CHIMERA_PLATFORM_URL": platform_url,
        "CHIMERA_WORK_DIR": str(folder / "work"),
        **variables,
    }
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(node, str(SCRIPT), env=environ, stdout=file, stderr=file)
    yield Pod(process, f"http://127.0.0.1:{port}", log)
    if process.returncode is None:
        process.kill()
        await process.wait()


def known(platform: FakePlatform, **fields: Any) -> FreshToken:
    return FreshToken(token=platform.token, expires_in=60.0, host="pod-1", cell="cell-7", host_key="the key", **fields)


async def test_a_pod_changes_its_identity_for_what_a_host_needs(platform, pod, tmp_path) -> None:
    identity = tmp_path / "token"
    running = await pod(platform.url, CHIMERA_IDENTITY_FILE=str(identity), CHIMERA_CONCURRENCY="1")
    await until(lambda: "is not known yet" in running.log.read_text())
    assert not await running.ready()  # nobody calls a host that doesn't know its key
    platform.identities[IDENTITY] = known(platform)
    identity.write_text(IDENTITY + "\n")
    await until(running.ready)
    client = running.client("the key")
    agent = document()
    answer = await client.invoke(invoke_request(agent, platform.add(agent), "hello"))
    assert (answer.output, answer.host) == ("echo: hello", "pod-1")
    line = next(line for line in running.log.read_text().splitlines() if "host ready" in line)
    assert msgspec.json.decode(line)["cell"] == "cell-7"
    platform.model_delay = 30.0
    busy = asyncio.ensure_future(client.invoke(invoke_request(agent, platform.add(agent))))
    await until(lambda: len(platform.chats) == 2)
    assert (await refused(client.invoke(invoke_request(agent, platform.add(agent))))).code == "host-busy"
    busy.cancel()
    await client.close()


async def test_what_a_call_asks_goes_to_the_gateway_that_made_it(platform, pod, tmp_path) -> None:
    (tmp_path / "token").write_text(IDENTITY)
    platform.identities[IDENTITY] = known(platform)
    running = await pod(platform.url, CHIMERA_IDENTITY_FILE=str(tmp_path / "token"))
    await until(running.ready)
    client = running.client("the key")
    async with FakePlatform() as other:
        bundle = other.add_bundle({"agent.mjs": CODE})
        agent = document("coder", source=SourceCode(bundle=bundle, entrypoint="agent:make"))
        other.say("from the other gateway")
        request = invoke_request(agent, other.add(agent), platform_url=other.url)
        assert (await client.invoke(request)).output == "from the other gateway"
        assert [chat.call for chat in other.chats] == [request.call] and other.fetched == [request.revision, bundle]
        assert platform.chats == [] and platform.fetched == []
    await client.close()


async def test_a_pod_that_is_told_to_end_before_it_is_known_ends(platform, pod, tmp_path) -> None:
    running = await pod(platform.url, CHIMERA_IDENTITY_FILE=str(tmp_path / "nothing"))
    await until(lambda: "is not known yet" in running.log.read_text())
    running.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        assert await running.process.wait() == 0


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "no platform_token and no host_key"),
        ({"CHIMERA_IDENTITY_FILE": "/t", "CHIMERA_CONCURRENCY": "many"}, "concurrency must be a number"),
    ],
)
async def test_an_environment_that_makes_no_host_is_refused(pod, variables, words) -> None:
    running = await pod("http://127.0.0.1:1", **variables)
    async with asyncio.timeout(60):
        assert await running.process.wait() == 64
    assert words in running.log.read_text()


async def test_secrets_may_be_files_and_are_not_handed_on(platform, pod, tmp_path) -> None:
    (tmp_path / "key").write_text("my key\n")
    running = await pod(
        platform.url, CHIMERA_PLATFORM_TOKEN=platform.token, CHIMERA_HOST_KEY_FILE=str(tmp_path / "key")
    )
    await until(running.ready)
    client = running.client("my key")
    code = "export const make = () => () => JSON.stringify(Object.keys(process.env));"
    bundle = platform.add_bundle({"agent.mjs": code})
    agent = document("coder", source=SourceCode(bundle=bundle, entrypoint="agent:make"))
    seen = msgspec.json.decode((await client.invoke(invoke_request(agent, platform.add(agent)))).output)
    assert "CHIMERA_PLATFORM_URL" in seen and "CHIMERA_PLATFORM_TOKEN" not in seen
    await client.close()


async def test_it_keeps_every_rule_of_the_contract(node: str) -> None:
    async with started((node, str(SCRIPT)), "function") as world:
        assert [result async for result in check(world) if not result.kept] == []
