"""`chimera up --substrate knative`: installed or found, the other commands reach it from the home, and it goes on."""

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from chimera.adapters.substrates.knative import names
from chimera.testing.cluster import FakeCluster

CHIMERA = str(Path(sys.executable).with_name("chimera"))
PATIENCE = 60.0
KEY = "the-key-in-the-cluster"
GATEWAY = {names.MANAGED_BY: names.MANAGER, names.PART_OF: names.MANAGER, "app.kubernetes.io/name": "chimera"}


class World:
    """A fake cluster, gateways on this machine that stand for its pods, and a home."""

    def __init__(self, cluster: FakeCluster, home: Path) -> None:
        self.cluster = cluster
        self.home = home
        self.kubeconfig = home.parent / "kubeconfig"
        self.asked: list[tuple[str, str, str]] = []
        self._runners: list[web.ServerRunner] = []
        context = {"name": "c", "context": {"cluster": "c"}}
        known = {"clusters": [{"name": "c", "cluster": {"server": cluster.url}}], "contexts": [context], "users": []}
        self.kubeconfig.write_text(yaml.safe_dump({**known, "current-context": "c"}))

    def settings(self) -> None:
        """A home from which the platform can be installed."""
        self.home.mkdir()
        (self.home / "settings.toml").write_text(
            '[node]\ndatabase = "postgresql://chimera@db.example/chimera"\n[model.default]\nprovider = "scripted"\n'
        )

    async def gateway(self, pod: str) -> str:
        """A ready pod whose gateway answers with its name; its address on this machine."""

        async def answer(request: web.BaseRequest) -> web.Response:
            self.asked.append((pod, request.path, request.headers.get("Authorization", "")))
            return web.json_response([] if request.path == "/v1/cells" else {"agents": 0, "pod": pod})

        runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._runners.append(runner)
        port: int = runner.addresses[0][1]
        labels = {**GATEWAY, "app.kubernetes.io/component": "gateway"}
        meta = {"name": pod, "namespace": "chimera", "labels": labels}
        ready = [{"type": "Ready", "status": "True"}]
        self.cluster.ports[pod, 8080] = port
        await self.cluster.put("pods", {"metadata": meta, "status": {"phase": "Running", "conditions": ready}})
        return f"http://127.0.0.1:{port}"

    async def installed(self) -> None:
        """The platform as it is in a cluster that has it."""
        for name in ("chimera-gateway", "chimera-control-plane"):
            by_helm = {**GATEWAY, names.MANAGED_BY: "Helm"}  # whoever installed it, it is found
            await self.deployed({"metadata": {"name": name, "namespace": "chimera", "labels": by_helm}})
        await self.cluster.put("secrets", {"metadata": {"name": "chimera-keys", "namespace": "chimera"}, **kept_key()})

    async def deployed(self, deployment: dict[str, Any]) -> None:
        done = {"observedGeneration": 9, "updatedReplicas": 1, "availableReplicas": 1, "replicas": 1}
        await self.cluster.put("deployments", {**deployment, "spec": {"replicas": 1}, "status": done})

    @asynccontextmanager
    async def up(self, *options: str) -> AsyncIterator[dict[str, Any]]:
        """`chimera up` until the block ends; where it is."""
        process = await self._start("up", "--substrate", "knative", "--output", "json", *self._place(), *options)
        try:
            assert process.stdout is not None
            async with asyncio.timeout(PATIENCE):
                said = b""
                while b"\n}" not in said:
                    line = await process.stdout.readline()
                    assert line, said
                    said += line
            yield json.loads(said)
        finally:
            # With an address it ends by itself, and a signal on its way out would count as its end.
            if process.returncode is None and "--address" not in options:
                process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                assert await process.wait() == 0

    async def run(self, *arguments: str) -> tuple[int, str]:
        """A command; its exit code and all that it said."""
        process = await self._start(*arguments)
        async with asyncio.timeout(PATIENCE):
            said, wrong = await process.communicate()
        return process.returncode or 0, (said + wrong).decode()

    async def refused(self, *options: str) -> tuple[int, str]:
        return await self.run("up", "--substrate", "knative", *self._place(), *options)

    async def stopped(self, when: Callable[[], bool]) -> tuple[int, str]:
        """What `chimera up` runs, told to stop once the cluster is so; its exit code and what it said."""
        process = await self._run(
            sys.executable, "-m", "chimera.bootstrap.reach", "--home", str(self.home), *self._place()
        )
        async with asyncio.timeout(PATIENCE):
            while not when():  # noqa: ASYNC110 - what is waited for happens in another process
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            _, said = await process.communicate()
        return process.returncode or 0, said.decode()

    def _place(self) -> list[str]:
        return ["--kubeconfig", str(self.kubeconfig), "--port", "0", "--wait", "20"]

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await self._run(CHIMERA, "--home", str(self.home), *arguments)

    async def _run(self, *command: str) -> asyncio.subprocess.Process:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("CHIMERA_")}
        return await asyncio.create_subprocess_exec(
            *command,
            env={**environ, "KUBECONFIG": ""},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def aclose(self) -> None:
        for runner in self._runners:
            await runner.cleanup()


def kept_key() -> dict[str, Any]:
    return {"data": {"chimera.key": base64.b64encode(KEY.encode()).decode()}}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeCluster() as cluster:
        made = World(cluster, tmp_path / "home")
        yield made
        await made.aclose()


async def test_what_is_there_is_reached_from_the_home_until_it_ends_and_is_left_as_it_is(world: World) -> None:
    await world.installed()
    await world.gateway("gateway-a")
    endpoint = world.home / "run" / "endpoint.json"
    async with world.up() as where:
        assert (where["installed"], where["namespace"], where["cluster"]) == (False, "chimera", world.cluster.url)
        assert endpoint.stat().st_mode & 0o077 == (world.home / "run" / "cluster.key").stat().st_mode & 0o077 == 0
        code, said = await world.run("get", "cells", "--output", "json")
        assert (code, said.strip()) == (0, "[]")
        assert world.asked[-1] == ("gateway-a", "/v1/cells", f"Bearer {KEY}")
        code, said = await world.refused()
        assert code == 1 and "runs already" in said
    assert not endpoint.exists() and not (world.home / "run" / "cluster.key").exists()
    code, said = await world.run("get", "cells")
    assert code == 69 and "nothing runs" in said
    assert world.cluster.writes() == 0, "who looks at a cluster changes nothing in it"


async def test_a_gateway_that_goes_is_changed_for_another(world: World) -> None:
    await world.installed()
    await world.gateway("gateway-a")
    async with world.up():
        await world.run("get", "cells")
        await world.gateway("gateway-b")
        await world.cluster.remove("pods", "chimera", "gateway-a")
        assert (await world.run("get", "cells"))[0] == 0
    assert {pod for pod, path, _ in world.asked if path == "/v1/cells"} == {"gateway-a", "gateway-b"}


async def test_what_has_an_address_stays_reached_without_a_process(world: World) -> None:
    await world.installed()
    url = await world.gateway("gateway-a")
    async with world.up("--address", url + "/") as where:
        assert where["public"] == url
    assert (await world.run("get", "cells"))[0] == 0
    assert world.asked[-1] == ("gateway-a", "/v1/cells", f"Bearer {KEY}")


async def test_where_it_is_not_installed_it_is_and_waited_for(world: World) -> None:
    world.settings()
    await world.gateway("gateway-a")

    async def controllers() -> None:
        done: set[str] = set()
        while True:
            await asyncio.sleep(0.05)
            for one in world.cluster.objects("deployments"):
                if one["metadata"]["name"] not in done:
                    done.add(one["metadata"]["name"])
                    await world.deployed(one)
            for plural in ("brokers", "triggers"):
                for one in world.cluster.objects(plural, lambda one: "status" not in one):
                    ready = [{"type": "Ready", "status": "True"}]
                    await world.cluster.put(plural, {**one, "status": {"observedGeneration": 9, "conditions": ready}})
            for one in world.cluster.objects("secrets"):
                if "data" not in one:  # what is written as text, the API server keeps in base64
                    await world.cluster.put("secrets", {**one, **kept_key()})

    playing = asyncio.create_task(controllers())
    try:
        async with world.up("--image", "registry.example/platform:1", "--replicas", "1") as where:
            assert where["installed"] is True
            assert (await world.run("get", "cells"))[0] == 0
    finally:
        playing.cancel()
    images = {
        one["spec"]["template"]["spec"]["containers"][0]["image"]
        for one in world.cluster.objects("deployments")
        if "template" in one["spec"]
    }
    assert images <= {"registry.example/platform:1"}
    assert {one["metadata"]["name"] for one in world.cluster.objects("deployments")} >= {"chimera-gateway"}


async def test_what_is_not_installed_wants_a_database_first(world: World) -> None:
    code, said = await world.refused()
    assert code == 78 and "node.database" in said
    assert world.cluster.writes() == 0


async def test_where_cells_would_be_anothers_nothing_is_installed_whatever_is_said(world: World) -> None:
    world.home.mkdir()
    (world.home / "settings.toml").write_text('[node]\ndatabase = "postgresql://chimera@db.example/chimera"\n')
    labels = {names.MANAGED_BY: names.MANAGER, names.PART_OF: names.MANAGER, names.CELLS_OF: "chimera"}
    await world.cluster.put("namespaces", {"metadata": {"name": "chimera-cells", "labels": labels}})
    place = ("--substrate", "knative", "--kubeconfig", str(world.kubeconfig), "--namespace", "staging")
    for words in (("up", *place, "--port", "0"), ("install", *place, "--yes")):
        code, said = await world.run(*words)
        assert code == 1 and "the namespace chimera-cells has cells of the installation in chimera" in said
        assert "`knative.namespace`" in said, "it says what to set"
    assert world.cluster.writes() == 0


async def test_an_address_that_leads_nowhere_is_said_and_left_out(world: World) -> None:
    await world.installed()
    code, said = await world.refused("--address", "http://127.0.0.1:9", "--wait", "1")
    assert code == 75 and "does not answer" in said
    assert not (world.home / "run" / "endpoint.json").exists()


async def test_who_stops_it_while_what_was_installed_comes_up_is_told_what_is_left(world: World) -> None:
    world.settings()
    # No controller plays here: what was installed never comes up, and is waited for after the last of it was applied.
    code, said = await world.stopped(lambda: world.cluster.calls["GET", "deployments"] > 1)
    assert code == 75, said
    assert "goes on" in said and "`chimera uninstall --substrate knative --namespace chimera`" in said
    assert world.cluster.objects("deployments"), "it is left as it is"
    assert not (world.home / "run" / "endpoint.json").exists()


async def test_who_stops_it_in_the_midst_of_installing_is_told_how_to_complete_it(world: World) -> None:
    world.settings()
    held = asyncio.Event()

    class Held(web.StreamResponse):
        async def prepare(self, request: web.BaseRequest) -> None:
            held.set()
            await asyncio.Event().wait()

    world.cluster.faults.append(
        lambda request: Held() if request.method == "PATCH" and "/deployments/" in request.path else None
    )
    code, said = await world.stopped(held.is_set)
    assert code == 75, said
    assert "`chimera install --substrate knative --namespace chimera`" in said and "uninstall" in said


async def test_who_stops_it_while_it_waits_for_what_is_there_is_told_that_nothing_was_changed(world: World) -> None:
    labels = {**GATEWAY, names.MANAGED_BY: "Helm"}
    await world.cluster.put(
        "deployments",
        {
            "metadata": {"name": "chimera-gateway", "namespace": "chimera", "labels": labels},
            "spec": {"replicas": 1},
            "status": {"observedGeneration": 9, "availableReplicas": 0, "replicas": 1},
        },
    )
    code, said = await world.stopped(lambda: world.cluster.calls["GET", "deployments"] > 1)
    assert code == 75, said
    assert "nothing was changed" in said and "uninstall" not in said
    assert world.cluster.writes() == 0
