"""A bill of materials is valid by CycloneDX' own schema, says what decides how an agent behaves, and never varies."""

import importlib.resources
import json
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from chimera.agents.compile import Bundle, CompiledAgent, compile_definition
from chimera.agents.validate import check_data
from chimera.delivery.evidence.bom import KnownModel, Lockfile, Materials, bill_of_materials, lockfile
from chimera.testing.definitions import FULL, compiled

VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)
OWN = lockfile(
    "requirements.txt",
    'Own.Package[extra]==1.0+local ; python_version >= "3.11" --hash=sha256:' + "a" * 64 + "\n",
)


def lock(name: str) -> Lockfile:
    text = (importlib.resources.files("chimera") / "runtimes" / f"{name}.lock").read_text()
    return lockfile(f"{name}.lock", text)


def full() -> CompiledAgent:
    return compile_definition(
        check_data(FULL),
        tenant="default",
        bundle=Bundle(digest="sha256:" + "b" * 64, requirements="sha256:" + "c" * 64),
    )


def materials(**more: Any) -> Materials:
    return Materials(release="0.1.0", **more)


def read(agent: CompiledAgent, given: Materials) -> dict[str, Any]:
    text = bill_of_materials(agent, given)
    problem = VALIDATOR.validate_str(text.decode())
    assert problem is None, problem
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize("framework", ["AutoGen", "CrewAI", "LangGraph", "function"])
def test_the_bill_of_each_framework_is_valid_and_lists_its_locked_packages(framework: str) -> None:
    given = materials(runtime=lock(framework.lower()))
    text = (importlib.resources.files("chimera") / "runtimes" / f"{framework.lower()}.lock").read_text()
    found = read(compiled("anna", specification={"framework": framework}), given)
    packages = [one for one in found["components"] if one.get("purl", "").startswith("pkg:pypi/")]
    pinned = {line.split()[0] for line in text.splitlines() if "==" in line}
    assert {f"{one['name']}=={one['version']}" for one in packages} == {line.partition(";")[0] for line in pinned}
    assert next(one for one in found["dependencies"] if one["ref"] == "runtime")["dependsOn"]


def test_it_says_all_that_decides_how_the_agent_behaves() -> None:
    model = KnownModel(provider="openai", model="gpt-x")
    found = read(full(), materials(runtime=lock("langgraph"), requirements=OWN, models={"small": model}))
    by_reference = {one["bom-ref"]: one for one in (*found["components"], *found["services"])}
    assert {"runtime", "requirements", "bundle", "prompts", "model", "tool/read", "tool/files", "tool/search"} <= set(
        by_reference
    )
    assert by_reference["model"]["name"] == "gpt-x"
    card = by_reference["model"]["modelCard"]
    assert card["considerations"]["useCases"] == ["Audit"]
    assert {one["name"]: one["value"] for one in card["properties"]}["chimera:temperature"] == "0.5"
    assert by_reference["bundle"]["hashes"][0]["content"] == "b" * 64
    assert by_reference["tool/files"]["endpoints"] == ["https://x"] and by_reference["tool/files"]["authenticated"]
    assert by_reference["tool/search"]["name"] == "agent/searcher"
    own = next(one for name, one in by_reference.items() if name.startswith("requirements/"))
    assert (own["name"], own["scope"]) == ("own-package", "optional")
    assert own["purl"] == "pkg:pypi/own-package@1.0%2Blocal"
    assert "secret:A" in json.dumps(found) and "value-of-A" not in json.dumps(found)


def test_it_never_varies_and_any_change_of_the_agent_shows() -> None:
    one, other = compiled("anna"), compiled("anna", metadata={"version": "1.0.1"})
    assert bill_of_materials(one, materials()) == bill_of_materials(one, materials())
    assert read(one, materials())["serialNumber"] != read(other, materials())["serialNumber"]
    prompt = compiled("anna", behaviour={"autogen": {"kind": "conversational", "system_message": "Be kind."}})
    again = compiled("anna", behaviour={"autogen": {"kind": "conversational", "system_message": "Be kinder."}})
    assert digest(prompt) != digest(again)


def digest(agent: CompiledAgent) -> str:
    found = read(agent, materials())
    return str(next(one for one in found["components"] if one["bom-ref"] == "prompts")["hashes"][0]["content"])


def test_a_custom_image_is_a_container_by_its_digest() -> None:
    image = "registry.example/team/agent:1@sha256:" + "d" * 64
    found = read(compiled("anna", specification={"framework": "function", "runtime": image}), materials())
    container = next(one for one in found["components"] if one["type"] == "container")
    assert (container["name"], container["version"]) == ("registry.example/team/agent", "1")
    assert container["hashes"][0]["content"] == "d" * 64
    assert container["purl"].startswith("pkg:oci/agent@sha256%3Add")
    plain = read(compiled("anna", specification={"framework": "function", "runtime": "team/agent"}), materials())
    assert next(one for one in plain["components"] if one["type"] == "container")["version"] == "latest"


def test_an_image_of_a_registry_with_a_port_keeps_its_name() -> None:
    image = "registry.example:5000/team/agent@sha256:" + "d" * 64
    found = read(compiled("anna", specification={"framework": "function", "runtime": image}), materials())
    container = next(one for one in found["components"] if one["type"] == "container")
    assert [container["name"], container["version"]] == image.split("@")
    where = "registry.example%3A5000%2Fteam%2Fagent"
    assert container["purl"] == f"pkg:oci/agent@sha256%3A{'d' * 64}?repository_url={where}"


def test_a_function_elsewhere_and_a_server_by_command_are_in_it() -> None:
    endpoint = {"function": {"endpoint": {"url": "https://f.example/run", "credential": "secret:F"}}}
    found = read(compiled("anna", specification={"framework": "function"}, behaviour=endpoint), materials())
    assert found["services"][0]["endpoints"] == ["https://f.example/run"] and found["services"][0]["authenticated"]
    tool = {"type": "mcp", "name": "files", "allow": ["read"], "command": ["serve", "--all"]}
    found = read(compiled("anna", tools=[tool]), materials())
    assert next(one for one in found["components"] if one["bom-ref"] == "tool/files")["name"] == "serve"
