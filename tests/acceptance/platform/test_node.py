"""An agent in JavaScript, used as its guide says; skipped where there is no supported Node.js."""

import shutil
from pathlib import Path

import pytest

from chimera.adapters.substrates.local import nodejs

EXAMPLE = Path(__file__).parents[3] / "examples" / "node" / "agent.yaml"

found = shutil.which("node")
pytestmark = pytest.mark.skipif(
    found is None or not nodejs.supported(nodejs.version(Path(found))), reason=f"no Node.js {nodejs.OLDEST} or newer"
)


def test_the_example_runs_and_its_host_is_replaced(platform) -> None:
    platform.ok("apply", str(EXAMPLE))
    assert platform.data("invoke", "counting-scribe", "remember")["output"] == "1: noted"
    cell = platform.data("describe", "counting-scribe")["cell"]
    (host,) = [row for row in platform.data("top", "--once")["hosts"] if row["cell"] == cell]
    platform.kill(host["host"])
    assert platform.data("invoke", "counting-scribe", "remember")["output"] == "1: noted"
    assert "counting-scribe is loaded" in platform.ok("logs", "counting-scribe")
