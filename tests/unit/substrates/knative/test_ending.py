"""How long the platform's pods may take to end, and who waits for it."""

import asyncio
import math
from typing import Any

import msgspec
import pytest

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.installation import Installation, manifests, told
from chimera.adapters.substrates.knative.installer import install
from chimera.adapters.substrates.knative.objects import PODS
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.adapters.substrates.knative.uninstaller import uninstall
from chimera.bootstrap.gateway_config import GatewayConfig, load_settings
from chimera.testing.cluster import FakeCluster

CHOSEN = Installation(
    knative=KnativeSettings(namespace="agents"),
    database="postgresql://chimera@db.example/chimera",
    namespace="platform",
)


@pytest.mark.parametrize(
    ("http", "pause", "drain"),
    [({}, 8.0, 180.0), ({"drain": 595.5}, 8.0, 595.5), ({"drain_pause": 0.0, "drain": 20.0, "page": 10}, 0.0, 20.0)],
)
def test_a_gateways_grace_is_for_its_pause_and_its_calls_and_what_is_written_down_then(
    http: dict[str, Any], pause: float, drain: float
) -> None:
    chosen = msgspec.structs.replace(CHOSEN, settings={"http": http})
    there = load_settings(msgspec.json.decode(msgspec.json.encode(told(chosen)["gateway"]), type=GatewayConfig)).http
    assert (there.drain_pause, there.drain) == (pause, drain)
    graces = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        for one in manifests(chosen)
        if one["kind"] == "Deployment"
    }
    assert graces.pop("chimera-gateway") == math.ceil(pause + drain + 15)
    assert set(graces.values()) == {60}, "nobody's calls wait for the others"


async def test_a_namespace_goes_when_its_pods_have_ended() -> None:
    """Kubernetes looks again only after half of their grace."""
    async with FakeCluster() as cluster:
        api = Kubernetes(ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default"))
        await install(api, CHOSEN, lambda _: None)
        meta = {"namespace": "platform", "name": "chimera-gateway-1", "labels": {names.PART_OF: names.MANAGER}}
        await cluster.put("pods", {"metadata": meta, "spec": {}, "status": {}})
        told_to_end = asyncio.Event()

        def say(line: str) -> None:
            if "chimera-gateway" in line:
                told_to_end.set()

        going = asyncio.create_task(uninstall(api, CHOSEN, say, seconds=60.0))
        await asyncio.wait_for(told_to_end.wait(), 30)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(going), 0.5)
        assert "platform" in {one["metadata"]["name"] for one in cluster.objects("namespaces")}
        await api.delete(PODS, "platform", "chimera-gateway-1")
        assert await asyncio.wait_for(going, 30) == []
        await api.aclose()
