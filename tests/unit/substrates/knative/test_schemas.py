"""Manifests against the schemas of Kubernetes: of the oldest release that is supported, and of newer ones.

A Knative Service has no schema there; the pod that it stands for has. Knative's own schema and webhooks judge on a real
cluster (`tests/contract/cluster/test_real.py`).
"""

import copy
from typing import Any

import kubernetes_validate
import pytest

from chimera.adapters.substrates.knative.installation import Installation, keys, manifests
from chimera.adapters.substrates.knative.render import HostBounds, render
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.platform.cells import STANDARD, cell_id
from chimera.platform.model import CellSpec, RuntimeClass

RELEASES = ("1.28", "1.34", "1.37")
SETTINGS = KnativeSettings(runtime_class="gvisor", priority_class="agents", spread=True, pull_secrets=("pull",))
CHOSEN = Installation(knative=SETTINGS, database="postgresql://chimera@db.example/chimera")


def pod() -> dict[str, Any]:
    """The pod that a cell's revision stands for; Knative adds the port that probes ask."""
    runtime = RuntimeClass(
        tenant="default", framework="langgraph", runtime="python", isolation="tenant:default", resources=STANDARD
    )
    template = render(CellSpec(cell=cell_id(runtime), runtime_class=runtime), SETTINGS, HostBounds())["spec"][
        "template"
    ]
    spec = copy.deepcopy(template["spec"])
    del spec["containerConcurrency"], spec["timeoutSeconds"]
    for probe in ("readinessProbe", "livenessProbe"):
        spec["containers"][0][probe]["httpGet"]["port"] = 8080
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "host", **template["metadata"]}, "spec": spec}


def named() -> list[tuple[str, dict[str, Any]]]:
    everything = [*manifests(CHOSEN), keys(CHOSEN, {"chimera.key": "k"}), pod()]
    return [(f"{one['kind']}-{one['metadata']['name']}", one) for one in everything]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("manifest", [one for _, one in named()], ids=[name for name, _ in named()])
def test_a_manifest_is_valid(manifest: dict[str, Any], release: str) -> None:
    kubernetes_validate.validate(manifest, release, strict=True)


@pytest.mark.parametrize("release", RELEASES)
def test_what_is_not_valid_is_refused_so_the_schemas_are_there(release: str) -> None:
    wrong = pod()
    wrong["spec"]["containers"][0]["nonsense"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="nonsense"):
        kubernetes_validate.validate(wrong, release, strict=True)
