"""An agent whose source folder carries a hash-locked requirements file runs in an environment of its own."""

import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PACKAGE = "sortedcontainers"
DEFINITION = """
schema_version: "ADaC v2.0"
metadata: {name: sorter, version: "1.0.0", description: Sorts words.}
specification: {framework: function, source: code, entrypoint: "sorter:make"}
capabilities: {primary_functions: [sort words]}
"""
CODE = f"""
import {PACKAGE}

def make(context):
    return lambda prompt, call: " ".join({PACKAGE}.SortedList(prompt.split()))
"""


def locked() -> str:
    """A requirements file of one small package, as this project's own lock file has it."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    (package,) = [one for one in lock["package"] if one["name"] == PACKAGE]
    hashes = " ".join(f"--hash={wheel['hash']}" for wheel in package["wheels"])
    return f"{PACKAGE}=={package['version']} {hashes}\n"


def test_the_package_is_there_for_this_agent(another, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIMERA_RUNTIMES", str(tmp_path / "runtimes"))
    folder = tmp_path / "sorter"
    (folder / "code").mkdir(parents=True)
    (folder / "sorter.yaml").write_text(DEFINITION)
    (folder / "code" / "sorter.py").write_text(CODE)
    (folder / "code" / "requirements.txt").write_text(locked())
    platform = another()
    platform.ok("apply", str(folder / "sorter.yaml"))

    done = platform.run("invoke", "sorter", "pear apple fig", "--deadline", "55")

    if "could not be made" in done.stderr and any(word in done.stderr for word in ("fetch", "offline", "connect")):
        pytest.skip(f"the package index can't be reached: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "apple fig pear"
    (environment,) = [
        one for one in (tmp_path / "runtimes").iterdir() if one.name.startswith("function-") and one.is_dir()
    ]
    assert list(environment.glob(f"lib/python3*/site-packages/{PACKAGE}"))
