"""Platforms that something is done to, with an agent that answers any question."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# A killed gateway's work is taken over after so long; with the default of 15 s most of a test would be waiting.
SETTINGS = {
    "CHIMERA_STATE__HOLDER_LIFE": "2",
    "CHIMERA_TASKS__LEASE": "2",
    "CHIMERA_STATE__DEATHS": "10",
    "CHIMERA_AUDIT__CHECKPOINT_SECONDS": "1",
}
AGENT = """\
schema_version: "ADaC v2.0"
metadata: {name: steady, version: 1.0.0, description: Says it again}
specification: {framework: function}
capabilities: {primary_functions: [echo]}
"""


@pytest.fixture
def start(new_platform: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts a platform with the agent `steady`; the variables given go before those above."""
    made = []

    def starting(**environ: str) -> Any:
        made.append(new_platform(tmp_path / f"home{len(made)}", **{**SETTINGS, **environ}))
        made[-1].ok("apply", "-", text=AGENT)
        return made[-1]

    yield starting
    for one in made:
        assert one.stop() == 0


@pytest.fixture
def audit_is_whole() -> Callable[[Any], None]:
    """Fails unless the chain is whole and its next checkpoint, which is signed within seconds, agrees."""

    def verify(platform: Any) -> None:
        for _ in range(60):
            report = json.loads(platform.run("audit", "verify", "--output", "json").stdout)
            if report["ok"] and report["signed_through"]:
                return
            assert {finding["kind"] for finding in report["findings"]} <= {"unsigned"}, report
        raise AssertionError(f"no checkpoint was signed: {report}")

    return verify
