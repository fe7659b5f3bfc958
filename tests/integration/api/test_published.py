"""The API as published is the API as served: every path, method, parameter and body, in both directions."""

import dataclasses
import hashlib
import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.conditions import StoredConditions
from chimera.adapters.storage.sources import SourceStorage
from chimera.agents.archive import ArchivedFile
from chimera.agents.bundle import pack_files
from chimera.delivery.evidence.service import Evidence
from chimera.delivery.service import Changes
from chimera.entrypoints.control_plane.app import ControlPlaneApp
from chimera.entrypoints.control_plane.rollouts import RolloutHandlers
from chimera.entrypoints.control_plane.sources import SourceHandlers
from chimera.entrypoints.control_plane.trials import TrialHandlers
from chimera.entrypoints.gateway import openapi
from chimera.entrypoints.gateway.operations import OPERATIONS
from chimera.entrypoints.node.app import NodeApp
from chimera.entrypoints.node.logs import LogQuery
from chimera.platform.upkeep.service import Upkeep
from chimera.platform.upkeep.settings import UpkeepSettings
from chimera.testing.clock import ManualClock
from chimera.testing.definitions import definition
from chimera.testing.leases import MemoryLeases
from chimera.testing.upkeep import MemoryUpkeepStore

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "TRACE"}
OF_THE_PLATFORM = {
    "control-plane": {"/livez", "/readyz", "/metrics", "/v1/requirements/{digest}"},
    "node": {
        *("/livez", "/readyz", "/metrics", "/v1/endpoints", "/v1/seen", "/v1/stats"),
        *("/v1/cells/{cell}/wake", "/v1/hosts/{host}/report"),
    },
}
"""Paths that a process serves to the platform's other processes, never to callers."""
NODE_ONLY = {("PUT", "/v1/cells")}
VALUES = {"tenant": "default", "agent": "anna"}

DOCUMENT = openapi.document()
PUBLISHED = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}


def filled(path: str) -> str:
    return re.sub(r"{(\w+)}", lambda found: VALUES.get(found[1], found[1][0]), path)


def described(method: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][path][method.lower()]
    return found


def owned(owner: str) -> set[tuple[str, str]]:
    return {(one.method, one.path) for one in OPERATIONS if one.owner == owner}


def nothing_to_keep_up() -> Upkeep:
    clock = ManualClock()
    return Upkeep(MemoryUpkeepStore(clock, MemoryLeases(clock), []), clock, UpkeepSettings())


def routes(app: Any) -> set[tuple[str, str]]:
    return {(route.method, route.resource.canonical) for route in app.router.routes() if route.method != "HEAD"}


def test_the_document_holds_every_operation_once() -> None:
    assert {(one.method, one.path) for one in OPERATIONS} == PUBLISHED
    names = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names)) == len(OPERATIONS)


def test_the_control_plane_routes_what_is_published_and_its_own() -> None:
    served = routes(
        ControlPlaneApp(
            Catalogue.__new__(Catalogue),
            lambda: None,
            nothing_to_keep_up(),
            StoredConditions.__new__(StoredConditions),
            Changes.__new__(Changes),
            SourceHandlers(SourceStorage.__new__(SourceStorage), None),
            RolloutHandlers.__new__(RolloutHandlers),
            evidence=Evidence.__new__(Evidence),
            trials=TrialHandlers.__new__(TrialHandlers),
        ).make()
    )
    own = {(method, path) for method, path in served if path in OF_THE_PLATFORM["control-plane"]}
    assert {path for _, path in own} == OF_THE_PLATFORM["control-plane"]
    assert served - own == owned("control-plane")


def test_the_node_agent_routes_what_is_published_and_its_own() -> None:
    served = routes(NodeApp(None, None).make())  # type: ignore[arg-type]  # its routes alone are looked at
    own = {(method, path) for method, path in served if path in OF_THE_PLATFORM["node"]}
    assert {path for _, path in own} == OF_THE_PLATFORM["node"]
    assert served - own - NODE_ONLY == owned("node")


async def test_every_published_operation_is_served(platform: Any) -> None:
    for method, path in sorted(PUBLISHED):
        body = {} if "requestBody" in described(method, path) else None
        status, _, answer = await platform.ask(method, filled(path), body)
        assert status != 405, (method, path)
        assert "nothing is" not in str(answer)[:500], (method, path)
        if (method, path) in owned("node"):
            assert (status, answer["code"]) == (503, "node-unavailable")
        else:
            assert status < 500, (method, path, answer)
        if path.endswith("/suspend"):
            assert (await platform.ask("POST", "/v1/tenants/default/resume", None))[0] == 200


async def test_any_other_method_is_refused_with_those_that_there_are(platform: Any) -> None:
    for path in DOCUMENT["paths"]:
        # Of …/agents/delete other methods are meant for an agent of that name.
        allowed = {
            method for method, other in PUBLISHED if re.fullmatch(re.sub(r"{\w+}", "[^/]+", other), filled(path))
        }
        for method in METHODS - allowed:
            status, headers, problem = await platform.ask(method, filled(path))
            assert (method, path, status) == (method, path, 405)
            assert headers["Content-Type"] == "application/problem+json"
            assert headers["Allow"].split(", ") == sorted(allowed)
            if method != "HEAD":
                assert problem["code"] == "method-not-allowed"
                assert headers["Allow"] in problem["next_step"]


async def test_what_is_not_published_is_not_passed_on(platform: Any) -> None:
    unpublished = {*OF_THE_PLATFORM["control-plane"], *OF_THE_PLATFORM["node"]} - {path for _, path in PUBLISHED}
    spelt = {filled(path) for path in unpublished} | {
        *("/v1/cells/", "/v1//cells", "/v1/cells/../requirements/d", "/v1/cells%2Fc%2Fwake", "/v1/tenant"),
        *("/v1/requirements%2fd", "/v1/status/..%2Frequirements%2Fd", "/v1", "/v2/status", "/"),
    }
    for path in sorted(spelt):
        for method in ("GET", "POST", "PUT"):
            status, headers, problem = await platform.ask(method, path)
            assert (path, status, problem["code"]) == (path, 404, "not-found")
            assert headers["Content-Type"] == "application/problem+json"


async def test_an_agent_may_be_named_as_an_operation(platform: Any) -> None:
    path = "/v1/tenants/default/agents"
    assert (await platform.ask("POST", f"{path[:-7]}/apply", {"items": [{"definition": definition("delete")}]}))[
        0
    ] == 200
    assert (await platform.ask("GET", f"{path}/delete"))[2]["name"] == "delete"
    assert (await platform.ask("DELETE", f"{path}/delete"))[2] == {"deleted": 1}


def parameters(method: str, path: str, place: str) -> list[str]:
    return [one["name"] for one in described(method, path)["parameters"] if one["in"] == place]


async def test_the_parameters_of_a_list_are_those_that_are_taken(platform: Any) -> None:
    path = "/v1/tenants/{tenant}/agents"
    names = parameters("GET", path, "query")
    assert {"framework", "domain", "tag", "q", "cell", "after", "limit"} == set(names)
    query = "&".join(f"{name}={1 if name == 'limit' else 'x'}" for name in names)
    assert (await platform.ask("GET", f"{filled(path)}?{query}"))[0] == 200
    status, _, problem = await platform.ask("GET", f"{filled(path)}?{query}&sort=name")
    assert (status, problem["code"]) == (400, "invalid-request")


def test_the_parameters_of_logs_are_those_that_are_taken() -> None:
    assert parameters("GET", "/v1/logs", "query") == [field.name for field in dataclasses.fields(LogQuery)]


async def test_the_header_of_a_batch_is_taken(platform: Any) -> None:
    path = "/v1/tenants/{tenant}/batches"
    (name,) = parameters("POST", path, "header")
    batches = {(await platform.ask("POST", filled(path), **{name: key}))[2]["batch"] for key in ("a", "a", "b")}
    assert len(batches) == 2


def checked(kind: str, method: str, path: str, status: int, value: Any) -> None:
    """`value` is as the document says, with nothing that it doesn't say."""
    operation = described(method, path)
    where = operation["requestBody"] if kind == "body" else operation["responses"][str(status)]
    schema = where["content"]["application/json"]["schema"]
    # Nothing may come that isn't in the document; a component's reference is the whole of its schema.
    components = json.loads(json.dumps(DOCUMENT["components"]).replace('"type": "object", "properties"', _CLOSED))
    Draft202012Validator({**schema, "components": components}).validate(value)


_CLOSED = '"type": "object", "additionalProperties": false, "properties"'


async def test_bodies_and_answers_are_as_published(platform: Any) -> None:
    tenant = "/v1/tenants/{tenant}"
    packed = pack_files({"main.py": ArchivedFile(data=b"def make(): ...\n", executable=False)}, name="code")
    code = definition("carl", specification={"source": "./code", "entrypoint": "main:make"})
    text = json.dumps(definition("anna", retirement={"after": "2031-01-01"}, budget={"usd_per_day": 2}))
    items = [
        {"text": text, "source": hashlib.sha256(text.encode()).hexdigest(), "file": "anna.yaml"},
        {"definition": definition("bert", specification={"runtime": "team/image:1"})},
        {"definition": code, "bundle": packed.digest},
    ]
    faulty = {"definition": definition("B")}

    async def does(method: str, path: str, body: Any = None, *, query: str = "", **values: str) -> Any:
        if body is not None and not isinstance(body, bytes):
            checked("body", method, path, 0, body)
        where = path.format(**{**VALUES, **values}) + query
        status, _, answer = await platform.ask(method, where, body)
        assert status < 300, answer
        checked("answer", method, path, status, answer)
        return answer

    await does("PUT", tenant + "/bundles/{digest}", packed.data, digest=packed.digest)
    validated = await does("POST", tenant + "/validate", {"items": [*items, faulty]})
    assert [bool(one.get("faults")) for one in validated["results"]] == [False, False, False, True]
    await does("POST", tenant + "/check", {"sources": [items[0]["source"]]})
    batch = (await does("POST", tenant + "/batches"))["batch"]
    await does("POST", tenant + "/batches/{batch}/definitions", {"items": [*items, faulty], "first": 0}, batch=batch)
    done = await does("POST", tenant + "/batches/{batch}/commit", {"keep_going": True, "expect": 0}, batch=batch)
    assert (done["created"], done["refused"]) == (3, 1)
    changed = definition("anna", capabilities={"communication_protocols": ["http"]})
    rows = await does("POST", tenant + "/diff", {"items": [{"definition": changed}, items[1], faulty]})
    assert [row["state"] for row in rows["agents"]] == ["changed", "unchanged", "invalid"]
    await does("POST", tenant + "/apply", {"items": [{"definition": changed}], "keep_going": True, "expect": 3})
    page = await does("GET", tenant + "/agents", query="?limit=2")
    assert [row["name"] for row in page["agents"]] == ["anna", "bert"]
    for name in ("anna", "bert", "carl"):
        told = await does("GET", tenant + "/agents/{agent}", agent=name)
        await does("GET", tenant + "/agents/{agent}/revisions", agent=name)
        await does("GET", tenant + "/revisions/{digest}", digest=told["revision"])
    await does("GET", "/v1/status")
    assert len((await does("GET", "/v1/models"))["data"]) == 2
    await does("GET", "/v1/models/agent/{agent}", agent="bert")
    await does("DELETE", tenant + "/agents/{agent}", agent="anna")
    assert await does("POST", tenant + "/agents/delete", {"names": ["bert", "carl", "nobody"]}) == {"deleted": 2}


@pytest.mark.parametrize("name", ["PUT", "GET"])
def test_the_check_of_bodies_can_fail(name: str) -> None:
    with pytest.raises(Exception, match=r"[Aa]dditional properties"):
        checked("answer", "GET", "/v1/status", 200, {"agents": 1, name: 2})
