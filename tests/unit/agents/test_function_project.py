"""What `chimera export function` writes: documented fields of func.yaml, pinned packages, reasons where it can't."""

import datetime
import importlib.resources
import tomllib
from typing import Any

import jsonschema
import pytest
import yaml

from chimera.agents.compile import Bundle, compile_definition
from chimera.agents.errors import NotExportable
from chimera.agents.function_project import export, pins
from chimera.agents.validate import check_data

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
NUMBER = {"type": "number", "minimum": 0}
TEXT = {"type": "string"}
QUANTITY = {"type": "string", "pattern": r"^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"}


def mapping(required: tuple[str, ...] = (), /, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


FUNC_YAML = mapping(
    ("specVersion", "created", "name", "runtime"),
    specVersion={"const": "0.36.0"},
    name={"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
    runtime={"enum": ["node", "go", "python", "quarkus", "rust", "springboot", "typescript"]},
    created={"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"},
    run=mapping(
        envs={
            "type": "array",
            "items": mapping(
                ("name", "value"), name={"type": "string", "pattern": r"^[-._a-zA-Z][-._a-zA-Z0-9]*$"}, value=TEXT
            ),
        }
    ),
    deploy=mapping(
        annotations={"type": "object", "additionalProperties": TEXT},
        options=mapping(
            scale=mapping(
                min={"type": "integer", "minimum": 0},
                max={"type": "integer", "minimum": 0},
                metric={"enum": ["concurrency", "rps"]},
                target=NUMBER,
                utilization={"type": "number", "minimum": 1, "maximum": 100},
            ),
            resources=mapping(
                requests=mapping(cpu=QUANTITY, memory=QUANTITY),
                limits=mapping(cpu=QUANTITY, memory=QUANTITY, concurrency={"type": "integer", "minimum": 0}),
            ),
        ),
        healthEndpoints=mapping(liveness=TEXT, readiness=TEXT),
    ),
)
"""The fields of func.yaml that are used, as func documents them (knative/func, schema/func_yaml-schema.json)."""


def project(least: dict[str, Any], bundle: Bundle | None = None, source: bytes | None = None, **changes: Any) -> Any:
    compiled = compile_definition(check_data({**least, **changes}), tenant="default", bundle=bundle)
    lock = (importlib.resources.files("chimera") / "runtimes" / f"{compiled.value.agent.framework}.lock").read_text()
    host = {"__init__.py": b""}
    return export(compiled.value, revision=compiled.digest, source=source, lock=lock, host=host, created=NOW)


@pytest.mark.parametrize("framework", ["AutoGen", "CrewAI", "LangGraph", "function"])
def test_func_yaml_has_the_documented_fields(least: dict[str, Any], framework: str) -> None:
    made = project(least, specification={"framework": framework}, scaling={"min_instances": 1, "max_instances": 7})
    found = yaml.load(made.files["func.yaml"], yaml.BaseLoader)  # texts alone: as it is written
    typed = yaml.safe_load(made.files["func.yaml"])
    jsonschema.validate({**typed, "created": found["created"]}, FUNC_YAML)
    assert typed["created"] == NOW, "a time, not a text"
    assert typed["name"] == least["metadata"]["name"] and typed["deploy"]["options"]["scale"]["max"] == 7
    envs = {one["name"]: one["value"] for one in typed["run"]["envs"]}
    assert envs["CHIMERA_MODEL_KEY"] == f"{{{{ secret:{typed['name']}-model:key }}}}"
    limits = typed["deploy"]["options"]["resources"]["limits"]
    assert int(envs["CHIMERA_MEMORY_BYTES"]) < int(limits["memory"].removesuffix("Mi")) << 20


@pytest.mark.parametrize("framework", ["AutoGen", "CrewAI", "LangGraph", "function"])
def test_every_package_is_pinned_as_it_is_locked(least: dict[str, Any], framework: str) -> None:
    made = project(least, specification={"framework": framework})
    found = tomllib.loads(made.files["pyproject.toml"].decode())["project"]["dependencies"]
    locked = [line for line in made.files["requirements.lock"].decode().splitlines() if line[:1].isalnum()]
    assert len(found) == len(locked) > 30 and all(
        "==" in one and "\\" not in one and "--hash" not in one for one in found
    )


def test_pins() -> None:
    lock = (
        "a-b==1.0 \\\n    --hash=sha256:0\n    # via c\nc==2 ; python_full_version < '3.12' \\\n    --hash=sha256:1\n"
    )
    assert pins(lock) == ["a-b==1.0", "c==2; python_full_version < '3.12'"]
    assert pins("a==1;" + " " * 100_000 + "\\x") == [], "one that is made to be slow is read like any other"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tools": [{"type": "agent", "name": "t", "agent": "other"}]}, "only the platform can call"),
        (
            {
                "tools": [
                    {"type": "mcp", "name": "t", "allow": ["a"], "url": "https://m", "credentials": {"A": "secret:K"}}
                ]
            },
            "secret:K by the platform",
        ),
        ({"tools": [{"type": "mcp", "name": "t", "allow": ["a"], "command": ["npx", "x"]}]}, "starts the program npx"),
        ({"behaviour": {"function": {"endpoint": {"url": "https://fn.example/"}}}}, "stands for a function already"),
        ({"specification": {"framework": "function", "runtime": "registry.example/mine:1"}}, "exported in Python"),
    ],
)
def test_what_needs_the_platform_is_refused_with_what_to_do(least: dict[str, Any], changes: Any, words: str) -> None:
    with pytest.raises(NotExportable) as refused:
        project(least, **{"specification": {"framework": "function"}, **changes})
    assert words in str(refused.value) and refused.value.next_step and refused.value.status == 422


def test_every_reason_is_told(least: dict[str, Any]) -> None:
    tools = [
        {"type": "agent", "name": "a", "agent": "other"},
        {"type": "mcp", "name": "m", "allow": ["x"], "command": ["x"], "credentials": {"A": "secret:K"}},
    ]
    with pytest.raises(NotExportable) as refused:
        project(least, specification={"framework": "function"}, tools=tools)
    assert len(refused.value.errors) == 3 and "(and 2 more)" in str(refused.value)


def test_code_goes_along_and_its_own_requirements_do_not(least: dict[str, Any]) -> None:
    specification = {"framework": "function", "source": "code", "entrypoint": "a:b"}
    bundle = Bundle(digest="sha256:" + "0" * 64, files=("a.py",))
    made = project(least, bundle, b"packed", specification=specification)
    assert made.files["function/source.tar.gz"] == b"packed"
    with pytest.raises(NotExportable, match="isn't kept where clients can read it"):
        project(least, bundle, None, specification=specification)
    locked = Bundle(digest=bundle.digest, requirements="sha256:" + "1" * 64, files=("a.py",))
    with pytest.raises(NotExportable, match="requirements file of its own"):
        project(least, locked, b"packed", specification=specification)


def test_what_is_left_behind_is_told(least: dict[str, Any]) -> None:
    made = project(
        least,
        specification={"framework": "function"},
        budget={"usd_per_day": 1.0},
        scaling={"calls_per_minute": 9},
        model={"name": "big"},
    )
    text = "\n".join(made.left_behind)
    assert "budget" in text and "9 calls a minute" in text and "sessions" in text and "CHIMERA_MODEL" not in text
    assert all(one in made.files["README.md"].decode() for one in made.left_behind)
