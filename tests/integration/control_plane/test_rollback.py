"""Going back to an earlier revision of an agent: the same bytes live again, by a change like any other."""

from typing import Any

import pytest

from chimera.testing.definitions import definition


async def applied(client: Any, words: str, version: str = "1.0.0") -> str:
    """Apply the agent anna as `words` describe it; its revision."""
    data = definition("anna", metadata={"description": words, "version": version})
    answer = await client.ask("POST", "apply", {"items": [{"definition": data}]})
    assert answer.status == 200, answer.body
    return str((await client.ask("GET", "agents/anna")).json["revision"])


async def live(client: Any) -> tuple[str, str]:
    told = (await client.ask("GET", "agents/anna")).json
    return told["revision"], told["description"]


async def test_the_revision_before_is_live_again_and_back_again_is_the_one_after(client: Any) -> None:
    first, second = await applied(client, "The first."), await applied(client, "The second.", "1.1.0")
    back = await client.ask("POST", "agents/anna/rollback")
    assert (back.status, back.headers["Chimera-Sequence"]) == (200, "3")
    assert back.json == {"agent": "anna", "revision": first, "version": "1.0.0", "before": second, "sequence": 3}
    assert await live(client) == (first, "The first.")
    assert (await client.ask("POST", "agents/anna/rollback", {})).json["revision"] == second
    history = (await client.ask("GET", "agents/anna/revisions")).json["revisions"]
    assert [entry["revision"] for entry in history] == [second, first, second, first]


async def test_any_revision_that_was_live_may_be_named_by_its_beginning(client: Any) -> None:
    first = await applied(client, "The first.")
    await applied(client, "The second.")
    third = await applied(client, "The third.")
    digits = first.removeprefix("sha256:")[:8]
    assert (await client.ask("POST", "agents/anna/rollback", {"revision": digits})).json["revision"] == first
    assert (await client.ask("POST", "agents/anna/rollback", {"revision": third})).json["revision"] == third
    same = (await client.ask("POST", "agents/anna/rollback", {"revision": third})).json
    assert same["revision"] == same["before"] == third
    assert len((await client.ask("GET", "agents/anna/revisions")).json["revisions"]) == 5, "nothing changed"


async def test_a_deleted_agent_comes_back_as_it_was(client: Any) -> None:
    first = await applied(client, "The first.")
    await client.ask("DELETE", "agents/anna")
    back = (await client.ask("POST", "agents/anna/rollback")).json
    assert (back["revision"], back["before"]) == (first, None)
    assert await live(client) == (first, "The first.")


async def test_the_file_that_was_applied_last_counts_as_changed_afterwards(client: Any) -> None:
    await applied(client, "The first.")
    second = await applied(client, "The second.")
    await client.ask("POST", "agents/anna/rollback")
    assert await applied(client, "The second.") == second


@pytest.mark.parametrize(
    ("agent", "body", "status", "code"),
    [
        ("nobody", None, 404, "agent-not-found"),
        ("anna", None, 409, "no-earlier-revision"),
        ("anna", {"revision": "0" * 12}, 409, "no-earlier-revision"),
        ("anna", {"revision": ""}, 409, "no-earlier-revision"),
        ("anna", {"revision": 7}, 400, "invalid-request"),
    ],
)
async def test_what_can_not_be_gone_back_to_is_said(client: Any, agent: str, body: Any, status: int, code: str) -> None:
    await applied(client, "The first.")
    answer = await client.ask("POST", f"agents/{agent}/rollback", body)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.json["next_step"] or status == 400
