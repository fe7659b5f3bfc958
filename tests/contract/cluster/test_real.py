"""What only a real cluster can show: its schemas, and its word on whose token it is (`CHIMERA_TEST_KUBECONFIG`)."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import yaml
from msgspec import Struct

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.access import from_kubeconfig
from chimera.adapters.substrates.knative.client import PATIENCE, Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterDenied, ClusterRefused, NotInCluster
from chimera.adapters.substrates.knative.identities import PodIdentities
from chimera.adapters.substrates.knative.installation import MADE, Installation
from chimera.adapters.substrates.knative.installer import KINDS, SECRETS, install
from chimera.adapters.substrates.knative.objects import ENDPOINT_SLICES, KNATIVE_SERVICES, PODS, Meta, Resource
from chimera.adapters.substrates.knative.render import HostBounds, render
from chimera.adapters.substrates.knative.resources.crds import definitions
from chimera.adapters.substrates.knative.rights import CONTROL_PLANE, GATEWAY
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.adapters.substrates.knative.uninstaller import uninstall
from chimera.gateway.errors import Unauthenticated
from chimera.kernel.clock import SystemClock
from chimera.platform.cells import STANDARD, cell_id
from chimera.platform.model import CellSpec, ResourceClass, RuntimeClass


class Anything(Struct, frozen=True, kw_only=True):
    metadata: Meta = Meta()


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", Anything, namespaced=False)
ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", Anything)


class Rig:
    def __init__(self, api: Kubernetes, namespace: str, kubeconfig: str) -> None:
        self.api = api
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self.settings = KnativeSettings(namespace=namespace)

    async def account(self, name: str) -> None:
        manifest = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": self.meta(name)}
        await self.api.apply(ACCOUNTS, manifest)

    async def pod(self, name: str, account: str, *, cell: str | None = "cell-1") -> str:
        """A pod that nothing runs, with a host's security context; its unique id."""
        (container,) = render(cell_spec(), self.settings, HostBounds())["spec"]["template"]["spec"]["containers"]
        container = {"name": "host", "image": "none:1", "securityContext": container["securityContext"]}
        host = {} if cell is None else {"annotations": {names.CELL: cell}, "labels": {names.MANAGED_BY: names.MANAGER}}
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**self.meta(name), **host},
            "spec": {
                "serviceAccountName": account,
                "automountServiceAccountToken": False,
                "nodeSelector": {"no-node": "has-this"},
                "containers": [container],
            },
        }
        return (await self.api.apply(PODS, manifest)).metadata.uid

    async def token(self, account: str, pod: str, uid: str, audience: str = "chimera") -> str:
        """What the kubelet would mount into the pod."""
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid}
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [audience], "expirationSeconds": 600, "boundObjectRef": bound},
        }
        answer = await self.api.create(ACCOUNTS.path(self.namespace, account) + "/token", asked)
        return str(msgspec.json.decode(answer)["status"]["token"])

    async def acting_as(self, namespace: str, account: str) -> Kubernetes:
        """A client that shows a token of this account."""
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 600},
        }
        answer = await self.api.create(ACCOUNTS.path(namespace, account) + "/token", asked)
        token = str(msgspec.json.decode(answer)["status"]["token"])
        without_certificate = yaml.safe_load(self.kubeconfig)
        for user in without_certificate["users"]:
            user["user"] = {"token": token}
        with NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(without_certificate, file)
            file.flush()
            return Kubernetes(from_kubeconfig(Path(file.name), SystemClock()))

    def meta(self, name: str) -> dict[str, Any]:
        return {"name": name, "namespace": self.namespace}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    if not (file := os.environ.get("CHIMERA_TEST_KUBECONFIG")):
        pytest.skip("CHIMERA_TEST_KUBECONFIG names no cluster")
    text = await asyncio.to_thread(Path(file).read_text)
    api = Kubernetes(from_kubeconfig(Path(file), SystemClock()), patience=PATIENCE)
    name = f"chimera-test-{uuid4().hex[:8]}"
    await api.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield Rig(api, name, text)
    await api.delete(NAMESPACES, None, name)
    await api.aclose()


def cell_spec(resources: ResourceClass = STANDARD, **changes: Any) -> CellSpec:
    runtime = RuntimeClass(
        tenant="default", framework="crewai", runtime="python", isolation="tenant:default", resources=resources
    )
    return CellSpec(cell=cell_id(runtime), runtime_class=runtime, **changes)


async def test_a_cell_is_taken_by_the_clusters_own_schema_and_webhooks(rig: Rig) -> None:
    dedicated = ResourceClass(name="dedicated", cpu_millicores=250, memory_bytes=512 * 1024**2)
    await rig.account(rig.settings.service_account)  # Knative tries the pod with it
    for spec in (cell_spec(), cell_spec(dedicated, min_hosts=2, max_hosts=1000, target=3.0, idle_timeout=86_400.0)):
        try:
            made = await rig.api.apply(KNATIVE_SERVICES, render(spec, rig.settings, HostBounds()), dry_run=True)
        except NotInCluster:
            pytest.skip("the cluster has no Knative Serving")
        assert made.metadata.annotations[names.CELL] == spec.cell


async def test_what_the_schema_does_not_know_is_refused_by_name(rig: Rig) -> None:
    manifest = render(cell_spec(), rig.settings, HostBounds())
    manifest["spec"]["template"]["spec"]["nonsense"] = True
    try:
        with pytest.raises(ClusterRefused, match="nonsense"):
            await rig.api.apply(KNATIVE_SERVICES, manifest, dry_run=True)
    except NotInCluster:
        pytest.skip("the cluster has no Knative Serving")


async def test_the_custom_resource_definitions_are_taken_as_structural(rig: Rig) -> None:
    for crd in definitions():
        made = await rig.api.apply(KINDS["CustomResourceDefinition"], crd, dry_run=True)
        assert made.metadata.name == crd["metadata"]["name"]


async def test_a_pod_is_known_by_the_token_that_is_bound_to_it_and_by_no_other(rig: Rig) -> None:
    identities = PodIdentities(rig.api, rig.settings)
    for account in ("chimera-host", "somebody"):
        await rig.account(account)
    uid = await rig.pod("pod-a", "chimera-host")
    known = await identities.identify(await rig.token("chimera-host", "pod-a", uid))
    assert (known.host, known.cell, known.unique) == ("pod-a", "cell-1", uid)

    other = await rig.pod("pod-b", "somebody")
    no_host = await rig.pod("pod-c", "chimera-host", cell=None)
    for token, words in (
        (await rig.token("chimera-host", "pod-a", uid, audience="somebody-else"), "audience"),
        (await rig.token("somebody", "pod-b", other), "not the service account"),
        (await rig.token("chimera-host", "pod-c", no_host), "no host of a cell"),
        ("no token at all", "doesn't know"),
    ):
        with pytest.raises(Unauthenticated, match=words):
            await identities.identify(token)


async def test_a_token_of_a_pod_that_is_gone_is_good_no_more(rig: Rig) -> None:
    identities = PodIdentities(rig.api, rig.settings)
    await rig.account("chimera-host")
    token = await rig.token("chimera-host", "pod-a", await rig.pod("pod-a", "chimera-host"))
    assert (await identities.identify(token)).host == "pod-a"
    await rig.api.delete(PODS, rig.namespace, "pod-a")
    again = await rig.pod("pod-a", "chimera-host")
    with pytest.raises(Unauthenticated):
        await identities.identify(token)
    assert again


async def test_an_installation_is_taken_and_its_rights_are_enough_and_no_more(rig: Rig) -> None:
    """Under the accounts of the processes themselves: all that they do is allowed, and what they don't do is not."""
    platform = f"{rig.namespace}-platform"
    chosen = Installation(
        knative=rig.settings, database="postgresql://chimera@127.0.0.1/chimera", namespace=platform, replicas=1
    )
    told: list[str] = []
    await install(rig.api, chosen, told.append)
    await install(rig.api, chosen, told.append)
    assert sum("made anew" in line for line in told) == len(MADE), "keys are made once"
    apis = {name: await rig.acting_as(platform, f"chimera-{name}") for name in (CONTROL_PLANE, GATEWAY)}
    try:
        control_plane, gateway = apis[CONTROL_PLANE], apis[GATEWAY]
        manifest = render(cell_spec(), rig.settings, HostBounds())
        try:
            await control_plane.apply(KNATIVE_SERVICES, manifest)
        except NotInCluster:
            pytest.skip("the cluster has no Knative Serving")
        listing = await control_plane.list(KNATIVE_SERVICES, rig.namespace, names.managed())
        assert [item.metadata.name for item in listing.items] == [manifest["metadata"]["name"]]
        assert await control_plane.delete(KNATIVE_SERVICES, rig.namespace, manifest["metadata"]["name"])
        for resource in (KNATIVE_SERVICES, ENDPOINT_SLICES):
            version = (await gateway.list(resource, rig.namespace)).version
            watch = gateway.watch(resource, rig.namespace, "", version)
            with suppress(TimeoutError):  # it is open: nothing happens, or what Knative still does; a refusal raises
                async with asyncio.timeout(0.5):
                    await anext(watch)
        uid = await rig.pod("pod-a", rig.settings.service_account)
        token = await rig.token(rig.settings.service_account, "pod-a", uid)
        assert (await PodIdentities(gateway, rig.settings).identify(token)).host == "pod-a"

        for api, resource, namespace in (
            (gateway, SECRETS, platform),
            (control_plane, SECRETS, platform),
            (control_plane, PODS, platform),
            (gateway, PODS, "default"),
            (control_plane, KNATIVE_SERVICES, "default"),
            (gateway, ENDPOINT_SLICES, "kube-system"),
        ):
            with pytest.raises(ClusterDenied):
                await api.list(resource, namespace)
        with pytest.raises(ClusterDenied):
            await gateway.delete(KNATIVE_SERVICES, rig.namespace, manifest["metadata"]["name"])
        with pytest.raises(ClusterDenied):
            await gateway.apply(KNATIVE_SERVICES, manifest)
    finally:
        for api in apis.values():
            await api.aclose()
        await uninstall(rig.api, chosen, told.append, seconds=0.0)
    with pytest.raises(NotInCluster):
        await rig.api.get(KINDS["ClusterRole"], None, f"chimera-gateway.{platform}")
