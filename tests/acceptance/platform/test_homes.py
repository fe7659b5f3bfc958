"""One suite for both homes: local processes, and Knative in a cluster. Whoever calls can't tell which it is.

The cluster is the one of `CHIMERA_TEST_KUBECONFIG`. `CHIMERA_TEST_IMAGES` names its images (`registry/{name}:tag`,
where `{name}` becomes chimera-platform and chimera-host-function, made by `make images`),
`CHIMERA_TEST_CLUSTER_DATABASE` an empty PostgreSQL database that its pods reach without a password. Without them, what
wants a cluster is skipped.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
import pytest_asyncio

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.access import from_kubeconfig
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.installer import KINDS, NAMESPACES
from chimera.adapters.substrates.knative.objects import KNATIVE_SERVICES, PODS
from chimera.kernel.clock import SystemClock
from chimera.testing.forwarding import Forwarding

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

CHIMERA = str(Path(sys.executable).with_name("chimera"))
PATIENCE = 240.0
NEEDED = ("CHIMERA_TEST_KUBECONFIG", "CHIMERA_TEST_IMAGES", "CHIMERA_TEST_CLUSTER_DATABASE")
CODE = """
import asyncio, os

def make(context):
    async def answer(prompt, call):
        word, _, value = prompt.partition(" ")
        if word == "sleep":
            await asyncio.sleep(float(value))
        if word == "die":
            os._exit(3)
        return prompt
    return answer
"""
DEFINITION = """
schema_version: ADaC v2.0
metadata: {{name: {name}, version: 1.0.0, description: Does what it is told.}}
specification: {{framework: function, runtime: "python:3.11-slim", resources: {{cpu: 100m, memory: 128Mi}}{source}}}
capabilities: {{primary_functions: [do what it is told]}}
isolation: {isolation}
scaling: {{idle_timeout: 7s, concurrency_target: {target}, max_instances: {most}}}
"""


class Home:
    """Where agents run: what differs between homes, and calls, which don't."""

    kind = ""
    url = ""
    key = ""
    session: aiohttp.ClientSession

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def run(self, *arguments: str, **environ: str) -> str:
        """One command of the command line, which must succeed; what it printed."""
        process = await asyncio.create_subprocess_exec(
            CHIMERA,
            *arguments,
            env={**os.environ, "CHIMERA_URL": self.url, "CHIMERA_KEY": self.key, **environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()

    async def apply(
        self, name: str, *, code: bool = True, target: int = 10, most: int = 3, shared: bool = False
    ) -> None:
        folder = self.folder / f"agent-{name}"
        folder.mkdir()
        source = ', source: ./code, entrypoint: "told:make"' if code else ""
        isolation = "shared" if shared else "dedicated"
        text = DEFINITION.format(name=name, source=source, target=target, most=most, isolation=isolation)
        (folder / "agent.yaml").write_text(text)
        if code:
            (folder / "code").mkdir()
            (folder / "code" / "told.py").write_text(CODE)
        await self.run("apply", str(folder))

    async def call(self, agent: str, text: str, **body: Any) -> tuple[int, Any]:
        """Status and answer of a call."""
        url = f"{self.url}/v1/tenants/default/agents/{agent}/invoke"
        async with self.session.post(
            url, json={"input": text, **body}, headers={"Authorization": f"Bearer {self.key}"}
        ) as answer:
            return answer.status, await answer.json()

    async def answer(self, agent: str, text: str) -> str:
        status, body = await self.call(agent, text)
        assert status == 200, body
        return str(body["output"])

    async def hosts(self, agent: str) -> list[str]:
        """The hosts of the agent's cell that run."""
        raise NotImplementedError

    async def cell(self, agent: str) -> str:
        return str(json.loads(await self.run("describe", agent, "--output", "json"))["cell"])

    async def kill_control_plane(self) -> None:
        raise NotImplementedError

    async def until_hosts(self, agent: str, wanted: Callable[[int], bool]) -> list[str]:
        async with asyncio.timeout(PATIENCE):
            while not wanted(len(found := await self.hosts(agent))):  # noqa: ASYNC110 - it happens elsewhere
                await asyncio.sleep(0.5)
        return found


class Machine(Home):
    """Local processes, as `chimera up` starts them."""

    kind = "machine"

    def __init__(self, folder: Path, platform: Any) -> None:
        super().__init__(folder)
        self.platform = platform
        self.url, self.key = platform.url, platform.key

    async def hosts(self, agent: str) -> list[str]:
        rows = await asyncio.to_thread(self.platform.data, "get", "hosts")
        cell = await self.cell(agent)
        return [row["host"] for row in rows if row["cell"] == cell and row["phase"] in ("starting", "ready")]

    async def kill_control_plane(self) -> None:
        await asyncio.to_thread(self.platform.kill, "control-plane")


class Cluster(Home):
    """Knative in a cluster, as `chimera install` puts it there."""

    kind = "knative"

    def __init__(self, folder: Path, kubeconfig: str) -> None:
        super().__init__(folder)
        self.kubeconfig = kubeconfig
        self.access = from_kubeconfig(Path(kubeconfig), SystemClock())
        self.api = Kubernetes(self.access)
        self.namespace = f"chimera-test-{uuid4().hex[:8]}"
        self.cells = f"{self.namespace}-cells"
        self.images = os.environ["CHIMERA_TEST_IMAGES"]
        self.forwarding: Forwarding | None = None

    def options(self) -> list[str]:
        home = ["--home", str(self.folder)]
        place = ["--substrate", "knative", "--kubeconfig", self.kubeconfig, "--namespace", self.namespace]
        return [*home, "?", *place, "--wait", str(PATIENCE)]

    async def install(self, *, threads: int = 8) -> None:
        settings = f"""
            [node]
            database = "{os.environ["CHIMERA_TEST_CLUSTER_DATABASE"]}"
            [knative]
            namespace = "{self.cells}"
            image = "{self.images.replace("{name}", "chimera-host-{framework}")}"
            window = 6
            request_share = 0.05
            threads = {threads}
            [model.default]
            provider = "scripted"
        """
        (self.folder / "settings.toml").write_text("\n".join(line.strip() for line in settings.splitlines()))
        image = self.images.replace("{name}", "chimera-platform")
        words = [word if word != "?" else "install" for word in self.options()]
        await self.run(*words, "--image", image, "--replicas", "1", "--database-secret", "")

    async def connect(self) -> None:
        gateway = await self.pod("gateway")
        self.forwarding = await Forwarding(self.access, self.namespace, gateway, 8080).__aenter__()
        self.url = f"http://127.0.0.1:{self.forwarding.port}"
        self.key = await self.kept_key()

    async def kept_key(self) -> str:
        """The platform's key, read as its administrator would."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", READ_KEY, self.kubeconfig, self.namespace), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        return output.decode().strip()

    async def pod(self, component: str) -> str:
        selector = f"app.kubernetes.io/name=chimera,app.kubernetes.io/component={component}"
        listing = await self.api.list(PODS, self.namespace, selector)
        return next(one.metadata.name for one in listing.items if one.metadata.deletion_timestamp is None)

    async def hosts(self, agent: str) -> list[str]:
        cell = await self.cell(agent)
        listing = await self.api.list(PODS, self.cells, names.managed())
        return [
            one.metadata.name
            for one in listing.items
            if one.metadata.annotations.get(names.CELL) == cell and one.metadata.deletion_timestamp is None
        ]

    async def kill_control_plane(self) -> None:
        await self.api.delete(PODS, self.namespace, await self.pod("control-plane"))

    async def remove(self) -> None:
        if self.forwarding is not None:
            await self.forwarding.__aexit__()
        words = [word if word != "?" else "uninstall" for word in self.options()]
        await self.run(*words)


READ_KEY = """
import asyncio, base64, sys
from pathlib import Path
from msgspec import Struct
from chimera.adapters.substrates.knative.access import from_kubeconfig
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.objects import Meta, Resource
from chimera.kernel.clock import SystemClock

class Secret(Struct):
    data: dict[str, str] = {}

async def main():
    api = Kubernetes(from_kubeconfig(Path(sys.argv[1]), SystemClock()))
    kept = await api.get(Resource("", "v1", "secrets", "Secret", Secret), sys.argv[2], "chimera-keys")
    print(base64.b64decode(kept.data["chimera.key"]).decode())
    await api.aclose()

asyncio.run(main())
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["machine", "knative"])
async def home(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_platform: Callable[..., Any]
) -> AsyncIterator[Home]:
    folder = tmp_path_factory.mktemp(request.param)
    made: Home
    if request.param == "machine":
        platform = await asyncio.to_thread(new_platform, folder / "home")
        made = Machine(folder, platform)
    else:
        if missing := [name for name in NEEDED if not os.environ.get(name)]:
            pytest.skip(f"no cluster: {', '.join(missing)} not set")
        made = Cluster(folder, os.environ["CHIMERA_TEST_KUBECONFIG"])
        await made.install()
        await made.connect()
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as session:
        made.session = session
        yield made
    if isinstance(made, Machine):
        assert await asyncio.to_thread(made.platform.stop) == 0
    elif isinstance(made, Cluster):
        await made.remove()
        await nothing_is_left(made)
        await made.api.aclose()


async def nothing_is_left(home: Cluster) -> None:
    left = {one.metadata.name for one in (await home.api.list(NAMESPACES, None)).items}
    assert not left & {home.namespace, home.cells}
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        listing = await home.api.list(KINDS[kind], None, names.managed())
        assert not [one for one in listing.items if one.metadata.name.endswith(f".{home.namespace}")]


async def together(*calls: Awaitable[Any]) -> list[Any]:
    return list(await asyncio.gather(*calls))


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


async def test_an_unused_cell_falls_asleep_and_wakes_for_all_who_call_meanwhile(home: Home) -> None:
    await home.apply("sleeper")
    assert await home.answer("sleeper", "hello") == "hello"
    await home.until_hosts("sleeper", lambda hosts: hosts == 0)
    began = time.monotonic()
    answers = await together(*(home.answer("sleeper", f"call {number}") for number in range(10)))
    print(f"{home.kind}: from zero to ten answers: {time.monotonic() - began:.1f} s")
    assert answers == [f"call {number}" for number in range(10)]
    assert len(await home.hosts("sleeper")) >= 1


async def test_hosts_are_added_under_load_and_taken_away_after_it(home: Home) -> None:
    await home.apply("loaded", target=1, most=3)
    assert await home.answer("loaded", "hello") == "hello"
    long = f"sleep {20 if isinstance(home, Cluster) else 6}"  # a pod takes its time to come
    calls = [asyncio.create_task(home.answer("loaded", long)) for _ in range(3)]
    await home.until_hosts("loaded", lambda hosts: hosts >= 2)
    assert await together(*calls) == [long] * 3
    assert len(await home.hosts("loaded")) <= 3
    if isinstance(home, Cluster):  # whose window is short; a machine's is a minute, and simulated elsewhere
        await home.until_hosts("loaded", lambda hosts: hosts == 0)


async def test_a_call_that_takes_too_long_is_ended_and_costs_nothing_else(home: Home) -> None:
    await home.apply("late")
    assert await home.answer("late", "hello") == "hello"
    (status, body), other = await together(home.call("late", "sleep 60", deadline=1.0), home.answer("late", "sleep 2"))
    assert (status, body["code"], other) == (504, "deadline-exceeded", "sleep 2")


async def test_a_host_that_dies_is_named_and_replaced(home: Home) -> None:
    await home.apply("mortal")
    assert await home.answer("mortal", "hello") == "hello"
    status, body = await home.call("mortal", "die")
    assert (status, body["code"]) == (502, "host-failed")
    assert await home.answer("mortal", "hello again") == "hello again", "no other call breaks with it"


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
    await home.apply("drained")
    assert await home.answer("drained", "hello") == "hello"
    running = asyncio.create_task(home.answer("drained", "sleep 8"))
    await asyncio.sleep(2)
    (host,) = await home.hosts("drained")
    await home.api.delete(PODS, home.cells, host)
    assert await running == "sleep 8"


async def test_a_new_revision_of_a_cell_takes_over_without_a_failed_call(home: Home) -> None:
    if not isinstance(home, Cluster):
        pytest.skip("a machine's cells have no revisions")
    await home.apply("steady", most=2)
    assert await home.answer("steady", "hello") == "hello"
    before = set(await home.hosts("steady"))
    done = asyncio.Event()

    async def calling() -> list[tuple[int, Any]]:
        answers = []
        while not done.is_set():
            answers.append(await home.call("steady", "sleep 0.2"))
        return answers

    callers = [asyncio.create_task(calling()) for _ in range(3)]
    name = names.service_name(await home.cell("steady"), "function")
    generation = (await home.api.get(KNATIVE_SERVICES, home.cells, name)).metadata.generation
    await home.install(threads=9)  # another environment of every cell, and the control plane anew

    async def moved() -> bool:
        service = await home.api.get(KNATIVE_SERVICES, home.cells, name)
        newest = service.status.latest_created_revision_name
        serving = {part.revision_name for part in service.status.traffic if part.percent}
        return (
            service.metadata.generation > generation
            and serving == {newest}
            and not before & set(await home.hosts("steady"))
        )

    async with asyncio.timeout(PATIENCE):
        while not await moved():  # noqa: ASYNC110
            await asyncio.sleep(0.5)
    done.set()
    answers = [answer for found in await together(*callers) for answer in found]
    failed = [body for status, body in answers if status != 200]
    print(f"{home.kind}: {len(answers)} calls while a revision took over, {len(failed)} failed")
    assert answers and not failed
