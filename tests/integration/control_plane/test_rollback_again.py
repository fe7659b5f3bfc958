"""A rollback that is asked for again: after a lost answer, by its key, and by what it is to take back."""

import asyncio
import re
from typing import Any

import pytest
from click.testing import CliRunner

from chimera.adapters.storage.sides.taken_back import KEPT
from chimera.adapters.storage.upkeep.jobs import make_jobs
from chimera.adapters.storage.upkeep.shapes import Expiring
from chimera.entrypoints.cli.main import cli
from chimera.gateway.identity.principal import Principal, encode_header
from chimera.platform.upkeep.settings import RetentionSettings
from chimera.testing.clock import ManualClock

from .test_rollback_many import applied, green, live


async def twice(client: Any, name: str = "anna") -> tuple[str, str]:
    """Two revisions of an agent, of which the second is live."""
    return await applied(client, name, "First."), await applied(client, name, "Second.")


async def command(url: str, *arguments: str) -> Any:
    told = ["--url", url, "--key", "k", *arguments]
    return await asyncio.to_thread(lambda: CliRunner().invoke(cli, told))


async def changes_of(client: Any, name: str = "anna") -> int:
    return len((await client.ask("GET", f"agents/{name}/revisions")).json["revisions"])


# -- by its key ------------------------------------------------------------------------------------------------------


async def test_a_rollback_that_is_asked_for_again_with_its_key_gives_the_same_answer(client: Any) -> None:
    first, second = await twice(client)
    once, again = [await client.ask("POST", "agents/anna/rollback", Idempotency_Key="k1") for _ in range(2)]
    assert (once.status, once.json["revision"], once.json["before"]) == (200, first, second)
    assert (again.json, again.headers["Chimera-Sequence"]) == (once.json, once.headers["Chimera-Sequence"])
    assert (await live(client, "anna"), await changes_of(client)) == (first, 3)
    third = await applied(client, "anna", "Third.")
    assert (await client.ask("POST", "agents/anna/rollback", Idempotency_Key="k1")).json == once.json
    assert await live(client, "anna") == third, "what was made live since stays"
    other = await client.ask("POST", "agents/anna/rollback", Idempotency_Key="k2")
    assert (other.json["revision"], other.json["before"]) == (first, third)


async def test_of_many_that_ask_at_once_with_one_key_one_does_it(client: Any) -> None:
    first, _ = await twice(client)
    asked = [client.ask("POST", "agents/anna/rollback", Idempotency_Key="k1") for _ in range(5)]
    told = [one.json for one in await asyncio.gather(*asked)]
    assert told == [told[0]] * 5 and (await live(client, "anna"), await changes_of(client)) == (first, 3)


async def test_a_key_is_of_one_caller_and_one_agent(client: Any) -> None:
    _, second = await twice(client)
    first, _ = await twice(client, "bert")
    await client.ask("POST", "agents/anna/rollback", Idempotency_Key="k1")
    assert (await client.ask("POST", "agents/bert/rollback", Idempotency_Key="k1")).json["revision"] == first
    ben = Principal(kind="user", subject="https://idp.example|ben", tenant="default", roles=frozenset({"operator"}))
    headers = {"Idempotency_Key": "k1", "Chimera_Principal": encode_header(ben)}
    assert (await client.ask("POST", "agents/anna/rollback", **headers)).json["revision"] == second
    assert (await client.ask("POST", "agents/anna/rollback", Idempotency_Key="a key")).status == 400


async def test_what_stood_so_already_stood_so_and_what_was_refused_is_asked_anew(client: Any) -> None:
    first = await applied(client, "anna", "First.")
    refused = await client.ask("POST", "agents/anna/rollback", Idempotency_Key="k1")
    assert (refused.status, refused.json["code"]) == (409, "no-earlier-revision")
    body = {"revision": first}
    stood = await client.ask("POST", "agents/anna/rollback", body, Idempotency_Key="k2")
    assert stood.json["revision"] == stood.json["before"] == first
    second = await applied(client, "anna", "Second.")
    assert (await client.ask("POST", "agents/anna/rollback", body, Idempotency_Key="k2")).json == stood.json
    assert await live(client, "anna") == second
    assert (await client.ask("POST", "agents/anna/rollback", Idempotency_Key="k1")).json["revision"] == first


async def test_many_go_back_once(client: Any) -> None:
    firsts = {name: (await twice(client, name))[0] for name in ("anna", "bert")}
    bodies: list[dict[str, Any]] = [{"agents": ["anna", "bert", "nobody"]}, {"selector": {"q": "Second."}}]
    told = [await client.ask("POST", "rollback", body, Idempotency_Key="k1") for body in (bodies[0], *bodies)]
    assert {one["agent"]: one["revision"] for one in told[0].json["agents"]} == firsts
    assert [one["agent"] for one in told[0].json["refused"]] == ["nobody"]
    assert [one.json for one in told] == [told[0].json] * 3
    assert {name: await live(client, name) for name in firsts} == firsts


async def test_a_key_is_forgotten_after_a_day(client: Any, clock: ManualClock) -> None:
    await twice(client)
    await client.ask("POST", "agents/anna/rollback", Idempotency_Key="k1")
    (work,) = [one.work for one in make_jobs(RetentionSettings()) if one.kind == "rollbacks"]
    assert isinstance(work, Expiring)
    for later, removed in ((KEPT - 1.0, 0), (KEPT, 1)):
        now = clock.wall() + later
        assert await client.database.write(lambda connection, now=now: work.expire(connection, now, 10)) == removed


# -- by what it takes back -------------------------------------------------------------------------------------------


async def test_what_is_to_be_taken_back_is_named_and_nothing_else_is(client: Any) -> None:
    first, second = await twice(client)
    digits = second.removeprefix("sha256:")[:12]
    for expect in (first, "none", digits[:3], ""):
        refused = await client.ask("POST", "agents/anna/rollback", {"expect": expect})
        assert (refused.status, refused.json["code"]) == (409, "changed-meanwhile"), expect
    assert await live(client, "anna") == second
    assert (await client.ask("POST", "agents/anna/rollback", {"expect": digits})).json["revision"] == first
    again = await client.ask("POST", "agents/anna/rollback", {"expect": digits})
    assert (again.status, f"is at {first[:19]}" in again.json["detail"]) == (409, True)
    assert await live(client, "anna") == first


async def test_a_green_side_is_what_is_taken_back_unless_a_revision_is_chosen(client: Any) -> None:
    first, second = await twice(client)
    digest = await green(client, "anna")
    assert (await client.ask("POST", "agents/anna/rollback", {"expect": second})).status == 409
    back = await client.ask("POST", "agents/anna/rollback", {"expect": digest})
    assert (back.json["revision"], back.json["before"]) == (second, digest)
    assert (await client.ask("POST", "agents/anna/rollback", {"expect": digest})).status == 409, "second stays"
    chosen = await client.ask("POST", "agents/anna/rollback", {"expect": second, "revision": first})
    assert chosen.json["revision"] == first


async def test_a_deleted_agent_that_is_rolled_out_loses_its_green_side_and_stays_out_of_service(
    client: Any, url: str
) -> None:
    await twice(client)
    await client.ask("DELETE", "agents/anna")
    digest = await green(client, "anna", before=None)
    said = await command(url, "rollback", "anna", "--from", digest[:19])
    assert said.exit_code == 0 and said.output.startswith("anna is out of service, as it was; "), said.output
    assert (await client.ask("GET", "agents/anna")).status == 404


# -- the command -----------------------------------------------------------------------------------------------------


async def test_the_command_takes_back_once_though_its_answer_is_lost(client: Any, losing: str) -> None:
    first, _ = await twice(client)
    said = await command(losing, "rollback", "anna")
    assert said.exit_code == 0 and "before at" in said.output, said.output
    assert (await live(client, "anna"), await changes_of(client)) == (first, 3)
    firsts = {name: (await twice(client, name))[0] for name in ("bert", "carl")}
    several = await command(losing, "rollback", *firsts)
    assert several.exit_code == 0 and "2 taken back" in several.output, several.output
    assert {name: await live(client, name) for name in firsts} == firsts


async def test_the_command_says_how_to_ask_again_where_nobody_answers(
    client: Any, losing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chimera.entrypoints.cli.client.KEYED_RETRIES", 1)
    first, second = await twice(client)
    digits = second.removeprefix("sha256:")[:12]
    unsure = await command(losing, "rollback", "anna")
    assert unsure.exit_code != 0 and f"Ask again with --from {digits}" in unsure.stderr
    monkeypatch.setattr("chimera.entrypoints.cli.client.KEYED_RETRIES", 6)
    again = await command(losing, "rollback", "anna", "--from", digits)
    assert again.exit_code != 0 and "nothing was taken back" in str(again.exception)
    assert await live(client, "anna") == first


async def test_several_are_asked_for_again_by_the_key_that_the_command_says(
    client: Any, losing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chimera.entrypoints.cli.client.KEYED_RETRIES", 1)
    firsts = {name: (await twice(client, name))[0] for name in ("anna", "bert")}
    unsure = await command(losing, "rollback", *firsts)
    found = re.search(r"Ask again with --key (key_\w+)\.", unsure.stderr)
    assert unsure.exit_code != 0 and found is not None, unsure.stderr
    again = await command(losing, "rollback", *firsts, "--key", found[1])
    assert again.exit_code == 0 and "2 taken back" in again.output, again.output
    assert {name: await live(client, name) for name in firsts} == firsts
    first, _ = await twice(client, "carl")
    for _ in range(2):  # the first answer is lost
        one = await command(losing, "rollback", "carl", "--key", "mine")
    assert one.exit_code == 0 and await live(client, "carl") == first


async def test_the_command_says_that_a_deleted_agent_is_back(client: Any, url: str) -> None:
    first = await applied(client, "anna", "First.")
    await client.ask("DELETE", "agents/anna")
    said = await command(url, "rollback", "anna")
    assert said.output == f"anna is at 1.0.0 ({first.removeprefix('sha256:')[:12]}) again: it was deleted\n"
    await client.ask("DELETE", "agents/anna")
    many = await command(url, "rollback", "anna", "nobody")
    assert "none: it was deleted" in many.stdout


async def test_from_goes_with_one_agent() -> None:
    done = CliRunner().invoke(cli, ["rollback", "anna", "bert", "--from", "4f1c2e"])
    assert done.exit_code == 2 and "--from goes with one AGENT" in done.stderr


async def test_a_change_that_only_removes_is_opened_once_though_its_answer_is_lost(client: Any, losing: str) -> None:
    await applied(client, "anna", "First.")
    said = await command(losing, "change", "open", "--remove", "anna", "--output", "json")
    assert said.exit_code == 0, said.output
    assert len((await client.ask("GET", "changes")).json["changes"]) == 1


async def test_other_content_is_sent_once_though_its_answer_is_lost(client: Any, losing: str) -> None:
    for name in ("anna", "bert"):
        await applied(client, name, "First.")
    opened = await client.ask("POST", "changes", {"title": "out", "remove": ["anna"]})
    amended = await command(losing, "change", "amend", opened.json["id"], "--remove", "bert", "--output", "json")
    assert amended.exit_code == 0, amended.output
    found = (await client.ask("GET", f"changes/{opened.json['id']}")).json
    assert ([one["agent"] for one in found["items"]], found["version"]) == (["bert"], 2)
