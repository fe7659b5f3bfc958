"""An agent as a project of Knative Functions: what `chimera export function` writes, as a pure rule.

The project is whole: the agent's document and source, the host's package (`chimera_host.standalone` runs it there), and
the framework's packages pinned as they are locked. What it needs from outside is a model endpoint. What only the
platform can give is refused with the reason, or, where the agent works without it, told as left behind.

`func.yaml` keeps to the fields of specVersion 0.36.0, which later releases of func migrate by themselves; the layout is
that of func's template for Python with `new()`.
"""

import datetime
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from chimera.agents.compile import CanonicalDefinition, document_bytes
from chimera.agents.errors import NotExportable
from chimera.agents.spec import PYTHON_RUNTIME
from chimera_host.contract.tools import AgentTool, McpTool, MessageTool

SPEC_VERSION = "0.36.0"
DOCUMENT, SOURCE = "agent.json", "source.tar.gz"
MODEL_SECRET = "{name}-model"
UTILISATION = 70
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)\s*(?:;([^\\]*))?\\?$")


class FunctionProject(Struct, frozen=True, kw_only=True):
    """The files of a project by their path, and what the agent leaves behind."""

    files: dict[str, bytes]
    left_behind: tuple[str, ...] = ()


def export(
    value: CanonicalDefinition,
    *,
    revision: str,
    source: bytes | None,
    lock: str,
    host: Mapping[str, bytes],
    created: datetime.datetime,
) -> FunctionProject:
    """The project of a compiled definition; raises `NotExportable` with every reason.

    `source` is its packed source folder, `lock` the locked packages of its framework, `host` the files of the package
    `chimera_host` by their path in it.
    """
    if reasons := list(unexportable(value)):
        raise NotExportable(value.agent.name, reasons)
    if value.agent.source is not None and source is None:
        raise NotExportable(
            value.agent.name,
            [("its source folder isn't kept where clients can read it", "export it from its file instead of by name")],
        )
    left = tuple(left_behind(value))
    name = value.agent.name
    files = {
        "func.yaml": _yaml(func_yaml(value, revision=revision, created=created)),
        "pyproject.toml": _pyproject(value, pins(lock)).encode(),
        "requirements.lock": lock.encode(),
        "README.md": _readme(value, left).encode(),
        ".gitignore": b"__pycache__/\n.func/\n",
        ".funcignore": b"tests/\n",
        "function/__init__.py": b'from .func import new\n\n__all__ = ["new"]\n',
        "function/func.py": _FUNC.format(name=name).encode(),
        f"function/{DOCUMENT}": msgspec.json.format(document_bytes(value), indent=2),
        "tests/test_func.py": _TEST.format(name=name).encode(),
    }
    if source is not None:
        files[f"function/{SOURCE}"] = source
    files |= {f"chimera_host/{path}": data for path, data in host.items()}
    return FunctionProject(files=files, left_behind=left)


def unexportable(value: CanonicalDefinition) -> Iterator[tuple[str, str]]:
    """Why the agent can't leave the platform, each with what to do."""
    document = value.agent
    if value.runtime != PYTHON_RUNTIME:
        yield f"its runtime is {value.runtime}; functions are exported in Python", f"use {PYTHON_RUNTIME}"
    if document.source is not None and document.source.requirements is not None:
        yield (
            "it has a requirements file of its own, which may contradict the framework's pins",
            "leave it out, and add what it needs to the project's pyproject.toml",
        )
    function = document.behaviour.function
    if function is not None and function.endpoint is not None:
        yield "it stands for a function already", f"use that function: {function.endpoint.url}"
    for tool in document.tools:
        if isinstance(tool, AgentTool | MessageTool):
            yield (
                f"the tool {tool.name} is the agent {tool.agent}, which only the platform can call",
                "call it by HTTP, with a function tool of its own",
            )
        elif tool.credentials:
            yield (
                f"the tool {tool.name} is given {', '.join(sorted(tool.credentials.values()))} by the platform",
                "have a function tool read it from the environment, and name it under `run.envs` of func.yaml",
            )
        if isinstance(tool, McpTool) and tool.command is not None:
            yield (
                f"the tool {tool.name} starts the program {tool.command[0]}, which a function's image doesn't hold",
                "reach the server by `url`",
            )


def left_behind(value: CanonicalDefinition) -> Iterator[str]:
    """What the agent works without, but not as before."""
    yield "sessions: whoever calls sends the conversation in `messages`"
    yield "keys, policies and the audit log: what stands before the function decides who may call it"
    if value.tokens_per_day is not None or value.usd_per_day is not None:
        yield "its budget: the model's provider has to bound what it costs"
    if value.calls_per_minute is not None:
        yield f"its limit of {value.calls_per_minute} calls a minute"
    if value.agent.source is not None:
        yield "runs, steps and shared spaces: code that asks for them fails"
    if value.agent.model.name == "default":
        yield "the name of its model, which is the platform's default: set CHIMERA_MODEL"


def func_yaml(value: CanonicalDefinition, *, revision: str, created: datetime.datetime) -> dict[str, Any]:
    """The content of func.yaml."""
    document, name = value.agent, value.agent.name
    memory = f"{document.resources.memory_bytes >> 20}Mi"
    return {
        "specVersion": SPEC_VERSION,
        "name": name,
        "runtime": "python",
        "created": created.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "run": {
            "envs": [
                {"name": "CHIMERA_MODEL_URL", "value": "{{ env:CHIMERA_MODEL_URL }}"},
                {"name": "CHIMERA_MODEL", "value": "{{ env:CHIMERA_MODEL }}"},
                {"name": "CHIMERA_MODEL_KEY", "value": f"{{{{ secret:{MODEL_SECRET.format(name=name)}:key }}}}"},
                {"name": "CHIMERA_MEMORY_BYTES", "value": str(int(_limit(value) * 0.9))},
            ]
        },
        "deploy": {
            "annotations": {
                "chimera.ecosystem/agent": f"{document.tenant}/{name}",
                "chimera.ecosystem/revision": revision,
            },
            "options": {
                "scale": {
                    "min": value.min_instances,
                    "max": value.max_instances,
                    "metric": "concurrency",
                    "target": float(value.concurrency_target),
                    "utilization": float(UTILISATION),
                },
                "resources": {
                    "requests": {"cpu": f"{document.resources.cpu_millicores}m", "memory": memory},
                    "limits": {"memory": f"{_limit(value) >> 20}Mi", "concurrency": 0},
                },
            },
            "healthEndpoints": {"liveness": "/health/liveness", "readiness": "/health/readiness"},
        },
    }


def pins(lock: str) -> list[str]:
    """The packages of a hashed lock as requirements, without their hashes."""
    found = []
    for line in lock.splitlines():
        if (pin := _PIN.match(line)) is not None:
            name, version, marker = pin.groups()
            found.append(f"{name}=={version}" + (f"; {marker.strip()}" if marker and marker.strip() else ""))
    return found


def _limit(value: CanonicalDefinition) -> int:
    """Memory of a function: what the agent asked for, and what its framework takes."""
    return value.agent.resources.memory_bytes + (512 << 20)


def _yaml(data: dict[str, Any]) -> bytes:
    # A time without quotes, as func writes it: a quoted one is a text to some readers.
    text = yaml.safe_dump(data, sort_keys=False, width=120)
    return re.sub(r"(?m)^created: '(.*)'$", r"created: \1", text).encode()


def _pyproject(value: CanonicalDefinition, requirements: list[str]) -> str:
    listed = "".join(f"  {msgspec.json.encode(one).decode()},\n" for one in requirements)
    description = msgspec.json.encode(" ".join(value.agent.description.split())[:500]).decode()
    return _PYPROJECT.format(description=description, dependencies=listed)


def _readme(value: CanonicalDefinition, left: tuple[str, ...]) -> str:
    name = value.agent.name
    listed = "\n".join(f"- {one}" for one in left)
    return _README.format(
        name=name, framework=value.agent.framework, secret=MODEL_SECRET.format(name=name), left=listed
    )


_FUNC = '''"""The agent {name} as a Knative Function. Its definition is `agent.json` beside this file."""

from pathlib import Path

from chimera_host.standalone import AgentFunction


def new():
    """What func's middleware calls once."""
    return AgentFunction(Path(__file__).parent)
'''

_TEST = '''"""The function {name} can be made: its definition is read and its framework imported."""

from function import new


def test_it_is_made():
    made = new()
    assert made.alive()[0] and not made.ready()[0]
'''

_PYPROJECT = """[project]
name = "function"
version = "0.1.0"
description = {description}
requires-python = ">=3.11"
readme = "README.md"
dependencies = [
{dependencies}]

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
packages = ["function", "chimera_host"]
"""

_README = """# {name}

The agent `{name}` ({framework}) as a Knative Function, exported from Chimera.

```
export CHIMERA_MODEL_URL=https://models.example/v1   # an OpenAI-compatible endpoint
export CHIMERA_MODEL=name-of-a-model
kubectl create secret generic {secret} --from-literal=key=…
func build
func deploy
curl -H 'Content-Type: application/json' -d '{{"input": "Hello"}}' https://…
```

It takes `POST` with JSON: `input`, or `messages` that end with the caller's; `text/plain`; or a CloudEvent (binary or
structured) whose data is that JSON. It answers `{{"output": "…"}}`, or a problem document with a code and a next step.

Packages are pinned in `pyproject.toml`; `requirements.lock` has the same with hashes.

What it leaves behind:

{left}
"""
