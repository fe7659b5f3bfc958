"""What agents bring of their own, in both homes: TypeScript, an image, a function that runs elsewhere.

In a cluster `CHIMERA_TEST_IMAGES` must have chimera-host-node too, and `CHIMERA_TEST_CUSTOM_IMAGE` name an image made
from `examples/image`. `CHIMERA_TEST_FUNCTION_IMAGE` names one of an exported agent, as `func build` would make it.
"""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from chimera.adapters.runtimes import Runtimes
from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.installer import NAMESPACES
from chimera.adapters.substrates.knative.objects import KNATIVE_SERVICES
from chimera.adapters.substrates.local import nodejs
from chimera.kernel.places import runtime_overrides, runtimes_folder
from chimera.platform.errors import RuntimeMissing

from .homes import PATIENCE, Cluster, Home

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

EXAMPLES = Path(__file__).parents[3] / "examples"
REMOTE = """
schema_version: ADaC v2.0
metadata: {{name: remote, version: 1.0.0, description: Stands for a function.}}
specification: {{framework: function}}
capabilities: {{primary_functions: [answer]}}
behaviour: {{function: {{endpoint: {{url: "{url}", format: cloudevents, timeout_seconds: 120}}}}}}
"""


async def test_an_agent_in_typescript_answers(home: Home) -> None:
    if not isinstance(home, Cluster):
        try:
            nodejs.look("", Runtimes(runtimes_folder(os.environ), runtime_overrides(os.environ)))
        except RuntimeMissing as error:
            pytest.skip(error.detail)
    await home.run("apply", str(EXAMPLES / "typescript"))
    status, body = await home.call("report-sorter", "there is smoke", session="desk")
    assert status == 200 and body["output"].startswith("now (1): "), body
    status, body = await home.call("report-sorter", "smoke again", session="desk")
    assert status == 200 and body["output"].startswith("now (2): "), body
    assert "report-sorter is loaded" in await home.run("logs", "report-sorter")


async def test_an_image_of_ones_own_runs_where_there_are_images(home: Home, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "image", tmp_path / "image")
    image = os.environ.get("CHIMERA_TEST_CUSTOM_IMAGE")
    if isinstance(home, Cluster):
        if image is None:
            pytest.skip("CHIMERA_TEST_CUSTOM_IMAGE is not set")
        definition = tmp_path / "image" / "agent.yaml"
        definition.write_text(definition.read_text().replace("registry.example/size-teller:1", image))
    await home.run("apply", str(tmp_path / "image"))
    status, body = await home.call("size-teller", "1048576")
    if isinstance(home, Cluster):
        assert (status, body["output"]) == (200, "1.0 MiB"), body
    else:
        assert (status, body["code"]) == (501, "not-servable") and "needs Kubernetes" in body["detail"]


async def test_cells_of_functions_are_what_func_looks_for(home: Home) -> None:
    if not isinstance(home, Cluster):
        pytest.skip("func looks in clusters")
    await home.apply("plain", code=False, shared=True)
    assert "hello" in await home.answer("plain", "hello")
    listing = await home.api.list(KNATIVE_SERVICES, home.cells, "function.knative.dev=true")
    assert names.service_name(await home.cell("plain"), "function") in {one.metadata.name for one in listing.items}


async def test_a_function_of_the_cluster_answers_as_an_agent(home: Home, tmp_path: Path) -> None:
    """An agent that was exported, deployed as func deploys it, and registered again; its model is another agent."""
    image = os.environ.get("CHIMERA_TEST_FUNCTION_IMAGE")
    if not isinstance(home, Cluster) or image is None:
        pytest.skip("no cluster, or CHIMERA_TEST_FUNCTION_IMAGE is not set")
    await home.apply("model", code=False, shared=True)
    assert "hello" in await home.answer("model", "hello")
    namespace = f"{home.namespace}-fn"
    environment = {
        "CHIMERA_MODEL_URL": f"http://chimera.{home.namespace}.svc.cluster.local:8080/v1",
        "CHIMERA_MODEL": "agent/model",
        "CHIMERA_MODEL_KEY": home.key,
    }
    container = {
        "image": image,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "readinessProbe": {"httpGet": {"path": "/health/readiness"}},
    }
    service = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": "exported",
            "namespace": namespace,
            "labels": {"function.knative.dev": "true", "networking.knative.dev/visibility": "cluster-local"},
        },
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    await home.api.apply(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    try:
        await home.api.apply(KNATIVE_SERVICES, service)
        async with asyncio.timeout(PATIENCE):
            while not _is_ready(await home.api.get(KNATIVE_SERVICES, namespace, "exported")):  # noqa: ASYNC110
                await asyncio.sleep(1)
        url = f"http://exported.{namespace}.svc.cluster.local/"
        (tmp_path / "remote.yaml").write_text(REMOTE.format(url=url))
        await home.run("apply", str(tmp_path / "remote.yaml"))
        assert "over there" in await home.answer("remote", "over there")
    finally:
        await home.api.delete(NAMESPACES, None, namespace)


def _is_ready(service: object) -> bool:
    conditions = getattr(getattr(service, "status", None), "conditions", ())
    return any(one.type == "Ready" and one.status == "True" for one in conditions)
