"""Taking agents back by name, by a change request or by a selector: at once, and who can't be, with the reason."""

import asyncio
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.sides.store import SideStorage
from chimera.delivery.sides.model import Green
from chimera.entrypoints.cli.main import cli
from chimera.testing.definitions import compiled, definition, staged


async def applied(client: Any, name: str, words: str, *tags: str) -> str:
    data = definition(name, metadata={"description": words, "tags": list(tags)})
    answer = await client.ask("POST", "apply", {"items": [{"definition": data}]})
    assert answer.status == 200, answer.body
    return await live(client, name)


async def live(client: Any, name: str) -> str:
    return str((await client.ask("GET", f"agents/{name}")).json["revision"])


async def green(client: Any, name: str, before: str | None = "live") -> str:
    """Give the agent a green side; `before` is None where it is out of service."""
    catalogue: Catalogue = client.catalogue
    database = catalogue._database
    made = compiled(name, metadata={"description": "Green."})
    await catalogue.stage("default", await catalogue.open_batch("default"), staged(made))
    held = await StoredLeases(database).acquire("rollouts", "me", 60.0)
    assert held is not None
    one = Green(agent=name, revision=made.digest, before=before and await live(client, name))
    assert await SideStorage(database, max_hosts=4).set_green("default", [one], rollout="ro-1", held=held) == {}
    return made.digest


async def test_agents_are_taken_back_by_name_and_the_rest_says_why(client: Any) -> None:
    first = {name: await applied(client, name, "First.") for name in ("anna", "bert")}
    second = {name: await applied(client, name, "Second.") for name in first}
    await applied(client, "carl", "First.")
    before = client.changes
    back = await client.ask("POST", "rollback", {"agents": ["anna", "bert", "carl", "nobody"]})
    assert back.status == 200, back.body
    told = back.json
    assert {one["agent"]: (one["revision"], one["before"]) for one in told["agents"]} == {
        name: (first[name], second[name]) for name in first
    }
    assert [one["agent"] for one in told["refused"]] == ["carl", "nobody"]
    assert all(one["reason"] for one in told["refused"])
    assert str(told["sequence"]) == back.headers["Chimera-Sequence"] and client.changes == before + 1
    assert await live(client, "anna") == first["anna"]
    sides = (await client.ask("GET", "agents/anna")).json["sides"]
    assert [(one["role"], one["revision"]) for one in sides] == [("withdrawn", second["anna"])]


async def test_a_selector_finds_them(client: Any) -> None:
    for name, tag in (("anna", "domain:tax"), ("bert", "domain:law"), ("carl", "domain:tax")):
        await applied(client, name, "First.", tag)
        await applied(client, name, "Second.", tag)
    told = (await client.ask("POST", "rollback", {"selector": {"domain": "tax"}})).json
    assert sorted(one["agent"] for one in told["agents"]) == ["anna", "carl"]
    assert (await client.ask("POST", "rollback", {"selector": {"color": "red"}})).status == 400


async def test_one_way_to_find_them_is_wanted(client: Any) -> None:
    for body in ({}, {"agents": ["a"], "change": "c"}, {"agents": ["a"], "selector": {"q": "x"}}):
        assert (await client.ask("POST", "rollback", body)).status == 400
    unknown = await client.ask("POST", "rollback", {"change": "chg_none"})
    assert (unknown.status, unknown.json["code"]) == (404, "unknown-change")


async def test_an_agent_that_is_rolled_out_loses_its_green_side_and_stays_live(client: Any) -> None:
    blue = await applied(client, "anna", "First.")
    digest = await green(client, "anna")
    assert (await client.ask("GET", "agents/anna")).json["green"] == digest
    back = await client.ask("POST", "agents/anna/rollback", {"now": True})
    assert (back.json["revision"], back.json["before"]) == (blue, digest)
    shown = (await client.ask("GET", "agents/anna")).json
    assert (shown["revision"], shown["green"]) == (blue, None)
    assert [(one["role"], one["revision"]) for one in shown["sides"]] == [("withdrawn", digest)]


async def test_a_thousand_go_back_at_once(client: Any) -> None:
    catalogue: Catalogue = client.catalogue
    names = [f"agent-{number:04d}" for number in range(1_000)]
    for words in ("First.", "Second."):
        made = [compiled(name, metadata={"description": words}) for name in names]
        await catalogue.apply("default", staged(*made), keep_going=False, expect=None, by=None)
    told = (await client.ask("POST", "rollback", {"selector": {"q": "agent-"}})).json
    assert len(told["agents"]) == 1_000 and not told["refused"]
    again = (await client.ask("POST", "rollback", {"agents": names[:1]})).json
    assert again["agents"][0]["before"] == told["agents"][0]["revision"]


async def test_a_change_request_goes_back_whole_and_what_moved_on_stays(client: Any) -> None:
    first = {name: await applied(client, name, "First.") for name in ("anna", "bert", "carl")}
    items = [{"definition": definition(name, metadata={"description": "Second."})} for name in first]
    items.append({"definition": definition("dora")})
    batch = (await client.ask("POST", "batches")).json["batch"]
    sent = await client.ask("POST", f"batches/{batch}/definitions", {"first": 0, "items": items})
    assert sent.status == 200, sent.body
    opened = await client.ask("POST", "changes", {"title": "All of them.", "batch": batch})
    assert opened.status in (200, 201), opened.body
    change = opened.json["id"]
    for name in ("anna", "bert"):
        await applied(client, name, "Second.")
    await applied(client, "dora", definition("dora")["metadata"]["description"])
    third = await applied(client, "carl", "Third.")
    told = (await client.ask("POST", "rollback", {"change": change})).json
    assert {one["agent"]: one["revision"] for one in told["agents"]} == {
        "anna": first["anna"],
        "bert": first["bert"],
        "dora": None,
    }
    assert [one["agent"] for one in told["refused"]] == ["carl"] and await live(client, "carl") == third
    assert (await client.ask("GET", "agents/dora")).status == 404
    newest = (await client.ask("GET", "agents/anna/revisions")).json["revisions"][0]
    assert newest["change"] == change


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def reach(client: Any) -> list[str]:
    """The options by which a command reaches this control plane."""
    await web.TCPSite(client.runner, "127.0.0.1", 0).start()
    return ["--url", f"http://127.0.0.1:{client.runner.addresses[-1][1]}", "--key", "k"]


async def command(reach: list[str], *arguments: str) -> Any:
    told = [*reach, "rollback", *arguments]
    return await asyncio.to_thread(lambda: CliRunner().invoke(cli, told))


async def test_the_command_takes_back_one_several_or_what_a_selector_finds(client: Any, reach: list[str]) -> None:
    for name in ("anna", "bert"):
        await applied(client, name, "First.", "domain:tax")
        await applied(client, name, "Second.", "domain:tax")
    one = await command(reach, "anna", "--now")
    assert one.exit_code == 0 and one.output.startswith("anna is at 1.0.0 ("), one.output
    several = await command(reach, "anna", "bert", "nobody", "--output", "json")
    assert several.exit_code == 65 and "nobody: there is no agent" in several.output
    found = await command(reach, "--selector", "domain=tax", "--yes")
    assert found.exit_code == 0 and "2 taken back" in found.output and "bert" in found.output
    asked = await command(reach, "--selector", "domain=tax")
    assert asked.exit_code == 1 and "Take back all agents with domain=tax?" in asked.output


@pytest.mark.parametrize(
    "arguments", [(), ("anna", "--change", "c"), ("anna", "bert", "--to", "4f1c2e"), ("--selector", "tax", "--yes")]
)
async def test_the_command_wants_one_way_to_find_agents(reach: list[str], arguments: tuple[str, ...]) -> None:
    assert (await command(reach, *arguments)).exit_code == 2
