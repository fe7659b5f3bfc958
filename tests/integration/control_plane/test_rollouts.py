"""Rollouts by the API and the command line: begun of a batch, followed live, paused, aborted, done."""

import asyncio
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from sqlalchemy import update

import chimera.entrypoints.cli.client as client_module
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.schema.rollouts import rollout
from chimera.adapters.storage.sides.store import SideStorage
from chimera.delivery.rollout.service import LEASE
from chimera.entrypoints.cli.main import cli
from chimera.gateway.identity.principal import Principal, encode_header
from chimera.gateway.sides.ports import Loads
from chimera.kernel.leases import Lease
from chimera.testing.definitions import definition
from chimera.testing.losing import losing_answers

AT_ONCE = {"step_seconds": 0, "bake_seconds": 0, "waves": [], "steps": [50, 100]}
NAMES = ("anna", "bert", "carl")


def other(name: str) -> dict[str, Any]:
    return definition(name, model={"temperature": 0.5})


async def sent(client: Any, *definitions: dict[str, Any]) -> str:
    """A batch of definitions that nobody has committed."""
    batch = (await client.ask("POST", "batches")).json["batch"]
    items = [{"source": f"{number:064x}", "definition": one} for number, one in enumerate(definitions)]
    told = await client.ask("POST", f"batches/{batch}/definitions", {"first": 0, "items": items})
    assert not any(one.get("faults") for one in told.json["results"]), told.json
    return str(batch)


@pytest.fixture
async def live(client: Any) -> Any:
    """Three agents are live."""
    batch = await sent(client, *(definition(name) for name in NAMES))
    assert (await client.ask("POST", f"batches/{batch}/commit", {})).status == 200
    return client


async def begun(client: Any, *names: str, **policy: Any) -> Any:
    batch = await sent(client, *(other(name) for name in names or NAMES))
    return await client.ask("POST", "rollouts", {"batch": batch, "title": "warmer", "policy": {**AT_ONCE, **policy}})


async def lease(client: Any) -> Lease:
    held = await StoredLeases(client.database).acquire(LEASE, "test", 600.0)
    assert held is not None
    return held


async def led(client: Any, rollout: str, passes: int = 20) -> str:
    """A leader's passes, and a gateway that loads what it is told to; the state that it comes to."""
    held, sides = await lease(client), SideStorage(client.database, max_hosts=4)
    for _ in range(passes):
        standing = await sides.look("default", NAMES)
        loads = [
            Loads(tenant="default", agent=one.agent, revision=one.green, wanted=1, holding=1)
            for one in standing.values()
            if one.green is not None
        ]
        await sides.loaded(loads, held=held)
        await client.rollouts.round(held)
    return str((await client.ask("GET", f"rollouts/{rollout}")).json["state"])


async def test_a_batch_is_rolled_out_and_live_at_its_end(live: Any) -> None:
    answer = await begun(live)
    assert answer.status == 201, answer.json
    made = answer.json
    assert (made["state"], made["agents"], made["moved"], made["by"]) == ("running", 3, 0, "system:local")
    assert (made["waves"], made["phases"], made["title"]) == (2, {"pending": 3}, "warmer")
    before = (await live.ask("GET", "agents/anna")).json["revision"]
    assert await led(live, made["id"]) == "done"
    shown = (await live.ask("GET", f"rollouts/{made['id']}")).json
    assert (shown["phases"], shown["strengths"], shown["moved"]) == ({"done": 3}, {"low": 3}, 3)
    after = (await live.ask("GET", "agents/anna")).json["revision"]
    agents = (await live.ask("GET", f"rollouts/{made['id']}/agents")).json["agents"]
    assert [one["agent"] for one in agents] == list(NAMES)
    assert (agents[0]["before"], agents[0]["revision"], agents[0]["weight"]) == (before, after, 100.0)
    assert agents[0]["reason"] == "0 calls; it has no evaluation cases"
    assert live.changes > 0


async def test_lists_are_paged_and_what_is_not_there_is_said(live: Any) -> None:
    first = (await begun(live, "anna")).json["id"]
    second = (await begun(live, "bert", "carl")).json["id"]
    page = (await live.ask("GET", "rollouts?limit=1")).json
    assert ([one["id"] for one in page["rollouts"]], page["next"]) == ([second], second)
    page = (await live.ask("GET", f"rollouts?limit=1&after={second}")).json
    assert ([one["id"] for one in page["rollouts"]], page["next"]) == ([first], None)
    page = (await live.ask("GET", f"rollouts/{second}/agents?limit=1")).json
    assert ([one["agent"] for one in page["agents"]], page["next"]) == (["bert"], "0")
    page = (await live.ask("GET", f"rollouts/{second}/agents?limit=1&after=0")).json
    assert ([one["agent"] for one in page["agents"]], page["next"]) == (["carl"], None)
    assert (await live.ask("GET", "rollouts/other")).json["type"].endswith("unknown-rollout")
    assert (await live.ask("GET", "rollouts?limit=0")).status == 400
    assert (await live.ask("GET", f"rollouts/{second}/agents?after=x")).status == 400
    again = await begun(live, "anna")
    assert (again.status, again.json["type"].endswith("rollout-conflict")) == (409, True)


async def test_a_rollout_that_is_asked_for_again_with_its_key_is_the_same_one(live: Any) -> None:
    async def ask(key: str, *names: str) -> Any:
        batch = await sent(live, *(other(name) for name in names))
        return await live.ask("POST", "rollouts", {"batch": batch, "policy": AT_ONCE}, Idempotency_Key=key)

    first = (await ask("k1", "anna")).json["id"]
    assert [(await ask(key, *names)).json.get("id") for key, *names in [("k1", "anna"), ("k1", "bert")]] == [first] * 2
    assert await led(live, first) == "done"
    again = await ask("k1", "anna")
    assert (again.status, again.json["id"], again.json["state"]) == (201, first, "done"), "though it is live by now"
    assert (await ask("k2", "anna")).json["type"].endswith("nothing-to-roll-out")
    second = (await ask("k2", "bert")).json["id"]
    assert second != first
    batch = await sent(live, other("carl"))
    ben = Principal(kind="user", subject="https://idp.example|ben", tenant="default", roles=frozenset({"operator"}))
    headers = {"Idempotency_Key": "k1", "Chimera_Principal": encode_header(ben)}
    theirs = await live.ask("POST", "rollouts", {"batch": batch, "policy": AT_ONCE}, **headers)
    assert theirs.json["id"] not in (first, second), "somebody else's key is another one"
    assert (await ask("a key", "anna")).status == 400
    assert (await ask("k" * 256, "anna")).status == 400


@pytest.mark.parametrize(
    "policy", [{"canary": 0}, {"unknown": 1}, {"steps": []}, {"steps": [101]}, {"error": 1}, {"waves": "all"}]
)
async def test_a_policy_that_is_none_is_refused(live: Any, policy: dict[str, Any]) -> None:
    answer = await begun(live, "anna", **policy)
    assert (answer.status, "policy" in answer.json["detail"]) == (400, True)


async def test_what_is_live_as_it_is_is_not_rolled_out(live: Any) -> None:
    batch = await sent(live, definition("anna"))
    answer = await live.ask("POST", "rollouts", {"batch": batch})
    assert (answer.status, answer.json["type"].endswith("nothing-to-roll-out")) == (409, True)
    assert (await live.ask("POST", "rollouts", {"batch": "gone"})).status in (404, 409)


async def test_agents_are_taken_out_also_where_nothing_else_changes(live: Any) -> None:
    name = (await live.ask("POST", "rollouts", {"remove": ["bert", "nobody"], "policy": AT_ONCE})).json["id"]
    assert await led(live, name) == "done"
    assert [(await live.ask("GET", f"agents/{one}")).status for one in NAMES] == [200, 404, 200]
    assert (await live.ask("POST", "rollouts", {"remove": ["bert"]})).json["type"].endswith("nothing-to-roll-out")


async def test_an_agent_is_changed_or_taken_out_not_both(live: Any) -> None:
    body = {"batch": await sent(live, other("anna"), other("bert")), "remove": ["bert"], "policy": AT_ONCE}
    answer = await live.ask("POST", "rollouts", body)
    assert (answer.status, answer.json["type"].endswith("no-change")) == (409, True)
    assert "bert is both changed and taken out" in answer.json["detail"]


async def test_where_agents_are_changed_by_change_requests_nobody_rolls_out_directly(live: Any) -> None:
    policy = (await live.ask("GET", "delivery/policy")).json
    body = {"policy": {**policy["policy"], "direct": False}}
    assert (await live.ask("PUT", "delivery/policy", body)).status == 200
    answer = await begun(live, "anna")
    assert (answer.status, answer.json["type"].endswith("direct-refused")) == (409, True)


async def test_paused_and_aborted_nothing_of_it_is_live(live: Any) -> None:
    name = (await begun(live)).json["id"]
    await led(live, name, 3)
    paused = await live.ask("POST", f"rollouts/{name}/pause", {"reason": "lunch"})
    assert (paused.status, paused.json["wanted"]) == (200, "pause")
    assert await led(live, name, 10) == "paused"
    assert (await live.ask("POST", f"rollouts/{name}/resume")).json["wanted"] == "run"
    assert (await live.ask("POST", f"rollouts/{name}/abort", {"reason": "no"})).status == 200
    assert await led(live, name) == "aborted"
    shown = (await live.ask("GET", f"rollouts/{name}")).json
    assert (shown["moved"], shown["reason"]) == (0, "aborted by system:local: no")
    late = await live.ask("POST", f"rollouts/{name}/pause")
    assert (late.status, late.json["type"].endswith("rollout-state")) == (409, True)


async def test_the_rollout_of_a_change_goes_on_when_the_change_does(live: Any) -> None:
    name = (await begun(live)).json["id"]
    of_change = update(rollout).where(rollout.c.id == name).values(change="chg_1")
    await live.database.write(lambda connection: connection.execute(of_change))
    for verb in ("pause", "resume"):
        answer = await live.ask("POST", f"rollouts/{name}/{verb}")
        assert (answer.status, answer.json["next_step"]) == (409, f"`chimera change {verb} chg_1`")
    assert (await live.ask("POST", f"rollouts/{name}/abort")).status == 200


async def command(url: str, *arguments: str) -> Any:
    told = ["--url", url, "--key", "k", "rollout", *arguments]
    return await asyncio.to_thread(lambda: CliRunner().invoke(cli, told, standalone_mode=False))


async def test_the_command_line_starts_follows_and_shows_a_rollout(live: Any, url: str, tmp_path: Any) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(other(name)))
    files = tmp_path / "agents.yaml"
    files.write_text("\n---\n".join(msgspec.json.encode(other(name)).decode() for name in NAMES))
    settings = [part for name in ("step_seconds", "bake_seconds") for part in ("--set", f"{name}=0")]
    started = await command(url, "start", str(files), "--at-once", *settings, "--output", "json")
    assert started.exit_code == 0, started.output
    made = msgspec.json.decode(started.output)
    assert (made["agents"], made["policy"]["steps"], made["policy"]["bake_seconds"]) == (3, [100.0], 0.0)
    watching = asyncio.create_task(command(url, "watch", made["id"], "--output", "json"))
    await asyncio.sleep(0)
    assert await led(live, made["id"]) == "done"
    watched = await watching
    states = [msgspec.json.decode(line)["state"] for line in watched.output.splitlines()]
    assert states[-1] == "done"
    shown = await command(url, "show", made["id"])
    assert "done: 3 of 3 moved" in shown.output
    assert "low evidence: 3" in shown.output
    assert "carl" in shown.output
    listed = await command(url, "list")
    assert made["id"] in listed.output
    late = await command(url, "abort", made["id"])
    assert "is done already" in str(late.exception)


async def test_the_command_line_starts_one_rollout_though_the_answer_is_lost(
    live: Any, url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "LEAST_PAUSE", 0.0)
    (tmp_path / "anna.yaml").write_bytes(msgspec.json.encode(other("anna")))
    async with losing_answers(url, b"POST /v1/tenants/default/rollouts ", times=2) as losing:
        started = await command(losing.url, "start", str(tmp_path / "anna.yaml"), "--output", "json")
    assert losing.lost == 2
    made = (await live.ask("GET", "rollouts")).json["rollouts"]
    assert [one["id"] for one in made] == [msgspec.json.decode(started.output)["id"]]


async def test_the_command_line_says_how_a_rollout_ended(live: Any, url: str) -> None:
    name = (await begun(live)).json["id"]
    aborted = await command(url, "abort", name, "--reason", "no")
    assert aborted.exit_code == 0
    await led(live, name)
    watched = await command(url, "watch", name)
    assert "aborted: 0 of 3 moved" in watched.output
    assert watched.return_value == 65, "`main` makes it the exit code"
