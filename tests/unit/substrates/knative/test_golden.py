"""Whole manifests, as they would be read by a person. `CHIMERA_TEST_GOLDEN=write pytest …` writes them anew."""

import os
from pathlib import Path

import pytest
import yaml

from chimera.adapters.substrates.knative.render import HostBounds, render
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.platform.cells import STANDARD, cell_id
from chimera.platform.model import CellSpec, ResourceClass, RuntimeClass

GOLDEN = Path(__file__).parent / "golden"


def declarative() -> tuple[CellSpec, KnativeSettings]:
    runtime = RuntimeClass(
        tenant="default", framework="langgraph", runtime="python", isolation="tenant:default", resources=STANDARD
    )
    return CellSpec(cell=cell_id(runtime), runtime_class=runtime), KnativeSettings()


def dedicated() -> tuple[CellSpec, KnativeSettings]:
    runtime = RuntimeClass(
        tenant="bank",
        framework="crewai",
        runtime="python",
        isolation="agent:bank/auditor",
        resources=ResourceClass(name="dedicated", cpu_millicores=500, memory_bytes=1024 * 1024**2),
    )
    cell = CellSpec(
        cell=cell_id(runtime), runtime_class=runtime, min_hosts=100, max_hosts=1000, target=4.0, idle_timeout=900.0
    )
    settings = KnativeSettings(
        image="registry.example/chimera-host-{framework}@sha256:0",
        pull_secrets=("registry",),
        runtime_class="gvisor",
        priority_class="chimera-agents",
        spread=True,
    )
    return cell, settings


def on_node() -> tuple[CellSpec, KnativeSettings]:
    runtime = RuntimeClass(
        tenant="default", framework="function", runtime="node", isolation="owner:default/desk", resources=STANDARD
    )
    return CellSpec(cell=cell_id(runtime), runtime_class=runtime), KnativeSettings()


@pytest.mark.parametrize("make", [declarative, dedicated, on_node])
def test_golden(make: object) -> None:
    cell, settings = make()  # type: ignore[operator]
    text = yaml.safe_dump(render(cell, settings, HostBounds()), sort_keys=False, width=120)
    file = GOLDEN / f"{make.__name__}.yaml"  # type: ignore[attr-defined]
    if os.environ.get("CHIMERA_TEST_GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()
