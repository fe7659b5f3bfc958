"""The operation `run_tests`: which agents are meant, looked up a thousand at a time."""

from typing import Any

import pytest

from chimera.entrypoints.control_plane import trials
from chimera.testing.definitions import definition

CASE = {"name": "t", "input": "hi", "answers": [{"text": "hi"}], "expect": {"contains": ["hi"]}}


async def test_agents_are_looked_up_together(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [{"definition": definition(f"agent-{number}", tests=[CASE])} for number in range(5)]
    assert (await client.ask("POST", "apply", {"items": items})).status == 200
    looked: list[int] = []
    named = client.catalogue.agents_named

    async def counted(tenant: str, names: list[str]) -> Any:
        looked.append(len(names))
        return await named(tenant, names)

    monkeypatch.setattr(client.catalogue, "agents_named", counted)
    monkeypatch.setattr(client.catalogue, "agent", None)  # no agent is asked for by itself
    monkeypatch.setattr(trials, "AT_ONCE", 2)
    names = [f"agent-{number}" for number in (3, 1, 4, 1, 0)]
    begun = await client.ask("POST", "tests", {"agents": names})
    assert (begun.status, begun.json["agents"]) == (202, 4), begun.json
    assert looked == [2, 2]
    missing = await client.ask("POST", "tests", {"agents": ["agent-2", "nobody", "nothing"]})
    assert (missing.status, missing.json["code"]) == (404, "agent-not-found") and "nobody" in missing.json["detail"]


@pytest.mark.parametrize("body", [{}, {"agents": []}, {"agents": ["a"], "all": True}, {"batch": "b", "all": True}])
async def test_it_must_be_said_what_to_test_in_one_way(body: dict[str, Any], client: Any) -> None:
    refused = await client.ask("POST", "tests", body)
    assert (refused.status, refused.json["code"]) == (400, "invalid-request") and refused.json["next_step"]
