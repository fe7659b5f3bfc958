"""Code that a definition names and its source folder lacks: refused by `validate`, by `apply` and by the API."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chimera.agents.archive import ArchivedFile
from chimera.agents.bundle import pack_files
from chimera.entrypoints.cli.main import cli
from chimera.testing.definitions import definition

DEFINITION = """\
schema_version: "ADaC v2.0"
metadata: {{name: coder, version: "1.0.0", description: Runs code.}}
specification:
  framework: function
  runtime: {runtime}
  source: code
  entrypoint: {entrypoint}
tools:
  - {{type: function, name: price, description: The price of a thing., function: "shop:price_of"}}
capabilities: {{primary_functions: [run]}}
"""


def written(folder: Path, *files: str, entrypoint: str, runtime: str = "python:3.11-slim") -> Path:
    for name in files:
        file = folder / "code" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("# code\n")
    found = folder / "coder.yaml"
    found.write_text("---\n" + DEFINITION.format(entrypoint=entrypoint, runtime=runtime))
    return found


def command(*arguments: str) -> tuple[int, str]:
    """The exit code and everything that was said."""
    done: Result = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert done.exception is None, done.output
    return done.return_value or 0, done.output


async def chimera(*arguments: str) -> tuple[int, str]:
    return await asyncio.to_thread(command, *arguments)


async def test_validate_and_apply_name_the_place_of_missing_code(platform: Any, tmp_path: Path) -> None:
    file = written(tmp_path / "agents", "agent.py", entrypoint="agnet:make")
    reach = ("--url", platform.url, "--key", platform.key)
    for words, last in ((("validate",), "0 valid, 2 errors"), ((*reach, "apply"), "1 refused")):
        code, said = await chimera(*words, str(file))
        assert code == 65, said
        entry = f"{file}:8:3: specification.entrypoint: the source folder holds no module 'agnet'"
        assert entry in said
        assert "allowed: agent; did you mean 'agent:make'?" in said
        column = file.read_text().splitlines()[9].index('function: "shop') + 1
        assert f"{file}:10:{column}: tools[0].function: the source folder holds no module 'shop'" in said
        assert "Next: " in said
        assert last in said
    assert (await platform.ask("GET", "/v1/status"))[2]["agents"] == 0

    (tmp_path / "agents" / "code" / "shop.py").write_text("def price_of(): ...\n")
    file.write_text(file.read_text().replace("agnet", "agent"))
    assert (await chimera("validate", str(file)))[0] == 0
    code, said = await chimera(*reach, "apply", str(file))
    assert (code, "1 created" in said) == (0, True), said


@pytest.mark.parametrize(
    ("runtime", "entrypoint", "code"),
    [
        ("python:3.11-slim", "side:make", 65),
        ("python:3.11-slim", "side.mjs:make", 65),
        ("node:18-alpine", "side:make", 0),
        ("node:18-alpine", "side.mjs:make", 0),
        ("node:18-alpine", "shop:make", 65),
    ],
)
def test_javascript_counts_for_nodes_runtime_alone(tmp_path: Path, runtime: str, entrypoint: str, code: int) -> None:
    file = written(tmp_path, "side.mjs", "shop.py", entrypoint=entrypoint, runtime=runtime)
    text = file.read_text()
    file.write_text("".join(line for line in text.splitlines(True) if "tools" not in line and "price" not in line))
    assert command("validate", str(file))[0] == code


async def test_the_api_refuses_a_bundle_without_the_code(platform: Any) -> None:
    packed = pack_files({"agent.py": ArchivedFile(data=b"", executable=False)}, name="code")
    tenant = "/v1/tenants/default"
    assert (await platform.ask("PUT", f"{tenant}/bundles/{packed.digest}", packed.data))[0] == 201
    wrong = definition("coder", specification={"framework": "function", "source": "code", "entrypoint": "agnet:make"})
    item = {"definition": wrong, "file": "coder.yaml", "bundle": packed.digest}
    status, _, problem = await platform.ask("POST", f"{tenant}/apply", {"items": [item]})
    (fault,) = problem["errors"]
    assert (status, fault["path"], fault["file"]) == (422, "specification.entrypoint", "coder.yaml")
    assert fault["suggestion"] == "agent:make"
    assert (await platform.ask("GET", "/v1/status"))[2]["agents"] == 0
