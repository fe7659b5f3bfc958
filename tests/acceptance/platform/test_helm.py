"""The chart on a real cluster: installed, reached, called, upgraded and taken out by Helm.

Wants what `test_homes.py` wants of a cluster, and `helm` (`make chart-tools`, or on the path). That the chart gives
what `chimera install` applies is held by `tests/unit/deploy`; here Helm applies it, with labels of its own.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.admission.manifests import configuration_name
from chimera.adapters.substrates.knative.errors import NotInCluster
from chimera.adapters.substrates.knative.installer import DEPLOYMENTS, KINDS, NAMESPACES, Deployment, read_key
from chimera.adapters.substrates.knative.objects import PODS
from chimera.adapters.substrates.knative.resources.crds import definitions

from .homes import NEEDED, PATIENCE, Cluster

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "chimera"
CRDS = KINDS["CustomResourceDefinition"]
CONFIGURATIONS = KINDS["ValidatingWebhookConfiguration"]
DEFINITIONS = [one["metadata"]["name"] for one in definitions()]
RELEASE = "chimera"


class Released(Cluster):
    """A cluster into which Helm installs."""

    def __init__(self, folder: Path, kubeconfig: str, helm: str) -> None:
        super().__init__(folder, kubeconfig)
        self._helm = helm
        self.releases = f"{self.namespace}-releases"
        self.had_kinds = False

    async def helm(self, *words: str) -> str:
        """One command of Helm, which must succeed; what it printed."""
        kept = {f"HELM_{name}_HOME": str(self.folder / "helm") for name in ("CACHE", "CONFIG", "DATA")}
        process = await asyncio.create_subprocess_exec(
            *(self._helm, *words, "--namespace", self.releases),
            env={**os.environ, **kept, "KUBECONFIG": self.kubeconfig},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, wrong = await process.communicate()
        assert process.returncode == 0, (output + wrong).decode()
        return output.decode()

    async def release(self) -> str:
        """Install the chart; the notes that it leaves."""
        self.had_kinds = any([await self.is_there(CRDS, name) for name in DEFINITIONS])
        values = {
            "namespace": self.namespace,
            "database": os.environ["CHIMERA_TEST_CLUSTER_DATABASE"],
            "database_secret": "",
            "image": self.images.replace("{name}", "chimera-platform"),
            "replicas": 1,
            "models": {"default": {"provider": "scripted"}},
            "knative": {
                "namespace": self.cells,
                "image": self.images.replace("{name}", "chimera-host-{framework}"),
                "window": 6,
                "start_timeout": 60,
                "warm_pool": 0,
                "request_share": 0.05,
                "threads": 8,
            },
            # Helm takes nothing over that somebody else has made.
            "crds": {"install": not self.had_kinds},
        }
        file = self.folder / "values.yaml"
        file.write_text(yaml.safe_dump(values))
        chosen = ("--create-namespace", "--values", str(file), "--wait", "--timeout", f"{PATIENCE:.0f}s")
        return await self.helm("install", RELEASE, str(CHART), *chosen)

    async def status(self) -> dict[str, Any]:
        (found,) = json.loads(await self.helm("list", "--all", "--output", "json"))
        return dict(found)

    async def deployments(self) -> dict[str, Deployment]:
        return {one.metadata.name: one for one in (await self.api.list(DEPLOYMENTS, self.namespace)).items}

    async def is_there(self, kind: Any, name: str) -> bool:
        try:
            await self.api.get(kind, None, name)
        except NotInCluster:
            return False
        return True

    async def leave(self) -> None:
        """End the way to it; and where a test has failed, take out what is left."""
        if self.way is not None:
            if self.way.returncode is None:
                self.way.terminate()
            assert await self.way.wait() == 0
        if json.loads(await self.helm("list", "--all", "--output", "json")):
            await self.helm("uninstall", RELEASE)
        await self.api.delete(NAMESPACES, None, self.releases)
        if not self.had_kinds:
            for name in DEFINITIONS:
                await self.api.delete(CRDS, None, name)
        await self.api.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Released]:
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        pytest.skip(f"no cluster: {', '.join(missing)} not set")
    folders = (ROOT / ".tools" / "go", *map(Path, os.get_exec_path()))
    helm = next((str(folder / "helm") for folder in folders if (folder / "helm").is_file()), None)
    if helm is None:
        pytest.skip("there is no helm: `make chart-tools` installs it")
    made = Released(tmp_path_factory.mktemp("home"), os.environ["CHIMERA_TEST_KUBECONFIG"], helm)
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as made.session:
        yield made
    await made.leave()


async def test_helm_installs_what_runs(world: Released) -> None:
    notes = await world.release()
    assert f"kubectl -n {world.namespace} get secret chimera-keys" in notes
    assert (await world.status())["status"] == "deployed"
    found = await world.deployments()
    assert found.keys() == {"chimera-control-plane", "chimera-gateway", "chimera-operator"}
    assert all(one.done for one in found.values())
    assert {one.metadata.labels[names.MANAGED_BY] for one in found.values()} == {"Helm"}, "which writes over ours"


async def test_it_is_found_and_an_agent_answers(world: Released) -> None:
    await world.connect()
    assert json.loads((world.home / "run" / "endpoint.json").read_text())["installed"] is False
    await world.apply("told")
    assert await world.answer("told", "hello") == "hello"


async def test_an_upgrade_keeps_the_keys(world: Released) -> None:
    before = {name: one.metadata.generation for name, one in (await world.deployments()).items()}
    chosen = ("--reuse-values", "--set", "revision=again", "--wait", "--timeout", f"{PATIENCE:.0f}s")
    await world.helm("upgrade", RELEASE, str(CHART), *chosen)
    after = await world.deployments()
    assert all(one.done and one.metadata.generation > before[name] for name, one in after.items())
    assert await read_key(world.api, world.namespace) == world.key
    assert await world.answer("told", "hello again") == "hello again"


async def test_helm_takes_it_out_and_leaves_the_kinds_alone(world: Released) -> None:
    await world.forget()
    async with asyncio.timeout(PATIENCE):  # a namespace in which pods still end goes minutes later
        while (await world.api.list(PODS, world.cells)).items:  # noqa: ASYNC110 - it happens elsewhere
            await asyncio.sleep(0.5)
    await world.helm("uninstall", RELEASE, "--wait", "--timeout", f"{PATIENCE:.0f}s")
    async with asyncio.timeout(PATIENCE):
        for name in (world.namespace, world.cells):
            while await world.is_there(NAMESPACES, name):  # noqa: ASYNC110 - it happens elsewhere
                await asyncio.sleep(0.5)
    assert not await world.is_there(CONFIGURATIONS, configuration_name(world.namespace))
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        listing = await world.api.list(KINDS[kind], None, names.parts())
        assert not [one for one in listing.items if one.metadata.name.endswith(f".{world.namespace}")]
    kept = [await world.is_there(CRDS, name) for name in DEFINITIONS]
    assert all(kept), "with them every Agent of the cluster would go"
