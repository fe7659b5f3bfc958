"""Looking at agents, deleting them, the process's health, and every refusal as a problem document."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chimera.gateway.identity.principal import encode_header, named_user
from chimera.testing.definitions import compiled, definition, fleet, staged

ME = encode_header(named_user("me", "default"))


async def apply(client: Any, *definitions: dict[str, Any]) -> None:
    answer = await client.ask("POST", "apply", {"items": [{"definition": data} for data in definitions]})
    assert answer.status == 200, answer.body


async def test_pages_cover_every_agent_once(client: Any) -> None:
    await apply(client, *fleet(23))
    for limit in (1, 5, 23, 100):
        found: list[str] = []
        after = ""
        while after is not None:
            page = (await client.ask("GET", f"agents?limit={limit}&after={after}")).json
            assert len(page["agents"]) <= limit
            found += [row["name"] for row in page["agents"]]
            after = page["next"]
        assert found == [f"agent-{number:05d}" for number in range(23)]


async def test_filters_go_together(client: Any) -> None:
    await apply(client, *fleet(8), definition("lawyer", metadata={"tags": ["domain:law"]}))
    assert [row["name"] for row in (await client.ask("GET", "agents?domain=law")).json["agents"]] == ["lawyer"]
    rows = (await client.ask("GET", "agents?framework=CrewAI&q=AGENT-0000")).json["agents"]
    assert [row["name"] for row in rows] == ["agent-00001", "agent-00005"]


async def test_an_agent_in_full(client: Any) -> None:
    await apply(client, definition("anna", budget={"tokens_per_day": 1000}, retirement={"after": "2031-01-01"}))

    told = (await client.ask("GET", "agents/anna")).json

    assert told["name"] == "anna"
    assert told["cell"].startswith("default-autogen-standard-")
    assert told["definition"]["agent"]["behaviour"]["autogen"]["kind"] == "conversational"
    limits = {limit["limit"]: limit for limit in told["limits"]}
    assert limits["tokens per day"]["value"] == 1000
    assert all(limit["enforced_by"] for limit in limits.values())
    assert any("2031-01-01" in note for note in told["notes"])
    revision = await client.ask("GET", f"revisions/{told['revision']}")
    assert revision.json["agent"] == told["definition"]["agent"]


async def test_what_one_machine_can_not_run_is_applied_and_told(client: Any) -> None:
    await apply(client, definition("anna", specification={"runtime": "team/image:1"}))
    told = (await client.ask("GET", "agents/anna")).json
    assert "Kubernetes" in told["unservable"]
    assert told["unservable"] in told["notes"]


async def test_deleted_agents_are_gone_and_keep_their_history(client: Any) -> None:
    await apply(client, *fleet(4))

    one = await client.ask("DELETE", "agents/agent-00000", Chimera_Principal=ME)
    more = await client.ask("POST", "agents/delete", {"names": ["agent-00001", "agent-00002", "nobody"]})

    assert (one.json, one.headers["Chimera-Sequence"]) == ({"deleted": 1}, "5")
    assert (more.json, more.headers["Chimera-Sequence"]) == ({"deleted": 2}, "7")
    assert [row["name"] for row in (await client.ask("GET", "agents")).json["agents"]] == ["agent-00003"]
    assert (await client.ask("DELETE", "agents/agent-00000")).status == 404
    history = (await client.ask("GET", "agents/agent-00000/revisions")).json["revisions"]
    assert [(entry["revision"] is None, entry["by"]) for entry in history] == [
        (True, "user:me"),
        (False, "system:local"),
    ]


async def test_health_and_metrics(client: Any) -> None:
    await apply(client, *fleet(4))
    assert (await client.ask("GET", "/livez")).status == 200
    assert (await client.ask("GET", "/readyz")).status == 200
    page = (await client.ask("GET", "/metrics")).body.decode()
    assert 'chimera_control_plane_agents{framework="crewai"} 1.0' in page
    assert "chimera_control_plane_sequence 4.0" in page
    path = "/v1/tenants/{tenant}/apply"
    assert f'chimera_control_plane_requests_total{{method="POST",path="{path}",status="200"}} 1.0' in page


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nowhere", None, 404, "not-found"),
        ("PATCH", "agents", None, 405, "method-not-allowed"),
        ("GET", "apply", None, 405, "method-not-allowed"),
        ("GET", "agents/nobody", None, 404, "agent-not-found"),
        ("GET", "agents/nobody/revisions", None, 404, "agent-not-found"),
        ("GET", f"revisions/sha256:{'0' * 64}", None, 404, "agent-not-found"),
        ("GET", "agents?limit=0", None, 400, "invalid-request"),
        ("GET", "agents?limit=1001", None, 400, "invalid-request"),
        ("GET", "agents?limit=²", None, 400, "invalid-request"),
        ("GET", "agents?sort=name", None, 400, "invalid-request"),
        ("GET", "/v1/tenants/No_Tenant/agents", None, 400, "invalid-request"),
        ("POST", "check", b"{", 400, "invalid-request"),
        ("POST", "check", {"sources": [1]}, 400, "invalid-request"),
        ("POST", "check", b'{"sources":' + b"[" * 100_000, 400, "invalid-request"),
        ("POST", "batches/batch_nowhere/commit", None, 404, "unknown-batch"),
        ("POST", "batches/batch_nowhere/definitions", {"items": []}, 404, "unknown-batch"),
        ("POST", "batches/batch_nowhere/definitions", {"items": [], "first": -1}, 400, "invalid-request"),
        ("POST", "apply", {"items": [{}] * 2001}, 400, "invalid-request"),
        ("POST", "apply", {"items": [{}]}, 422, "batch-has-faults"),
        ("POST", "apply", {"items": [{"source": "s" * 65}]}, 400, "invalid-request"),
        ("POST", "agents/delete", {"names": "all"}, 400, "invalid-request"),
    ],
)
async def test_every_refusal_is_a_problem_with_a_next_step(
    client: Any, method: str, path: str, body: Any, status: int, code: str
) -> None:
    answer = await client.ask(method, path, body)
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    problem = answer.json
    assert (answer.status, problem["status"], problem["code"]) == (status, status, code)
    assert problem["detail"]
    assert problem["next_step"]
    assert client.changes == 0


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["apply", "validate", "diff", "check", "agents/delete"]),
    field=st.sampled_from(["items", "sources", "names"]),
    value=values
    | st.lists(st.fixed_dictionaries({"definition": values}))
    | st.lists(st.fixed_dictionaries({"text": st.text()})),
)
async def test_no_body_makes_it_fail(client: Any, path: str, field: str, value: Any) -> None:
    answer = await client.ask("POST", path, {field: value})
    assert answer.status < 500, answer.body


@pytest.mark.parametrize("levels", [70, 400])
async def test_a_definition_that_is_nested_without_end_is_a_fault(client: Any, levels: int) -> None:
    nested: Any = "x"
    for _ in range(levels):
        nested = {"a": nested}
    schema = {"type": "function", "name": "f", "function": "main:f", "parameters": nested}
    items = [
        {"definition": nested},
        {"definition": definition("bert", tools=[schema])},
        {"definition": definition("anna")},
    ]
    told = await client.ask("POST", "validate", {"items": items})
    assert told.status == 200
    assert [result.get("faults", [{}])[0].get("allowed") for result in told.json["results"]] == ["64 levels"] * 2 + [
        None
    ]


async def test_an_agent_of_a_resource_says_so_and_is_refused_to_everybody_else(client: Any) -> None:
    items = staged(compiled("one"))
    owners = {"one": "team/one"}
    await client.catalogue.apply("default", items, keep_going=False, expect=None, by=None, owners=owners)
    (listed,) = (await client.ask("GET", "agents")).json["agents"]
    described = (await client.ask("GET", "agents/one")).json
    assert listed["owner"] == described["owner"] == "team/one"
    assert any("resource Agent one in the namespace team" in note for note in described["notes"])
    for answer in (
        await client.ask("DELETE", "agents/one"),
        await client.ask("POST", "agents/delete", {"names": ["one"]}),
        await client.ask(
            "POST", "apply", {"items": [{"definition": definition("one", metadata={"version": "2.0.0"})}]}
        ),
    ):
        assert (answer.status, answer.json["code"]) == (409, "owned-by-resource")
        assert "kubectl -n team edit agents.chimera.ecosystem one" in answer.json["next_step"]
