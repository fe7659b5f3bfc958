"""Where agents run, as tests of both homes see it: local processes, and Knative in a cluster (the fixture `home`).

The cluster is the one of `CHIMERA_TEST_KUBECONFIG`. `CHIMERA_TEST_IMAGES` names its images (`registry/{name}:tag`,
where `{name}` becomes chimera-platform and chimera-host-function, made by `make images`),
`CHIMERA_TEST_CLUSTER_DATABASE` an empty PostgreSQL database that its pods reach without a password. Without them, what
wants a cluster is skipped.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.access import from_kubeconfig
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import NotInCluster
from chimera.adapters.substrates.knative.installation import CONFIG, CONFIG_FOLDER
from chimera.adapters.substrates.knative.installer import KINDS, NAMESPACES
from chimera.adapters.substrates.knative.objects import KNATIVE_SERVICES, PODS, KnativeService
from chimera.kernel.clock import SystemClock

CHIMERA = str(Path(sys.executable).with_name("chimera"))
PATIENCE = 240.0
NEEDED = ("CHIMERA_TEST_KUBECONFIG", "CHIMERA_TEST_IMAGES", "CHIMERA_TEST_CLUSTER_DATABASE")
SCRIPT = "script.yaml"
CODE = """
import asyncio, os

kept = []

def make(context):
    async def answer(prompt, call):
        word, _, value = prompt.partition(" ")
        if word == "sleep":
            await asyncio.sleep(float(value))
        if word == "say":
            print(value)
        if word == "grow":
            kept.append(b"x" * (int(value) << 20))
            await asyncio.sleep(30)
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

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.home = home
        self._cells: dict[str, str] = {}

    async def run(self, *arguments: str, **environ: str) -> str:
        """One command of the command line, which must succeed; what it printed."""
        process = await self.start(*arguments, **environ)
        output, wrong = await process.communicate()
        assert process.returncode == 0, (output + wrong).decode()
        return output.decode()

    async def data(self, *arguments: str) -> Any:
        """What a command prints as JSON."""
        return json.loads(await self.run(*arguments, "--output", "json"))

    async def start(self, *arguments: str, **environ: str) -> asyncio.subprocess.Process:
        """A command that runs; it finds what it needs in the home."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CHIMERA_")}
        return await asyncio.create_subprocess_exec(
            *(CHIMERA, "--home", str(self.home), *arguments),
            env={**inherited, **environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

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

    async def have(self, name: str) -> None:
        """See to it that an agent is applied and answers, whichever test wants it first."""
        if not (self.folder / f"agent-{name}").exists():
            await self.apply(name)
        assert await self.answer(name, "hello") == "hello"

    async def change(self, name: str, code: str) -> None:
        """Apply an agent again with other code."""
        folder = self.folder / f"agent-{name}"
        (folder / "code" / "told.py").write_text(code)
        await self.run("apply", str(folder))

    async def get(self, path: str) -> Any:
        """What the API answers to a question."""
        async with self.session.get(self.url + path, headers={"Authorization": f"Bearer {self.key}"}) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

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
        if agent not in self._cells:
            self._cells[agent] = (await self.get(f"/v1/tenants/default/agents/{agent}"))["cell"]
        return self._cells[agent]

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
        super().__init__(folder, platform.home)
        self.platform = platform
        self.url, self.key = platform.url, platform.key

    async def hosts(self, agent: str) -> list[str]:
        rows = await self.get("/v1/hosts")
        cell = await self.cell(agent)
        return [row["host"] for row in rows if row["cell"] == cell and row["phase"] in ("starting", "ready")]

    async def kill_control_plane(self) -> None:
        await asyncio.to_thread(self.platform.kill, "control-plane")


class Cluster(Home):
    """Knative in a cluster, as `chimera install` puts it there."""

    kind = "knative"

    def __init__(self, folder: Path, kubeconfig: str) -> None:
        super().__init__(folder, folder)
        self.kubeconfig = kubeconfig
        self.api = Kubernetes(from_kubeconfig(Path(kubeconfig), SystemClock()))
        self.namespace = f"chimera-test-{uuid4().hex[:8]}"
        self.cells = f"{self.namespace}-cells"
        self.images = os.environ["CHIMERA_TEST_IMAGES"]
        self.way: asyncio.subprocess.Process | None = None
        self.made_before = False

    def place(self) -> list[str]:
        place = ["--substrate", "knative", "--kubeconfig", self.kubeconfig, "--namespace", self.namespace]
        return [*place, "--wait", str(PATIENCE)]

    async def install(
        self,
        *,
        threads: int = 8,
        hosts: str = "chimera-host-{framework}",
        start_timeout: int = 30,
        script: str = "",
        more: str = "",
        options: Sequence[str] = (),
    ) -> None:
        """Install it, or install it again with other settings.

        `script` is what the scripted model answers by, `more` are further groups of settings, `options` of the command.
        """
        settings = f"""
            [node]
            database = "{os.environ["CHIMERA_TEST_CLUSTER_DATABASE"]}"
            [knative]
            namespace = "{self.cells}"
            image = "{self.images.replace("{name}", hosts)}"
            node_image = "{self.images.replace("{name}", "chimera-host-node")}"
            window = 6
            start_timeout = {start_timeout}
            warm_pool = 0
            rollouts = 2
            rollout_hold = 10
            rollout_steps = [30, 100]
            rollout_pause = 3
            request_share = 0.05
            threads = {threads}
            [functions]
            allow = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
            [model.default]
            provider = "scripted"
            {f'script = "{CONFIG_FOLDER}/{SCRIPT}"' if script else ""}
            {more}
        """
        if script:
            await self._keep(script)
        (self.folder / "settings.toml").write_text("\n".join(line.strip() for line in settings.splitlines()))
        image = self.images.replace("{name}", "chimera-platform")
        await self.run("install", *self.place(), "--image", image, "--replicas", "1", "--database-secret", "", *options)

    async def _keep(self, script: str) -> None:
        """Put a script where gateways find their configuration: a file more, which the installation leaves alone."""
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        await self.api.apply(NAMESPACES, namespace, manager="tests")
        self.made_before = True
        meta = {"name": CONFIG, "namespace": self.namespace}
        kept = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {SCRIPT: script}}
        await self.api.apply(KINDS["ConfigMap"], kept, manager="tests")

    async def connect(self) -> None:
        """Have `chimera up` lead to what is installed, until it is removed."""
        self.way = await self.start("up", *self.place(), "--port", "0", "--output", "json")
        assert self.way.stdout is not None and self.way.stderr is not None
        said = b""
        async with asyncio.timeout(PATIENCE):
            while b"\n}" not in said:
                line = await self.way.stdout.readline()
                assert line, (said + await self.way.stderr.read()).decode()
                said += line
        self.url = json.loads(said)["public"]
        self.key = (self.home / "run" / "cluster.key").read_text().strip()

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

    async def remove_by_force(self, host: str) -> None:
        """Take a pod away without time to end."""
        options = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
        path = PODS.path(self.cells, host)
        await self.api._request("DELETE", path, None, msgspec.json.encode(options), "application/json")

    async def generations(self) -> dict[str, int]:
        """The generations of all cells' Knative Services, by name."""
        listing = await self.api.list(KNATIVE_SERVICES, self.cells, names.managed())
        return {one.metadata.name: one.metadata.generation for one in listing.items}

    async def until_moved(self, before: Mapping[str, int]) -> None:
        """Wait until each of these Services has a newer generation, all of whose calls go to its newest revision."""

        def moved(one: KnativeService) -> bool:
            newest = one.status.latest_created_revision_name
            serving = {part.revision_name for part in one.status.traffic if part.percent}
            seen = one.status.observed_generation == one.metadata.generation > before[one.metadata.name]
            return seen and serving == {newest} and one.status.latest_ready_revision_name == newest

        async with asyncio.timeout(2 * PATIENCE):  # many pods at once
            while True:
                listing = await self.api.list(KNATIVE_SERVICES, self.cells, names.managed())
                if all(moved(one) for one in listing.items if one.metadata.name in before):
                    return
                await asyncio.sleep(0.5)

    async def forget(self) -> None:
        """Delete all agents, so that whoever installs on the same database next begins with none."""
        url, headers = f"{self.url}/v1/tenants/default/agents", {"Authorization": f"Bearer {self.key}"}
        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session:
            while True:
                async with session.get(f"{url}?limit=1000") as answer:
                    found = [row["name"] for row in (await answer.json())["agents"]]
                if not found:
                    return
                async with session.post(f"{url}/delete", json={"names": found}) as answer:
                    assert answer.status == 200, await answer.text()

    async def remove(self) -> None:
        if self.way is not None:
            with suppress(AssertionError, KeyError, aiohttp.ClientError):  # a platform that failed is taken out, too
                await self.forget()
            self.way.terminate()
            assert await self.way.wait() == 0
        await self.run("uninstall", *self.place())
        if self.made_before:
            await self._remove_own()
        left = {one.metadata.name for one in (await self.api.list(NAMESPACES, None)).items}
        assert not left & {self.namespace, self.cells}
        for kind in ("ClusterRole", "ClusterRoleBinding"):
            listing = await self.api.list(KINDS[kind], None, names.managed())
            assert not [one for one in listing.items if one.metadata.name.endswith(f".{self.namespace}")]
        await self.api.aclose()

    async def _remove_own(self) -> None:
        """Take away the namespace that was there before the installation, in which nothing of it may be left."""
        meta = (await self.api.get(NAMESPACES, None, self.namespace)).metadata
        assert names.PART_OF not in meta.labels
        async with asyncio.timeout(PATIENCE):  # a Broker goes when its controller has let it go
            for kind in (one for one in KINDS.values() if one.namespaced):
                with suppress(NotInCluster):  # a kind that this cluster doesn't know
                    while (await self.api.list(kind, self.namespace, names.parts())).items:  # noqa: ASYNC110
                        await asyncio.sleep(0.5)
        await self.api.delete(NAMESPACES, None, self.namespace)
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self.api.get(NAMESPACES, None, self.namespace)
                except NotInCluster:
                    return
                await asyncio.sleep(0.5)


async def together(*calls: Awaitable[Any]) -> list[Any]:
    return list(await asyncio.gather(*calls))
