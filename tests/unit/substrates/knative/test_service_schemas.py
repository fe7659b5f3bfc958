"""Cells against Knative's own schema of a Service: of the oldest release that is supported, and of the one that is run.

`schemas/service-*.json` is `openAPIV3Schema` of `config/core/300-resources/service.yaml` in Knative Serving
(Apache-2.0) at v0.38.6 (1.11) and v0.48.0 (1.21), without descriptions. Closed here as an API server closes it for who
asks strictly, as this client does (`fieldValidation=Strict`). What its webhooks say more is for a real cluster.
"""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from chimera.adapters.substrates.knative.render import HostBounds, render
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.platform.cells import LARGE, STANDARD, cell_id
from chimera.platform.model import CellSpec, ResourceClass, RuntimeClass
from chimera.testing.schemas import strict

RELEASES = ("1.11", "1.21")
EVERYTHING = KnativeSettings(
    runtime_class="gvisor", priority_class="agents", spread=True, pull_secrets=("one", "two"), initial_scale=2
)
DEDICATED = ResourceClass(name="dedicated", cpu_millicores=250, memory_bytes=512 * 1024**2)


def schema(release: str) -> Any:
    return strict((Path(__file__).parent / "schemas" / f"service-{release}.json").read_bytes())


def cells() -> dict[str, dict[str, Any]]:
    found = {}
    for settings in (KnativeSettings(), EVERYTHING):
        for resources in (STANDARD, LARGE, DEDICATED):
            runtime = RuntimeClass(
                tenant="default",
                framework="crewai",
                runtime="python",
                isolation="tenant:default",
                resources=resources,
            )
            cell = CellSpec(cell=cell_id(runtime), runtime_class=runtime, min_hosts=3, max_hosts=1000)
            name = f"{resources.name}-{'everything' if settings is EVERYTHING else 'defaults'}"
            found[name] = render(cell, settings, HostBounds())
    return found


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("manifest", cells().values(), ids=cells())
def test_a_cell_is_a_service_of_every_release(manifest: dict[str, Any], release: str) -> None:
    jsonschema.Draft202012Validator(schema(release)).validate(json.loads(json.dumps(manifest)))


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    "path",
    [("spec",), ("spec", "template"), ("spec", "template", "spec"), ("spec", "template", "spec", "containers", 0)],
)
def test_a_field_that_knative_does_not_know_is_refused(path: tuple[str | int, ...], release: str) -> None:
    wrong = copy.deepcopy(cells()["standard-defaults"])
    place: Any = wrong
    for step in path:
        place = place[step]
    place["nonsense"] = True
    with pytest.raises(jsonschema.ValidationError, match="nonsense"):
        jsonschema.Draft202012Validator(schema(release)).validate(wrong)
