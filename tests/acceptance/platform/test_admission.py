"""The admission webhook in a real cluster: the API server asks it, believes it, and does without it.

Needs what `test_homes` needs of a cluster (`CHIMERA_TEST_KUBECONFIG`, `CHIMERA_TEST_IMAGES`,
`CHIMERA_TEST_CLUSTER_DATABASE`), and no host's image. Every resource is sent as a dry run, so nothing is kept; the
webhook is asked all the same.
"""

import asyncio
import base64
import os
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import pytest_asyncio
from msgspec import Struct

from chimera.adapters.substrates.knative.access import from_kubeconfig
from chimera.adapters.substrates.knative.admission.keeper import CONFIGURATIONS, SECRETS
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterRefused, NotInCluster
from chimera.adapters.substrates.knative.installation import Installation
from chimera.adapters.substrates.knative.installer import DEPLOYMENTS, install, wait
from chimera.adapters.substrates.knative.objects import PODS, Meta, Resource
from chimera.adapters.substrates.knative.resources.crds import GROUP, VERSION
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.adapters.substrates.knative.uninstaller import uninstall
from chimera.agents.errors import InvalidDefinition
from chimera.agents.validate import check_text
from chimera.kernel.clock import SystemClock
from chimera.testing.definitions import definition

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

PATIENCE = 120.0
NEEDED = ("CHIMERA_TEST_KUBECONFIG", "CHIMERA_TEST_IMAGES", "CHIMERA_TEST_CLUSTER_DATABASE")
BROKEN = {
    "scaling": {"min_instances": 5, "max_instances": 2},
    "capabilities": {"integration_points": ["tool:search"]},
}


class Anything(Struct, frozen=True, kw_only=True):
    metadata: Meta = Meta()


AGENTS = Resource(GROUP, VERSION, "agents", "Agent", Anything)


class Rig:
    def __init__(self, api: Kubernetes, chosen: Installation) -> None:
        self.api, self.chosen = api, chosen

    def agent(self, **changes: Any) -> dict[str, Any]:
        meta = {"name": "one", "namespace": self.chosen.namespace}
        return {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "Agent",
            "metadata": meta,
            "spec": definition("one", **changes),
        }

    async def refused(self) -> str | None:
        """What the cluster says of a broken agent; None where it would keep it."""
        try:
            await self.api.apply(AGENTS, self.agent(**BROKEN), dry_run=True)
        except ClusterRefused as error:
            return error.detail
        return None

    async def until(self, *, refused: bool) -> float:
        """Wait until broken agents are refused, or let in; how long it took."""
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            while (await self.refused() is not None) is not refused:  # noqa: ASYNC110 - it happens elsewhere
                await asyncio.sleep(0.5)
        return time.monotonic() - began

    async def control_planes(self) -> dict[str, str]:
        chosen = "app.kubernetes.io/name=chimera,app.kubernetes.io/component=control-plane"
        listing = await self.api.list(PODS, self.chosen.namespace, chosen)
        return {one.metadata.name: one.metadata.uid for one in listing.items if one.metadata.deletion_timestamp is None}

    async def authority(self) -> str:
        secret = await self.api.get(SECRETS, self.chosen.namespace, "chimera-admission")
        return base64.b64decode(secret.data.get("ca.crt", "")).decode()

    async def replicas(self, count: int) -> None:
        name = "chimera-control-plane"
        manifest = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": self.chosen.namespace},
            "spec": {"replicas": count},
        }
        await self.api.apply(DEPLOYMENTS, manifest, force=True, manager="test")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig() -> AsyncIterator[Rig]:
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        pytest.skip(f"no cluster: {', '.join(missing)} not set")
    api = Kubernetes(from_kubeconfig(Path(os.environ["CHIMERA_TEST_KUBECONFIG"]), SystemClock()))
    name = f"chimera-test-{uuid4().hex[:8]}"
    chosen = Installation(
        knative=KnativeSettings(namespace=f"{name}-cells"),
        database=os.environ["CHIMERA_TEST_CLUSTER_DATABASE"],
        database_secret=None,
        image=os.environ["CHIMERA_TEST_IMAGES"].replace("{name}", "chimera-platform"),
        namespace=name,
        replicas=1,
        models={"default": {"provider": "scripted"}},
    )
    await install(api, chosen, lambda _: None)
    assert not await wait(api, chosen, PATIENCE)
    yield Rig(api, chosen)
    await uninstall(api, chosen, lambda _: None, seconds=PATIENCE)
    with pytest.raises(NotInCluster):
        await api.get(CONFIGURATIONS, None, f"chimera.{name}")
    await api.aclose()


async def test_a_broken_agent_is_refused_in_the_words_of_validate(rig: Rig) -> None:
    print(f"broken agents are refused {await rig.until(refused=True):.1f} s after the platform runs")
    told = await rig.refused()
    assert told is not None
    with pytest.raises(InvalidDefinition) as caught:
        check_text(msgspec.json.encode(definition("one", **BROKEN)).decode())
    assert len(caught.value.faults) == 2
    for fault in caught.value.faults:
        assert f"- spec.{msgspec.structs.replace(fault, line=None, column=None)}" in told.splitlines()
    assert f"next: {caught.value.next_step}" in told


async def test_kubectl_prints_all_of_it(rig: Rig, tmp_path: Path) -> None:
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("there is no kubectl")
    file = tmp_path / "broken.yaml"
    file.write_bytes(msgspec.json.encode(rig.agent(**BROKEN)))
    process = await asyncio.create_subprocess_exec(
        *(kubectl, "--kubeconfig", os.environ["CHIMERA_TEST_KUBECONFIG"], "apply", "--dry-run=server", "-f", str(file)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed = (await process.communicate())[0].decode()
    assert process.returncode == 1
    assert 'admission webhook "agents.chimera.ecosystem" denied the request: The definition is not valid' in printed
    assert "- spec.scaling.min_instances: more than max_instances" in printed.splitlines()
    assert "next: correct the places named; `chimera validate` checks a file" in printed.splitlines()


async def test_a_good_agent_is_taken(rig: Rig) -> None:
    await rig.api.apply(AGENTS, rig.agent(), dry_run=True)
    without_name = rig.agent()
    del without_name["spec"]["metadata"]["name"]
    await rig.api.apply(AGENTS, without_name, dry_run=True)


async def test_another_certificate_is_believed_without_a_restart(rig: Rig) -> None:
    before, authority = await rig.control_planes(), await rig.authority()
    meta = {"name": "chimera-admission", "namespace": rig.chosen.namespace}
    nothing = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"tls.crt": "", "ca.crt": ""}}
    await rig.api.apply(SECRETS, nothing, force=True, manager="test")
    async with asyncio.timeout(PATIENCE):
        while await rig.authority() in ("", authority):  # noqa: ASYNC110 - it happens elsewhere
            await asyncio.sleep(0.2)
    print(f"refused again {await rig.until(refused=True):.1f} s after the certificate was lost")
    assert await rig.control_planes() == before


async def test_without_anybody_to_ask_agents_are_kept_unasked_and_later_asked_about_again(rig: Rig) -> None:
    await rig.replicas(0)
    await rig.until(refused=False)
    assert await rig.refused() is None
    await rig.replicas(1)
    await rig.until(refused=True)
