"""Events over HTTP on a real gateway: subscriptions, deliveries to real receivers, dead letters, webhooks of tasks."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from cloudevents.v1.http import from_http
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from chimera.testing.receivers import Got, Receiver

from .eventing import QUICK, TENANT, happen, until

SUBSCRIPTIONS = f"{TENANT}/subscriptions"
LETTERS = f"{TENANT}/dead-letters"


@pytest.fixture
async def world(make_world: Callable[..., Any]) -> AsyncIterator[Any]:
    async with make_world(settings={"events": QUICK, "http": {"stream_comment": 0.1, "stream_idle": 1.0}}) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as made:
        yield made


async def subscribe(world: Any, receiver: Receiver, name: str = "shop", **fields: Any) -> dict[str, Any]:
    body = {"name": name, "url": receiver.url, "types": ["tenant."], **fields}
    status, made = await world.post(SUBSCRIPTIONS, body)
    assert status == 201, made
    return dict(made)


async def letters(world: Any) -> list[dict[str, Any]]:
    return list((await world.get(LETTERS))[1]["dead_letters"])


def subjects(got: list[Got]) -> list[str]:
    return [one.event["subject"] for one in got]


async def fail(_: Got) -> web.Response:
    return web.Response(status=500, text="secret words of the receiver")


# -- deliveries --------------------------------------------------------------------------------------------------------


async def test_a_receiver_gets_signed_cloud_events_in_order(world: Any, receiver: Receiver) -> None:
    made = await subscribe(world, receiver)
    await happen(world, "a", "b", "a")
    got = await receiver.until(lambda got: len(got) == 3)

    for one in got:
        Webhook(made["secret"]).verify(one.body, one.headers)
        event = from_http({name.lower(): value for name, value in one.headers.items()}, one.body)
        assert event["source"] == "https://chimera.example/v1/tenants/default"
        assert event["type"] == "chimera.tenant.resumed" and event["id"] == one.headers["webhook-id"]
        assert event.data == {"name": event["subject"], "by": "system:test"}
    assert [one.place for one in got if one.event["subject"] == "a"] == sorted(
        one.place for one in got if one.event["subject"] == "a"
    )

    async def caught_up() -> Any:
        shown = (await world.get(f"{SUBSCRIPTIONS}/shop"))[1]
        return shown if shown["behind"] == 0 and shown["delivered"] else None

    shown = await until(caught_up)
    raw = base64.b64decode(made["secret"].removeprefix("whsec_"))
    for file in world.folder.glob("chimera.db*"):
        assert raw not in file.read_bytes() and made["secret"][6:].encode() not in file.read_bytes(), "it is stored"
    assert (shown["pending"], shown["dead_letters"], shown["served"], shown["state"]) == (0, 0, True, "active")


async def test_the_binary_form_has_its_attributes_in_headers(world: Any, receiver: Receiver) -> None:
    made = await subscribe(world, receiver, mode="binary")
    await happen(world, "käse")
    (one,) = await receiver.until(lambda got: len(got) == 1)
    assert json.loads(one.body) == {"name": "käse", "by": "system:test"}
    assert one.headers["ce-subject"] == "k%C3%A4se" and one.headers["Content-Type"] == "application/json"
    Webhook(made["secret"]).verify(one.body, one.headers)


async def test_a_flaky_receiver_gets_everything_and_each_subject_in_order(world: Any, receiver: Receiver) -> None:
    made = await subscribe(world, receiver)
    turns = ["500", "302", "close", "hang", "huge"]

    async def answer(got: Got) -> web.StreamResponse | None:
        match turns[got.number - 1] if got.number <= len(turns) else "ok":
            case "500":
                return web.Response(status=500)
            case "302":
                return web.Response(status=302, headers={"Location": receiver.url + "/elsewhere"})
            case "close":
                return None
            case "hang":
                await asyncio.sleep(2.0)
                return web.Response()
            case "huge":
                return web.Response(body=b"x" * 5_000_000)
            case _:
                return web.Response()

    receiver.answer = answer
    names = [f"s{number % 3}" for number in range(12)]
    await happen(world, *names)

    async def all_there() -> bool:
        shown = (await world.get(f"{SUBSCRIPTIONS}/shop"))[1]
        return bool(shown["pending"] == 0 and shown["behind"] == 0)

    await until(all_there)
    assert sorted({one.place for one in receiver.got}) == list(range(2, 14))
    assert all(one.path == "/in" for one in receiver.got), "a redirect is not followed"
    for name in set(names):
        first = list(dict.fromkeys(one.place for one in receiver.got if one.event["subject"] == name))
        assert first == sorted(first)
    for one in receiver.got:
        Webhook(made["secret"]).verify(one.body, one.headers)
    assert await letters(world) == []


async def test_what_is_not_taken_is_a_dead_letter_to_be_seen_replayed_and_dropped(
    world: Any, receiver: Receiver
) -> None:
    await subscribe(world, receiver)
    receiver.answer = fail
    await happen(world, "bad", "worse")

    async def two() -> Any:
        found = await letters(world)
        return found if len(found) == 2 else None

    found = await until(two)
    assert [(one["subscription"], one["status"], one["attempts"]) for one in found] == [("shop", 500, 4)] * 2
    assert "secret words" not in json.dumps(found) and "127.0.0.1" not in json.dumps(found)
    by_subject = {one["event"]["subject"]: one for one in found}
    status, one = await world.get(f"{LETTERS}/{by_subject['bad']['letter']}")
    assert (status, one) == (200, by_subject["bad"])
    assert (await world.get(SUBSCRIPTIONS))[1]["subscriptions"][0]["dead_letters"] == 2

    tried = len(receiver.got)
    receiver.answer = Receiver().answer
    assert await world.post(f"{LETTERS}/drop", {"dead_letters": [by_subject["worse"]["letter"]]}) == (
        200,
        {"dead_letters": 1, "more": False},
    )
    assert (await world.post(f"{LETTERS}/replay", {"subscription": "shop"}))[1]["dead_letters"] == 1
    await receiver.until(lambda got: len(got) == tried + 1)
    assert receiver.got[-1].event["subject"] == "bad"
    await happen(world, "worse")
    await receiver.until(lambda got: len(got) == tried + 2)
    assert receiver.got[-1].place != by_subject["worse"]["position"], "what was dropped is not sent again"
    for path in ("replay", "drop"):
        status, problem = await world.post(f"{LETTERS}/{path}", {"dead_letters": [found[0]["letter"]]})
        assert (status, problem["code"]) == (404, "dead-letter-not-found")
        assert (await world.post(f"{LETTERS}/{path}", {}))[0] == 400
    assert (await world.get(f"{LETTERS}/dl_none"))[0] == 404


async def test_gone_pauses_and_resuming_goes_on_with_what_waited(world: Any, receiver: Receiver) -> None:
    await subscribe(world, receiver)

    async def gone(_: Got) -> web.Response:
        return web.Response(status=410)

    receiver.answer = gone
    await happen(world, "a", "a")

    async def paused() -> bool:
        return bool((await world.get(f"{SUBSCRIPTIONS}/shop"))[1]["why"] == "gone")

    await until(paused)
    receiver.answer = Receiver().answer
    status, shown = await world.post(f"{SUBSCRIPTIONS}/shop/resume", {})
    assert (status, shown["state"], shown["why"]) == (200, "active", "")
    got = await receiver.until(lambda got: len(got) == 3)
    assert [one.place for one in got[1:]] == [2, 3]


async def test_one_hanging_receiver_does_not_hold_up_another(world: Any, receiver: Receiver) -> None:
    async with Receiver() as slow:

        async def hang(_: Got) -> web.Response:
            await asyncio.sleep(3.0)
            return web.Response()

        slow.answer = hang
        await subscribe(world, slow, "slow")
        await subscribe(world, receiver, "quick")
        await happen(world, *[f"s{number}" for number in range(40)])
        await receiver.until(lambda got: len({one.place for one in got}) == 40)
        assert slow.most_at_once <= 8


async def test_pause_move_and_delete_are_obeyed(world: Any, receiver: Receiver) -> None:
    await subscribe(world, receiver)
    await happen(world, "a")
    await receiver.until(lambda got: len(got) == 1)
    assert (await world.post(f"{SUBSCRIPTIONS}/shop/pause", None))[1]["why"] == "asked"
    await asyncio.sleep(0.1)
    await happen(world, "b")
    await asyncio.sleep(0.2)
    assert subjects(receiver.got) == ["a"]
    assert (await world.post(f"{SUBSCRIPTIONS}/shop/resume", {"from": "beginning"}))[0] == 200
    await receiver.until(lambda got: len(got) == 3)
    assert subjects(receiver.got) == ["a", "a", "b"]
    async with world.http.delete(f"{world.url}{SUBSCRIPTIONS}/shop") as answer:
        assert answer.status == 204
    await asyncio.sleep(0.1)
    await happen(world, "c")
    await asyncio.sleep(0.2)
    assert subjects(receiver.got) == ["a", "a", "b"]
    assert (await world.get(f"{SUBSCRIPTIONS}/shop"))[0] == 404


async def test_a_rotated_secret_signs_beside_the_old_one_for_a_while(world: Any, receiver: Receiver) -> None:
    made = await subscribe(world, receiver)
    status, rotated = await world.post(f"{SUBSCRIPTIONS}/shop/rotate", {"overlap": 100})
    assert status == 200 and rotated["secret"] != made["secret"]
    await asyncio.sleep(0.1)
    await happen(world, "a")
    (one,) = await receiver.until(lambda got: len(got) == 1)
    for secret in (made["secret"], rotated["secret"]):
        Webhook(secret).verify(one.body, one.headers)
    status, last = await world.post(f"{SUBSCRIPTIONS}/shop/rotate", {"overlap": 0})
    await asyncio.sleep(0.1)
    await happen(world, "b")
    await receiver.until(lambda got: len(got) == 2)
    Webhook(last["secret"]).verify(receiver.got[1].body, receiver.got[1].headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(rotated["secret"]).verify(receiver.got[1].body, receiver.got[1].headers)


async def test_a_secret_by_reference_is_read_and_never_shown(world: Any, receiver: Receiver) -> None:
    folder = world.folder / "secrets"
    folder.mkdir()
    secret = "whsec_" + "QUJD" * 8
    for name, text in (("webhook.default.ci", secret), ("webhook.default.plain", "PLANTED-and-no-webhook-secret")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    made = await subscribe(world, receiver, secret="secret:webhook.default.ci")
    assert "secret" not in {name for name in made if name != "subscription"}
    await happen(world, "a")
    (one,) = await receiver.until(lambda got: len(got) == 1)
    Webhook(secret).verify(one.body, one.headers)
    assert secret not in json.dumps((await world.get(SUBSCRIPTIONS))[1])
    assert (await world.post(f"{SUBSCRIPTIONS}/shop/rotate", {}))[0] == 422

    await subscribe(world, receiver, "other", secret="secret:webhook.default.plain")
    await happen(world, "b")

    async def dead() -> Any:
        return await letters(world)

    (letter,) = await until(dead)
    assert letter["subscription"] == "other" and "PLANTED" not in json.dumps(letter)


# -- webhooks of tasks -------------------------------------------------------------------------------------------------

TASKS = f"{TENANT}/agents/agent/tasks"


async def test_a_tasks_webhook_is_told_its_end_signed_with_a_secret_of_its_own(world: Any, receiver: Receiver) -> None:
    await world.agent()
    await world.host()
    status, task = await world.post(
        TASKS, {"input": "PLANTED", "webhook": {"url": receiver.url}}, **{"Idempotency-Key": "k"}
    )
    assert status == 202
    (one,) = await receiver.until(lambda got: len(got) == 1)
    Webhook(task["webhook_secret"]).verify(one.body, one.headers)
    assert one.event["type"] == "chimera.task.succeeded" and one.event["data"]["task"] == task["task"]
    assert "PLANTED" not in one.body.decode()
    status, again = await world.post(
        TASKS, {"input": "PLANTED", "webhook": {"url": receiver.url}}, **{"Idempotency-Key": "k"}
    )
    assert (status, again["webhook_secret"]) == (200, task["webhook_secret"])
    assert "webhook_secret" not in (await world.get(f"{TASKS}/{task['task']}"))[1]
    for url, secret in (("https://10.0.0.1/", ""), (receiver.url, "secret:webhook.other.x")):
        status, problem = await world.post(TASKS, {"input": "x", "webhook": {"url": url, "secret": secret}})
        assert (status, problem["code"]) == (422, "invalid-subscription")


async def test_chosen_states_of_a_batch_are_told_and_a_dead_receiver_leaves_letters(
    world: Any, receiver: Receiver
) -> None:
    await world.agent()
    await world.host()

    async def answer(got: Got) -> web.Response:
        return web.Response(status=500 if "bad" in got.path else 200)

    receiver.answer = answer
    good = {"url": receiver.url + "?good", "states": ["started", "succeeded"]}
    tasks = [{"agent": "agent", "input": "x", "webhook": one} for one in (good, {"url": receiver.url + "?bad"})]
    status, made = await world.post(f"{TENANT}/tasks", {"tasks": tasks})
    assert status == 202, made
    secrets = [one["webhook_secret"] for one in made["tasks"]]
    assert len(set(secrets)) == 2

    async def dead() -> Any:
        return await letters(world)

    (letter,) = await until(dead)
    assert (letter["subscription"], letter["event"]["type"]) == ("tasks", "chimera.task.succeeded")
    (own,) = (await world.get(SUBSCRIPTIONS))[1]["subscriptions"]
    assert own["name"] == f"tasks:{own['key']}" and own["dead_letters"] == 1
    assert (await world.post(f"{SUBSCRIPTIONS}/{own['name']}/rotate", {}))[0] == 422
    for verb, state in (("pause", "paused"), ("resume", "active")):
        assert (await world.post(f"{SUBSCRIPTIONS}/{own['name']}/{verb}", None))[1]["state"] == state
    well = [one for one in receiver.got if "good" in one.path]
    assert [one.event["type"] for one in well] == ["chimera.task.started", "chimera.task.succeeded"]
    tried = len(receiver.got)
    receiver.answer = Receiver().answer
    assert (await world.post(f"{LETTERS}/replay", {"subscription": "tasks"}))[0] == 200
    await receiver.until(lambda got: len(got) == tried + 1)
    Webhook(secrets[1]).verify(receiver.got[-1].body, receiver.got[-1].headers)
    assert "bad" in receiver.got[-1].path


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"url": "ftp://x.example/"}, "https://"),
        ({"url": "https://me:pw@x.example/"}, "no user"),
        ({"url": "https://10.0.0.1/"}, "not public"),
        ({"url": "http://169.254.169.254/latest"}, "not public"),
        ({"types": ["tsk."]}, "tsk."),
        ({"filters": [{"exact": {"colour": "red"}}]}, "filters[1].exact"),
        ({"secret": "secret:webhook.other.x"}, "secret:webhook.default.NAME"),
        ({"secret": "secret:DATABASE"}, "secret:webhook.default.NAME"),
        ({"secret": "env:HOME"}, "secret:webhook.default.NAME"),
        ({"name": "tasks"}, "tasks"),
        ({"from": 99}, "last place"),
    ],
)
async def test_what_is_wrong_with_a_subscription_is_said(
    world: Any, receiver: Receiver, fields: dict[str, Any], said: str
) -> None:
    body = {"name": "shop", "url": receiver.url, "types": ["tenant."], **fields}
    status, problem = await world.post(SUBSCRIPTIONS, body)
    assert (status, problem["code"]) == (422, "invalid-subscription")
    assert said in problem["detail"]
    assert (await world.get(SUBSCRIPTIONS))[1]["subscriptions"] == []


async def test_names_are_taken_once_and_changes_are_checked(world: Any, receiver: Receiver) -> None:
    await subscribe(world, receiver)
    assert (await world.post(SUBSCRIPTIONS, {"name": "shop", "url": receiver.url}))[0] == 409
    for body, expected in (
        ({"url": "https://10.0.0.1/"}, 422),
        ({"types": ["agent."], "mode": "binary"}, 200),
        ({"colour": 1}, 400),
    ):
        async with world.http.patch(f"{world.url}{SUBSCRIPTIONS}/shop", json=body) as answer:
            assert answer.status == expected
    shown = (await world.get(f"{SUBSCRIPTIONS}/shop"))[1]
    assert shown["filters"] == [{"any": [{"prefix": {"type": "chimera.agent."}}]}] and shown["mode"] == "binary"


async def test_without_an_allowed_network_nothing_inside_is_reached(make_world: Callable[..., Any]) -> None:
    async with Receiver() as receiver, make_world(settings={"events": {"poll": 0.02}}) as world:
        for url in (receiver.url, "https://127.0.0.1:9/"):
            status, problem = await world.post(SUBSCRIPTIONS, {"name": "in", "url": url})
            assert (status, problem["code"]) == (422, "invalid-subscription")


async def test_who_may_do_what(world: Any, receiver: Receiver) -> None:
    async def key(*roles: str, scopes: list[str] | None = None) -> dict[str, str]:
        body = {"name": "k", "roles": list(roles), **({"scopes": scopes} if scopes else {})}
        status, made = await world.post(f"{TENANT}/keys", body)
        assert status == 201, made
        return {"Authorization": f"Bearer {made['token']}"}

    viewer, agent = await key("viewer"), await key("agent")
    narrow = await key("operator", scopes=["subscription:*"])
    body = {"name": "shop", "url": receiver.url}
    assert (await world.post(SUBSCRIPTIONS, body, **viewer))[0] == 403
    assert (await world.post(SUBSCRIPTIONS, body, **narrow))[0] == 403, "it may not read what would be sent"
    assert (await world.get(SUBSCRIPTIONS, **viewer))[0] == 200
    assert (await world.get(f"{TENANT}/events", **viewer))[0] == 200
    assert (await world.get(f"{TENANT}/events", **agent))[0] == 403
    assert (await world.get("/v1/tenants/*/events", **viewer))[0] == 403
    assert (await world.get("/v1/event-types", **agent))[0] == 200
