"""A full disk, on every way that writes: each is refused as such, nothing else is, and each comes back later."""

import asyncio
import errno
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from chimera.agents.archive import ArchivedFile
from chimera.agents.bundle import pack_files
from chimera.testing.definitions import definition
from chimera.testing.faults.calls import Faults, compiler

pytestmark = [pytest.mark.slow, pytest.mark.skipif(compiler() is None, reason="needs a C compiler (cc)")]

TENANT = "/v1/tenants/default"
STEADY = f"{TENANT}/agents/steady"
BIG = "x" * 20_000
"""Larger than what is left in the write-ahead log's last block."""


@pytest.fixture
def faults(tmp_path: Path) -> Iterator[Faults]:
    with Faults(tmp_path, "chimera.db") as made:
        yield made


def bundle(number: int) -> tuple[str, bytes]:
    packed = pack_files({"main.py": ArchivedFile(data=b"# " + BIG.encode() + str(number).encode())}, name="code")
    return packed.digest, packed.data


def writes(number: int) -> dict[str, tuple[str, str, Any]]:
    """Every way that writes, by what it writes; the values differ each time."""
    digest, packed = bundle(number)
    agent = definition(f"new-{number}", metadata={"description": BIG[:500]})
    webhook = {"name": f"shop-{number}", "url": "https://shop.example/in", "filters": []}
    return {
        "a session": ("PUT", f"{STEADY}/sessions/s{number}", {"state": {"values": {"v": BIG}}, "version": 0}),
        "a task": ("POST", f"{STEADY}/tasks", {"input": BIG}),
        "a space": ("PUT", f"{TENANT}/spaces/board-{number}", {"declared": {"access": {"*": "write"}}, "version": 0}),
        "a key": ("POST", f"{TENANT}/keys", {"name": f"k{number}", "roles": ["viewer"]}),
        "a role": (
            "PUT",
            f"{TENANT}/roles",
            {"principal": f"user:https://login.example|u{number}", "roles": ["viewer"]},
        ),
        "a policy": (
            "PUT",
            f"{TENANT}/policies",
            {"policies": {f"p{number}": f"// {BIG}\nforbid (principal, action, resource) when {{ false }};"}},
        ),
        "a tenant": ("POST", "/v1/tenants", {"name": f"t{number}"}),
        "a subscription": ("POST", f"{TENANT}/subscriptions", webhook),
        "a definition": ("POST", f"{TENANT}/apply", {"items": [{"definition": agent}]}),
        "a batch": ("POST", f"{TENANT}/batches", None),
        "a bundle": ("PUT", f"{TENANT}/bundles/{digest}", packed),
        "upkeep": ("POST", "/v1/upkeep/run", {"kinds": ["sessions"]}),
    }


class Caller:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        sent = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self._session.request(method, self._url + path, **sent) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if "json" in answer.content_type else text


async def refused(caller: Caller, rounds: int) -> None:
    for number in range(rounds):
        for what, (method, path, body) in writes(100 + number).items():
            status, answer = await caller.ask(method, path, body)
            if number == rounds - 1:
                assert (status, answer.get("code")) == (507, "storage-full"), (what, status, answer)
                assert answer["next_step"]
            else:
                assert status < 300 or status == 507, (what, status, answer)
        status, answer = await caller.ask("POST", f"{STEADY}/invoke", {"input": "hello"})
        assert status == 200, answer
        for path in (f"{STEADY}/sessions/s0", f"{TENANT}/agents/steady", f"{TENANT}/keys", "/v1/upkeep", "/v1/status"):
            status, answer = await caller.ask("GET", path)
            assert status == 200, (path, answer)


def test_every_write_is_refused_as_507_reads_and_plain_calls_go_on_and_all_comes_back(
    start: Callable[..., Any], faults: Faults, audit_is_whole: Callable[[Any], None]
) -> None:
    platform = start(**faults.environ)
    control_plane = platform.pids()["control-plane"]

    async def fill_and_make_room() -> None:
        headers = {"Authorization": f"Bearer {platform.key}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            caller = Caller(session, platform.url)
            answered = {what: await caller.ask(*write) for what, write in writes(0).items()}
            assert {what: one for what, one in answered.items() if one[0] >= 300} == {}
            faults.fail(write=errno.ENOSPC)
            await refused(caller, 2)
            faults.fail()
            for what, (method, path, body) in writes(200).items():
                for _ in range(100):
                    status, answer = await caller.ask(method, path, body)
                    if status != 507:
                        break
                    await asyncio.sleep(0.1)
                assert status < 300, (what, status, answer)
            status, asked = await caller.ask("POST", "/v1/upkeep/run", {"kinds": ["keys"]})
            until = time.monotonic() + 60
            while time.monotonic() < until:
                _, told = await caller.ask("GET", "/v1/upkeep")
                keys = next(kind for kind in told["kinds"] if kind["kind"] == "keys")
                if (keys["finished"] or 0.0) >= asked["at"]:
                    break
                await asyncio.sleep(0.2)
            assert keys["problem"] is None and keys["finished"] >= asked["at"], keys

    asyncio.run(fill_and_make_room())
    assert faults.failed, "nothing failed"
    assert platform.pids()["control-plane"] == control_plane, "upkeep has ended no process"
    audit_is_whole(platform)
