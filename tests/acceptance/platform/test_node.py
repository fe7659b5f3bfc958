"""Agents in JavaScript and TypeScript, used as their guide says; skipped where there is no supported Node.js."""

import os
import subprocess
from pathlib import Path

import pytest

from chimera.adapters.runtimes import Runtimes
from chimera.adapters.substrates.local import nodejs
from chimera.kernel.places import runtime_overrides, runtimes_folder
from chimera.platform.errors import RuntimeMissing

EXAMPLES = Path(__file__).parents[3] / "examples"
EXAMPLE = EXAMPLES / "node" / "agent.yaml"
TYPED = EXAMPLES / "typescript" / "agent.yaml"


@pytest.fixture(scope="module", autouse=True)
def node() -> Path:
    try:
        return nodejs.look("", Runtimes(runtimes_folder(os.environ), runtime_overrides(os.environ)))[0]
    except RuntimeMissing as error:
        pytest.skip(error.detail)


def test_the_example_runs_and_its_host_is_replaced(platform) -> None:
    platform.ok("apply", str(EXAMPLE))
    assert platform.data("invoke", "counting-scribe", "remember")["output"] == "1: noted"
    cell = platform.data("describe", "counting-scribe")["cell"]
    (host,) = [row for row in platform.data("top", "--once")["hosts"] if row["cell"] == cell]
    platform.kill(host["host"])
    assert platform.data("invoke", "counting-scribe", "remember")["output"] == "1: noted"
    assert "counting-scribe is loaded" in platform.ok("logs", "counting-scribe")


def test_the_example_in_typescript_runs_as_it_is(platform, node: Path) -> None:
    said = subprocess.run([node, "-p", "!!process.features.typescript"], capture_output=True, text=True, check=True)
    if said.stdout.strip() != "true":
        pytest.skip("this Node.js strips no types: `chimera runtime install node`")
    platform.ok("apply", str(TYPED))
    answers = [
        platform.data("invoke", "report-sorter", text, "--session", "desk")["output"]
        for text in ("remember the smoke", "remember the paint", "remember the leak")
    ]
    assert answers == ["now (1): noted", "later (1): noted", "now (2): noted"]
