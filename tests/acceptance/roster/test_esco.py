"""The real ESCO: all 17,597 definitions are built as a user builds them, and every one compiles."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chimera.agents.compile import compile_definition
from chimera.agents.validate import check_text

ROOT = Path(__file__).parents[3]
UV = shutil.which("uv")


@pytest.mark.slow
def test_every_skill_and_occupation_makes_an_agent(tmp_path: Path) -> None:
    if UV is None:
        pytest.skip("uv isn't on the path: it installs the package that carries ESCO")
    example = ROOT / "examples" / "esco"
    command = [UV, "run", "--project", str(example), "python", str(example / "build.py"), "--all", "--out"]
    built = subprocess.run([*command, str(tmp_path / "roster")], capture_output=True, text=True, check=False)
    if "Failed to fetch" in built.stderr or "error sending request" in built.stderr:
        pytest.skip(f"no way to the package index: {built.stderr.strip().splitlines()[-1]}")
    assert built.returncode == 0, built.stderr
    assert built.stdout.startswith("This service uses the ESCO classification of the European Commission.")
    failed = [
        float(share)
        for share in re.findall(r"no border between names and definition in \d+ \(([\d.]+)%\)", built.stdout)
    ]
    assert len(failed) == 2
    assert max(failed) < 3
    digests, names, frameworks = set(), set(), []
    for file in (tmp_path / "roster").glob("*/*.yaml"):
        compiled = compile_definition(check_text(file.read_text(encoding="utf-8")), tenant="default")
        assert compiled.warnings == ()
        assert compiled.value.agent.name == file.stem
        digests.add(compiled.digest)
        names.add(file.stem)
        frameworks.append(compiled.value.agent.framework)
    assert len(digests) == len(names) == 17_597
    for framework in ("autogen", "crewai", "langgraph"):
        assert frameworks.count(framework) > 2_000
