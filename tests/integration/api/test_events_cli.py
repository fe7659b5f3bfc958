"""`chimera events` against a running platform, as a person uses it: subscribe, see what fails, replay, drop, follow."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from chimera.entrypoints.cli.main import cli
from chimera.testing.receivers import Got, Receiver


@pytest.fixture
def settings() -> dict[str, Any]:
    quick = {"poll": 0.05, "save": 0.05, "backoff": 0.02, "attempts": 2, "allow": "127.0.0.0/8"}
    return {"events": quick}


async def test_a_person_subscribes_sees_replays_and_drops(platform: Any) -> None:
    async def chimera(*arguments: str) -> str:
        reach = ("--url", platform.url, "--key", platform.key)
        done: Result = await asyncio.to_thread(
            lambda: CliRunner().invoke(cli, [*reach, *arguments], standalone_mode=False)
        )
        assert done.exception is None, done.output
        return done.output

    async def data(*arguments: str) -> Any:
        return json.loads(await chimera(*arguments, "--output", "json"))

    async def fail(_: Got) -> web.Response:
        return web.Response(status=500)

    async with Receiver(fail) as receiver:
        said = await chimera("events", "subscribe", "ci", receiver.url, "--type", "tenant.", "--from", "beginning")
        assert "whsec_" in said and "not shown again" in said
        await chimera("tenants", "suspend", "default")
        await chimera("tenants", "resume", "default")
        for _ in range(200):
            letters = await data("events", "dead-letters", "list")
            if len(letters) == 2:
                break
            await asyncio.sleep(0.05)
        assert [one["event"]["type"] for one in letters] == ["chimera.tenant.suspended", "chimera.tenant.resumed"]
        (row,) = await data("events", "list")
        assert (row["dead_letters"], row["failure"]) == (2, "the receiver answered 500")
        assert "the receiver answered 500" in await chimera("events", "list")
        assert letters[0]["letter"] in await chimera("events", "dead-letters", "list", "--subscription", "ci")
        assert "tenant.suspended" in await chimera("events", "dead-letters", "show", letters[0]["letter"])

        receiver.answer = Receiver().answer
        assert "1 dead letters are dropped" in await chimera("events", "dead-letters", "drop", letters[0]["letter"])
        assert "1 dead letters" in await chimera("events", "dead-letters", "replay", "--subscription", "ci")
        await receiver.until(lambda got: len(got) == 5)
        assert receiver.got[-1].event["type"] == "chimera.tenant.resumed"

        assert (await data("events", "rotate", "ci"))["secret"].startswith("whsec_")
        assert (await data("events", "pause", "ci"))["why"] == "asked"
        assert "goes on behind" in await chimera("events", "resume", "ci", "--from", "now")
        shown = await data("events", "show", "ci")
        assert shown["filters"] == [{"any": [{"prefix": {"type": "chimera.tenant."}}]}]
        tail = await chimera("events", "tail", "--last", "3", "--type", "subscription.")
        assert [line.split()[2] for line in tail.splitlines()] == [
            f"subscription.{x}" for x in ("rotated", "paused", "resumed")
        ]
        whole = [
            json.loads(line) for line in (await chimera("events", "tail", "--after", "0", "-o", "json")).splitlines()
        ]
        assert [int(one["sequence"]) for one in whole] == list(range(1, len(whole) + 1))
        assert "task.failed" in await chimera("events", "types")
        assert "ci is deleted" in await chimera("events", "delete", "ci")
