"""Change requests over the API: opened from a batch, shown, approved, made live; and direct changes where refused."""

import asyncio
from typing import Any

import pytest

from chimera.gateway.identity.principal import Principal, encode_header
from chimera.testing.definitions import definition

BUDGET = {"tokens_per_day": 1_000}


def who(name: str, *roles: str) -> dict[str, str]:
    subject = f"https://idp.example|{name}"
    user = Principal(kind="user", subject=subject, tenant="default", roles=frozenset(roles))
    return {"Chimera_Principal": encode_header(user)}


ANNA, BEN, ADA = who("anna", "operator"), who("ben", "approver"), who("ada", "admin")


async def batch(client: Any, *definitions: dict[str, Any]) -> str:
    made = (await client.ask("POST", "batches")).json["batch"]
    body = {"items": [{"definition": one, "file": f"{one['metadata']['name']}.yaml"} for one in definitions]}
    assert (await client.ask("POST", f"batches/{made}/definitions", body)).status == 200
    return str(made)


async def opened(client: Any, *definitions: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"title": "A change", "batch": await batch(client, *definitions), **more}
    answer = await client.ask("POST", "changes", body, **ANNA)
    assert answer.status == 201, answer.body
    found: dict[str, Any] = answer.json
    return found


async def test_from_a_batch_to_live(client: Any) -> None:
    change = await opened(client, definition("anna", budget=BUDGET), definition("berta", budget=BUDGET))
    assert (change["state"], change["risk"], change["agents"]) == ("open", "medium", 2)
    assert change["author"] == "user:https://idp.example|anna"
    assert [item["agent"] for item in change["items"]] == ["anna", "berta"]
    assert {reason["rule"] for reason in change["risk_reasons"]} == {"budget", "new"}
    await client.pipeline.settle()
    path = f"changes/{change['id']}"
    waiting = (await client.ask("GET", path)).json
    assert (waiting["state"], waiting["next_step"]) == (
        "awaiting-approval",
        f"somebody else: `chimera change approve {change['id']}`",
    )
    own = await client.ask("POST", f"{path}/approve", {"content": change["content"]}, **ANNA)
    assert (own.status, own.json["code"]) == (403, "approval-refused")
    approved = await client.ask("POST", f"{path}/approve", {"content": change["content"], "comment": "ok"}, **BEN)
    assert [one["comment"] for one in approved.json["approvals"]] == ["ok"]
    await client.pipeline.settle()
    assert (await client.ask("GET", path)).json["state"] == "done"
    assert (await client.ask("GET", "agents/berta")).json["file"] == "berta.yaml"
    assert client.changes == 1, "the node agent hears of it"


async def test_the_pages_of_a_change(client: Any) -> None:
    change = await opened(client, *(definition(f"agent-{number}") for number in range(3)))
    path = f"changes/{change['id']}"
    first = (await client.ask("GET", f"{path}/items?limit=2")).json
    assert ([item["agent"] for item in first["items"]], first["next"]) == (["agent-0", "agent-1"], "agent-1")
    rest = (await client.ask("GET", f"{path}/items?limit=2&after={first['next']}")).json
    assert ([item["agent"] for item in rest["items"]], rest["next"]) == (["agent-2"], None)
    assert (await client.ask("GET", f"{path}/verdicts?after=")).json == {"verdicts": [], "next": None}
    assert (await client.ask("GET", f"{path}/verdicts?after=x")).status == 400
    rows = (await client.ask("GET", "changes?state=in-flight&agent=agent-1")).json
    assert ([row["id"] for row in rows["changes"]], rows["next"]) == ([change["id"]], None)
    assert (await client.ask("GET", "changes?state=never")).status == 400
    assert (await client.ask("GET", "changes/chg_never")).json["code"] == "unknown-change"


async def test_other_content_and_other_words(client: Any) -> None:
    change = await opened(client, definition("anna"))
    path = f"changes/{change['id']}"
    body = {"batch": await batch(client, definition("anna", budget=BUDGET)), "remove": []}
    amended = (await client.ask("PUT", f"{path}/content", body, **ANNA)).json
    assert amended["content"] != change["content"]
    late = await client.ask("POST", f"{path}/approve", {"content": change["content"]}, **BEN)
    assert (late.status, late.json["code"]) == (409, "wrong-state")
    said = {"content": amended["content"], "comment": "no tests"}
    assert (await client.ask("POST", f"{path}/reject", said, **BEN)).json["state"] == "rejected"
    assert (await client.ask("POST", f"{path}/abort", **ANNA)).json["code"] == "wrong-state"


async def test_emergencies_pauses_and_reviews(client: Any) -> None:
    change = await opened(client, definition("anna"))
    path = f"changes/{change['id']}"
    assert (await client.ask("POST", f"{path}/pause", **ANNA)).json["code"] == "wrong-state"
    assert (await client.ask("POST", f"{path}/resume", **ANNA)).status == 409
    why = {"reason": "customers get wrong answers"}
    assert (await client.ask("POST", f"{path}/emergency", why, **ANNA)).status == 403
    assert (await client.ask("POST", f"{path}/emergency", why, **ADA)).json["emergency"]["reason"] == why["reason"]
    await client.pipeline.settle()
    assert (await client.ask("GET", "changes")).json["changes"][0]["review"] == "due"
    said = {"decision": "approved", "comment": "it was right"}
    assert (await client.ask("POST", f"{path}/review", said, **BEN)).status == 200
    assert (await client.ask("GET", "changes")).json["changes"][0]["review"] == "done"


async def test_a_policy_without_direct_changes(client: Any) -> None:
    assert (await client.ask("GET", "delivery/policy")).json["version"] == 0
    items = {"items": [{"definition": definition("anna")}]}
    assert (await client.ask("POST", "apply", items)).status == 200
    put = await client.ask("PUT", "delivery/policy", {"policy": {"direct": False}, "expect": 0}, **ADA)
    assert (put.status, put.json["policy"]["direct"], put.json["version"]) == (200, False, 1)
    waiting = await batch(client, definition("berta"))
    for method, path, body in [
        ("POST", "apply", items),
        ("POST", f"batches/{waiting}/commit", None),
        ("POST", "agents/delete", {"names": ["anna"]}),
        ("DELETE", "agents/anna", None),
    ]:
        refused = await client.ask(method, path, body)
        assert (refused.status, refused.json["code"]) == (409, "direct-refused"), path
        assert "chimera change open" in refused.json["next_step"]
    change = (await client.ask("POST", "changes", {"title": "by change", "batch": waiting}, **ANNA)).json
    assert change["agents"] == 1, "a batch whose commit was refused can still become a change"
    assert (await client.ask("POST", "agents/anna/rollback", {})).json["code"] == "no-earlier-revision"


async def test_the_way_back_is_open_and_choosing_where_to_is_the_emergency_path(client: Any) -> None:
    revisions = []
    for words in ("one", "two", "three"):
        item = {"definition": definition("anna", metadata={"description": words})}
        assert (await client.ask("POST", "apply", {"items": [item]})).status == 200
        revisions.append((await client.ask("GET", "agents/anna")).json["revision"])
    first, second, third = revisions
    old = {"revision": first}
    assert (await client.ask("POST", "agents/anna/rollback", old, **ANNA)).status == 200, "changes are direct"
    assert (await client.ask("POST", "agents/anna/rollback", {"revision": third}, **ANNA)).status == 200
    frozen = {"name": "always", "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]}
    policy = {"direct": False, "freezes": [{**frozen, "starts": "00:00", "ends": "00:00"}]}
    assert (await client.ask("PUT", "delivery/policy", {"policy": policy}, **ADA)).status == 200

    refused = await client.ask("POST", "agents/anna/rollback", old, **ANNA)
    assert (refused.status, refused.json["code"]) == (409, "direct-refused")
    assert "`--to`" in refused.json["next_step"] and "role admin" in refused.json["next_step"]
    assert (await client.ask("GET", "agents/anna")).json["revision"] == third
    back = (await client.ask("POST", "agents/anna/rollback", {"now": True}, **ANNA)).json
    assert back["revision"] == first, "what was live before, in a freeze too, by nobody's approval"
    chosen = (await client.ask("POST", "agents/anna/rollback", {"revision": second}, **ADA)).json
    assert chosen["revision"] == second
    told = (await client.ask("GET", "agents/anna/revisions")).json["revisions"]
    assert [entry["by"] for entry in told[:2]] == ["user:https://idp.example|ada", "user:https://idp.example|anna"]


@pytest.mark.parametrize(
    "policy",
    [
        {"direct": "no"},
        {"approvals": {"low": {"needs": [{"count": 0}]}}},
        {"freezes": [{"name": "x", "starts": "16:00", "ends": "18:00"}]},
        {"freezes": [{"name": "x", "starts": "0001-01-01T00:00", "ends": "2027-01-01T00:00", "zone": "Europe/Zurich"}]},
        {"unknown": True},
        {"approvals": {"high": {"needs": [{"roles": ["wizard"]}]}}},
    ],
)
async def test_a_policy_that_isnt_one(client: Any, policy: dict[str, Any]) -> None:
    answer = await client.ask("PUT", "delivery/policy", {"policy": policy}, **ADA)
    assert answer.status in (400, 422), answer.body
    assert (await client.ask("GET", "delivery/policy")).json["version"] == 0


async def test_freezes(client: Any) -> None:
    freeze = {"name": "holidays", "starts": "2026-12-23T18:00", "ends": "2027-01-04T08:00", "zone": "Europe/Zurich"}
    added = await client.ask("PUT", "delivery/freezes", freeze, **ADA)
    assert [one["name"] for one in added.json["policy"]["freezes"]] == ["holidays"]
    gone = await client.ask("DELETE", "delivery/freezes/holidays", **ADA)
    assert (gone.json["policy"]["freezes"], gone.json["version"]) == ([], 2)
    assert (await client.ask("DELETE", "delivery/freezes/holidays", **ADA)).json["version"] == 2
    refused = await client.ask("DELETE", "delivery/freezes/_9", **ADA)
    assert refused.status == 422 and "no name of a freeze" in refused.json["detail"]


async def test_a_change_that_is_opened_again_with_its_key_is_the_same_one(client: Any) -> None:
    await client.ask("POST", "apply", {"items": [{"definition": definition("anna")}]})
    body = {"title": "Anna leaves", "remove": ["anna"]}
    first, again = [await client.ask("POST", "changes", body, Idempotency_Key="k1", **ANNA) for _ in range(2)]
    assert (first.status, again.status, again.json["id"]) == (201, 201, first.json["id"])
    theirs = await client.ask("POST", "changes", body, Idempotency_Key="k1", **BEN)
    assert (theirs.status, theirs.json["code"]) == (409, "change-conflicts"), "somebody else's key is another one"
    assert (await client.ask("POST", "changes", body, Idempotency_Key="a key", **ANNA)).status == 400


async def test_content_that_is_sent_again_with_its_key_is_not_refused(client: Any) -> None:
    change = await opened(client, definition("anna"))
    path = f"changes/{change['id']}/content"
    body = {"batch": await batch(client, definition("anna", budget=BUDGET)), "remove": []}
    first, again = [await client.ask("PUT", path, body, Idempotency_Key="k1", **ANNA) for _ in range(2)]
    assert (first.status, again.status, again.json) == (200, 200, first.json), again.body
    theirs = await client.ask("PUT", path, body, Idempotency_Key="k1", **BEN)
    assert (theirs.status, theirs.json["code"]) == (404, "unknown-batch"), "somebody else's key is another one"
    other = {"batch": await batch(client, definition("anna", budget={"tokens_per_day": 2_000}))}
    later = await client.ask("PUT", path, other, Idempotency_Key="k2", **ANNA)
    assert (later.status, later.json["content"] != first.json["content"]) == (200, True)


async def test_of_two_who_send_content_at_once_with_one_key_neither_is_refused(client: Any) -> None:
    change = await opened(client, definition("anna"))
    path = f"changes/{change['id']}/content"
    body = {"batch": await batch(client, definition("anna", budget=BUDGET)), "remove": []}
    both = await asyncio.gather(*(client.ask("PUT", path, body, Idempotency_Key="k1", **ANNA) for _ in range(2)))
    assert [one.status for one in both] == [200, 200], [one.body for one in both]
    assert both[0].json == both[1].json
