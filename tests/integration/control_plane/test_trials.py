"""The operation `run_tests`: which agents are meant, looked up a thousand at a time."""

import asyncio
import json
from typing import Any

import pytest
from click.testing import CliRunner

from chimera.entrypoints.cli import identity
from chimera.entrypoints.cli.main import cli
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


async def test_a_run_that_is_asked_for_again_with_its_key_is_the_same_one(client: Any) -> None:
    await client.ask("POST", "apply", {"items": [{"definition": definition("anna", tests=[CASE])}]})
    asked = {"agents": ["anna"]}
    runs = [(await client.ask("POST", "tests", asked, Idempotency_Key=key)).json["run"] for key in ("k", "k", "l")]
    assert runs[0] == runs[1] != runs[2]
    refused = await client.ask("POST", "tests", asked, Idempotency_Key="a key")
    assert (refused.status, refused.json["code"]) == (400, "invalid-request")


@pytest.mark.parametrize("body", [{}, {"agents": []}, {"agents": ["a"], "all": True}, {"batch": "b", "all": True}])
async def test_it_must_be_said_what_to_test_in_one_way(body: dict[str, Any], client: Any) -> None:
    refused = await client.ask("POST", "tests", body)
    assert (refused.status, refused.json["code"]) == (400, "invalid-request") and refused.json["next_step"]


async def test_the_command_line_lists_as_many_runs_as_are_asked_for(
    client: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (
        await client.ask("POST", "apply", {"items": [{"definition": definition("anna", tests=[CASE])}]})
    ).status == 200
    runs = [(await client.ask("POST", "tests", {"agents": ["anna"]})).json["run"] for _ in range(3)]
    monkeypatch.setattr(identity, "PAGE", 1)

    async def listed(*options: str) -> list[str]:
        told = ["--url", url, "--key", "k", "test", "--list", *options, "-o", "json"]
        done = await asyncio.to_thread(lambda: CliRunner().invoke(cli, told, standalone_mode=False))
        return [row["run"] for row in json.loads(done.stdout)]

    assert sorted(await listed()) == sorted(runs)
    assert len(await listed("--limit", "2")) == 2
