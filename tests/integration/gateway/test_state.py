"""Sessions, people and spaces over HTTP, with preconditions, pages, exports and refusals."""

from typing import Any

import msgspec
import pytest

from chimera_host.contract.call import InvokeRequest

BASE = "/v1/tenants/default"
SESSIONS = f"{BASE}/agents/agent/sessions"


async def send(world: Any, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with world.http.request(method, world.url + path, json=body, headers=named) as answer:
        data = await answer.read()
        if answer.content_type == "application/x-ndjson":
            return answer.status, [msgspec.json.decode(line) for line in data.splitlines()], answer.headers
        return answer.status, msgspec.json.decode(data) if data else None, answer.headers


@pytest.fixture
async def talked(world: Any) -> Any:
    """A world in which Ann has talked with two agents, and nobody in particular with one."""
    await world.host()
    await world.agent()
    await world.agent("other")
    for agent, session, subject in (("agent", "a1", "ann"), ("agent", "a2", None), ("other", "o1", "ann")):
        status, _ = await world.invoke(agent, f"secret of {session}", session=session, subject=subject)
        assert status == 200
    return world


async def test_a_session_is_changed_by_its_etag(talked: Any) -> None:
    status, session, headers = await send(talked, "GET", SESSIONS + "/a1")
    etag = headers["ETag"]
    assert (status, session["version"], session["subject"]) == (200, 1, "ann")
    status, changed, headers = await send(
        talked, "PATCH", SESSIONS + "/a1", {"values": {"mood": "good"}}, If_Match=etag
    )
    assert (status, changed["version"], changed["state"]["values"]) == (200, 2, {"mood": "good"})
    assert headers["ETag"] != etag
    for method, body in (("PATCH", {"values": {}}), ("PUT", {"state": {}}), ("DELETE", None)):
        status, problem, _ = await send(talked, method, SESSIONS + "/a1", body, If_Match=etag)
        assert (status, problem["code"]) == (412, "session-changed")
        assert problem["errors"] == [{"session": "a1", "version": 2, "etag": headers["ETag"]}]
    status, problem, _ = await send(talked, "PUT", SESSIONS + "/a1", {"state": {}, "version": 1})
    assert (status, problem["code"], problem["errors"][0]["version"]) == (409, "session-conflict", 2)
    status, problem, _ = await send(talked, "PUT", SESSIONS + "/a1", {"state": {}})
    assert (status, problem["code"]) == (428, "precondition-required")
    body = {"state": {"values": {"a": 1}}, "ttl": 60}
    status, made, _ = await send(talked, "PUT", SESSIONS + "/new", body, If_None_Match="*")
    assert (status, made["version"], made["ttl"], made["expires"] - made["updated"]) == (200, 1, 60, 60)
    status, _, _ = await send(talked, "DELETE", SESSIONS + "/a1", None, If_Match=headers["ETag"])
    assert status == 204
    assert (await send(talked, "GET", SESSIONS + "/a1"))[0] == 404
    assert (await send(talked, "DELETE", SESSIONS + "/a1"))[0] == 404


async def test_an_agent_finds_what_was_put_into_its_session(world: Any) -> None:
    host = await world.host()
    await world.agent()
    await send(world, "PUT", SESSIONS + "/p", {"state": {"values": {"k": 1}}, "version": 0})
    assert (await world.invoke(session="p"))[0] == 200
    assert host.requests[0].session.values == {"k": 1}
    assert (await send(world, "GET", SESSIONS + "/p"))[1]["version"] == 2


async def test_sessions_are_listed_in_pages(talked: Any) -> None:
    status, page, _ = await send(talked, "GET", SESSIONS + "?limit=1")
    assert (status, [one["session"] for one in page["sessions"]], page["next"]) == (200, ["a1"], "a1")
    _, page, _ = await send(talked, "GET", SESSIONS + "?limit=2&after=a1")
    assert ([one["session"] for one in page["sessions"]], page["next"]) == (["a2"], None)
    assert "state" not in page["sessions"][0] and page["sessions"][0]["size"] > 0
    _, page, _ = await send(talked, "GET", f"{BASE}/sessions?limit=2")
    assert page["next"] == "agent/a2"
    _, page, _ = await send(talked, "GET", f"{BASE}/sessions?after=agent/a2")
    assert [one["session"] for one in page["sessions"]] == ["o1"]
    _, page, _ = await send(talked, "GET", f"{BASE}/sessions?subject=ann")
    assert [one["session"] for one in page["sessions"]] == ["a1", "o1"]
    _, page, _ = await send(talked, "GET", f"{BASE}/sessions?updated_before=5")
    assert page["sessions"] == []
    for query in (
        "limit=0",
        "limit=1001",
        "updated_before=yesterday",
        "updated_before=nan",
        "updated_before=253402300799.0001",
        "subject=",
    ):
        status, problem, _ = await send(talked, "GET", f"{SESSIONS}?{query}")
        assert (status, problem["code"]) == (400, "invalid-request"), query


async def test_a_call_is_for_one_person(talked: Any) -> None:
    status, body = await talked.invoke(session="a1", subject="bob")
    assert (status, body["code"]) == (409, "subject-mismatch")


async def test_all_of_a_person_is_exported_and_erased(talked: Any) -> None:
    path = f"{BASE}/subjects/ann"
    key = {"Idempotency-Key": "k"}
    call = {"input": "secret of a run", "subject": "ann"}
    async with talked.http.post(f"{talked.url}{BASE}/agents/agent/invoke", json=call, headers=key) as answer:
        assert answer.status == 200
    status, found, _ = await send(talked, "GET", path)
    assert (status, found["kept"]["sessions"], found["kept"]["runs"]) == (200, 2, 1)
    status, records, _ = await send(talked, "GET", path + "/export")
    assert (status, [record["record"] for record in records]) == (200, ["session", "session", "run"])
    text = msgspec.json.encode(records).decode()
    assert all(f"secret of {what}" in text for what in ("a1", "o1", "a run")) and "secret of a2" not in text
    status, records, _ = await send(talked, "GET", SESSIONS + "/a2/export")
    assert (status, [record["record"] for record in records]) == (200, ["session"])
    assert (await send(talked, "GET", SESSIONS + "/nobody/export"))[0] == 404
    status, erased, _ = await send(talked, "DELETE", path)
    assert (status, erased["kept"]["sessions"], erased["kept"]["runs"]) == (200, 2, 1)
    assert (await send(talked, "GET", path))[1]["kept"]["sessions"] == 0
    assert (await send(talked, "GET", path + "/export"))[1] == []
    assert (await send(talked, "GET", SESSIONS + "/a2"))[0] == 200
    assert (await send(talked, "GET", f"{BASE}/agents/other/sessions/o1"))[0] == 404


async def test_a_space_is_declared_written_and_read(world: Any) -> None:
    path = f"{BASE}/spaces/board"
    declared = {"owner": "agent:anna", "access": {"*": "read"}, "rules": {"votes/*": "counter"}}
    status, made, _ = await send(world, "PUT", path, {"declared": declared})
    assert (status, made["version"], made["declared"]) == (200, 1, declared)
    status, problem, _ = await send(world, "PUT", path, {"declared": declared})
    assert (status, problem["code"]) == (409, "space-conflict")
    write = [{"key": "votes/a", "op": "add", "value": 2}, {"key": "note", "value": {"x": 1}}]
    status, answer, _ = await send(world, "POST", path + "/entries", {"write": write, "read": ["absent"]})
    assert (status, answer["version"]) == (200, 2)
    assert answer["entries"] == [
        {"key": "absent", "version": 0},
        {"key": "note", "version": 2, "value": {"x": 1}},
        {"key": "votes/a", "version": 2, "value": 2},
    ]
    status, problem, _ = await send(world, "POST", path + "/entries", {"write": [{"key": "note", "op": "add"}]})
    assert (status, problem["code"]) == (422, "space-rule")
    _, page, _ = await send(world, "GET", path + "/entries?limit=1")
    assert ([entry["key"] for entry in page["entries"]], page["next"]) == (["note"], "note")
    _, page, _ = await send(world, "GET", f"{BASE}/spaces")
    assert [(one["space"], one["entries"]) for one in page["spaces"]] == [("board", 2)]
    assert (await send(world, "GET", path))[1]["version"] == 2
    assert (await send(world, "DELETE", path))[0] == 204
    assert (await send(world, "GET", path))[0] == 404
    assert (await send(world, "DELETE", path))[0] == 404
    wrong = {"owner": "nobody"}
    assert (await send(world, "PUT", path, {"declared": wrong}))[0] == 400


async def test_agents_use_a_space_as_themselves(world: Any) -> None:
    async def writes(request: InvokeRequest) -> str:
        body = {"write": [{"key": "log", "op": "append", "value": request.agent}]}
        path = "/internal/v1/state/shared/board"
        status, answer = await world.internal(path, body, call=request.call)
        return f"{status} {answer.get('code', answer.get('version'))}"

    await world.host(answer=writes)
    for name in ("anna", "bert", "carl"):
        await world.agent(name)
    declared = {"owner": "agent:anna", "access": {"bert": "write", "carl": "read"}, "rules": {"log": "append"}}
    await send(world, "PUT", f"{BASE}/spaces/board", {"declared": declared})
    outputs = [(await world.invoke(name))[1]["output"] for name in ("anna", "bert", "carl")]
    assert outputs == ["200 2", "200 3", "403 space-forbidden"]
    _, page, _ = await send(world, "GET", f"{BASE}/spaces/board/entries")
    assert page["entries"][0]["value"] == ["anna", "bert"]
