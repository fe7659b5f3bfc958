"""From a definition to a signed statement on a real platform: quality, a change without a person, bill, provenance."""

import json
import time
from pathlib import Path
from typing import Any

import yaml

from chimera.testing.definitions import definition
from tests.unit.jaegis.conftest import GOOD

INVALID = 65
TESTS = [
    {
        "name": f"{paid} of 10",
        "input": f"Invoice {paid}, order 10",
        "expect": {"contains": [f"{paid - 10}"]},
        "model": "scripted",
        "answers": [{"text": f"The difference is {paid - 10}."}],
    }
    for paid in (11, 12, 13)
]
"""Tests that pass on a scripted model: what they need is said by the definition."""


def written(file: Path, version: str, *tags: str) -> None:
    metadata = {**GOOD["metadata"], "version": version, "tags": list(tags)}
    more = {"metadata": metadata, "specification": {"framework": "function"}, "tests": TESTS}
    made = definition("invoice-auditor", **{**GOOD, **more})
    file.write_text(yaml.safe_dump(made))


def test_a_good_change_goes_by_itself_and_says_so_signed(platform: Any, tmp_path: Path) -> None:
    file = tmp_path / "auditor.yaml"
    written(file, "1.0.0", "capability:audit", "domain:finance")
    platform.ok("apply", str(file))
    written(file, "1.0.1", "capability:audit", "domain:finance", "domain:tax")
    assert "excellent" in platform.ok("quality", str(file))
    opened = platform.data("change", "open", str(file))
    done = platform.run("change", "show", opened["id"], "--wait")
    assert done.returncode == 0, done.stderr
    bill = platform.data("sbom", "invoice-auditor")
    assert bill["metadata"]["component"]["version"] == "1.0.1"
    assert any(one["name"] == "aiohttp" for one in bill["components"])

    statement = tmp_path / "auditor.intoto.json"
    for _ in range(60):  # it is signed by a loop, a few seconds after the change is done
        shown = platform.run("provenance", "show", "invoice-auditor", "--output", "json")
        if shown.returncode == 0 and "quality" in platform.ok("provenance", "invoice-auditor"):
            break
        time.sleep(0.5)
    assert shown.returncode == 0, shown.stderr
    statement.write_text(shown.stdout)
    revision = platform.data("describe", "invoice-auditor")["revision"]
    said = platform.ok("provenance", "verify", str(statement), "--revision", revision)
    assert opened["id"] in said and "verdict/approval/quality" in said and "was not altered" in said
    keys = tmp_path / "keys.txt"
    keys.write_text(platform.ok("provenance", "keys"))
    platform.ok("provenance", "verify", str(statement), "--public-key", str(keys))

    envelope = json.loads(statement.read_text())
    envelope["payload"] = (
        envelope["payload"][:100] + ("A" if envelope["payload"][100] != "A" else "B") + envelope["payload"][101:]
    )
    statement.write_text(json.dumps(envelope))
    refused = platform.run("provenance", "verify", str(statement))
    assert (refused.returncode, "altered" in refused.stderr) == (INVALID, True), refused.stderr
