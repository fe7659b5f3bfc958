"""Clients of a real platform that go on whatever happens to it, and remember what they were told.

Each client does one thing at a time. An answer of 200 to 299 is an acknowledgement, a conflict an answer, a full disk
(507) a refusal for certain; all else that may pass by itself (a broken connection, a time-out, 429, 5xx, a run in
progress) leaves the outcome unknown. A call or task with a key is then asked for again, as its user would; a session
is read again.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from detangle import History

from chimera.testing.faults.history import Appended, linearizable, wrong_conversation, wrong_tasks
from chimera_host.sending import sent_once

UNKNOWN = None
PATIENCE_S = 90.0
PAUSE_S = 0.05
AGENTS = "/v1/tenants/default/agents/"
SPACE = "/v1/tenants/default/spaces/ledger"
PASSES = frozenset({409, 425, 429, 500, 502, 503, 504, 507})


class Stuck(AssertionError):
    """Something that must come to an end did not."""


@dataclass
class Client:
    """One connection pool to a platform that may not be there."""

    url: str
    key: str
    http: aiohttp.ClientSession
    seen: dict[int, int] = field(default_factory=dict)

    async def ask(
        self, method: str, path: str, body: Any = None, *, key: str | None = None
    ) -> tuple[int, dict[str, Any]] | None:
        """The status and the body of an answer; None if there was none."""
        headers = {"Authorization": f"Bearer {self.key}"} | ({"Idempotency-Key": key} if key else {})
        try:
            async with self.http.request(method, self.url + path, json=body, headers=headers) as answer:
                self.seen[answer.status] = self.seen.get(answer.status, 0) + 1
                return answer.status, (await answer.json(content_type=None) if answer.status != 204 else {})
        except (aiohttp.ClientError, TimeoutError, ValueError):
            self.seen[0] = self.seen.get(0, 0) + 1
            return UNKNOWN

    async def certain(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> dict[str, Any]:
        """Ask again until the answer is an acknowledgement.

        Raises:
            Stuck: there was none within `PATIENCE_S`.
            AssertionError: the answer is one that does not pass by itself.
        """
        last: Any = None
        end = asyncio.get_running_loop().time() + PATIENCE_S
        while asyncio.get_running_loop().time() < end:
            last = await self.ask(method, path, body, key=key)
            if last is not None:
                if last[0] < 300:
                    return dict(last[1])
                assert last[0] in PASSES, f"{method} {path}: {last}"
            await asyncio.sleep(PAUSE_S)
        raise Stuck(f"{method} {path} had no answer in {PATIENCE_S:g} s, the last was {last}")


@asynccontextmanager
async def connected(url: str, key: str) -> AsyncIterator[Client]:
    """A client; each of its requests has 20 s."""
    timeout = aiohttp.ClientTimeout(total=20)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector, middlewares=(sent_once,)) as http:
        yield Client(url, key, http)


class Load:
    """All clients of one run against one platform with the agent `agent`.

    Args:
        client: how the platform is asked.
        agent: its agent, which answers any question.
        running: false once the clients shall end.
        scale: how many clients of each kind.
    """

    def __init__(self, client: Client, agent: str, running: Callable[[], bool], scale: int = 2) -> None:
        """Clients with nothing done."""
        self.client, self.agent, self._running, self._scale = client, agent, running, scale
        self.sessions = History()
        self.logs: dict[str, Appended] = {}
        self.talks: dict[str, list[str]] = {}
        self.tasks: dict[str, str] = {}
        self.applied = 0
        self.apply_tried = 0
        self._ids = itertools.count()

    async def prepare(self) -> None:
        """Declare what the clients write to."""
        declared = {"rules": {"log/*": "append", "count/*": "counter"}}
        await self.client.certain("PUT", SPACE, {"declared": declared})

    async def run(self) -> None:
        """All clients, until they shall end and each has the answer that it waits for."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._scale):
                for session in (f"register-{number}", "register-shared"):
                    group.create_task(self._write_sessions(session))
                group.create_task(self._append(f"writer-{number}"))
                group.create_task(self._talk(f"talk-{number}"))
                group.create_task(self._submit(f"submitter-{number}"))
            group.create_task(self._apply())

    def _new(self) -> str:
        return f"v{next(self._ids)}"

    async def _write_sessions(self, name: str) -> None:
        path = f"{AGENTS}{self.agent}/sessions/{name}"
        process = self._new()
        while self._running():
            read = self.sessions.invoke(process, "read", name)
            answer = await self.client.ask("GET", path)
            if answer is None or answer[0] not in (200, 404):
                self.sessions.info(read)
                await asyncio.sleep(PAUSE_S)
                continue
            found = (answer[1]["version"], answer[1]["state"]["values"]["value"]) if answer[0] == 200 else (0, None)
            self.sessions.ok(read, found)
            value = self._new()
            written = self.sessions.invoke(process, "write", (name, found[0], value))
            body = {"state": {"values": {"value": value}}, "version": found[0]}
            answer = await self.client.ask("PUT", path, body)
            if answer is not None and answer[0] == 200:
                self.sessions.ok(written, answer[1]["version"])
            elif answer is not None and answer[0] == 409:
                self.sessions.ok(written, "refused")
            elif answer is not None and answer[0] == 507:
                self.sessions.fail(written)
            else:
                self.sessions.info(written)
            await asyncio.sleep(PAUSE_S)

    async def _append(self, name: str) -> None:
        book = self.logs[name] = Appended()
        while self._running():
            item = self._new()
            book.tried.append(item)
            writes = [
                {"key": f"log/{name}", "op": "append", "value": [item]},
                {"key": f"count/{name}", "op": "add", "value": 1},
            ]
            answer = await self.client.ask("POST", f"{SPACE}/entries", {"write": writes})
            if answer is not None and answer[0] == 200:
                book.acknowledged.add(item)
            await asyncio.sleep(PAUSE_S)

    async def _talk(self, session: str) -> None:
        asked = self.talks[session] = []
        while self._running():
            question = self._new()
            asked.append(question)
            body = {"input": question, "session": session}
            await self.client.certain("POST", f"{AGENTS}{self.agent}/invoke", body, key=f"{session}-{question}")
            await asyncio.sleep(PAUSE_S)

    async def _submit(self, name: str) -> None:
        while self._running():
            key = f"{name}-{self._new()}"
            answer = await self.client.certain("POST", f"{AGENTS}{self.agent}/tasks", {"input": key}, key=key)
            self.tasks[key] = answer["task"]
            await asyncio.sleep(2 * PAUSE_S)

    async def _apply(self) -> None:
        while self._running():
            self.apply_tried += 1
            answer = await self.client.ask("POST", "/v1/tenants/default/apply", self._definitions(self.apply_tried))
            if answer is not None and answer[0] == 200:
                self.applied = self.apply_tried
            await asyncio.sleep(10 * PAUSE_S)

    @staticmethod
    def _definitions(number: int) -> dict[str, Any]:
        document = {
            "schema_version": "ADaC v2.0",
            "metadata": {"name": "changing", "version": f"1.{number}.0", "description": "Changes"},
            "specification": {"framework": "function"},
            "capabilities": {"primary_functions": ["echo"]},
        }
        return {"items": [{"definition": document}]}

    async def wrong(self) -> list[str]:
        """Everything that is wrong, once the faults are over; nothing if nothing acknowledged was lost."""
        faults = []
        if unexplained := linearizable(self.sessions.operations):
            faults.append(unexplained)
        for name, book in self.logs.items():
            read = [f"log/{name}", f"count/{name}"]
            answer = await self.client.certain("POST", f"{SPACE}/entries", {"read": read})
            found = {entry["key"]: entry["value"] for entry in answer["entries"]}
            log, count = found[f"log/{name}"] or [], found[f"count/{name}"] or 0
            faults += [f"log {name}: {fault}" for fault in book.wrong(log, count)]
        for session, asked in self.talks.items():
            found = await self.client.certain("GET", f"{AGENTS}{self.agent}/sessions/{session}")
            faults += [f"session {session}: {fault}" for fault in wrong_conversation(asked, found["state"]["messages"])]
        faults += await self._wrong_tasks()
        return faults + await self._wrong_catalogue()

    async def _wrong_tasks(self) -> list[str]:
        found = {}
        for task in self.tasks.values():
            path = f"{AGENTS}{self.agent}/tasks/{task}?wait=15"
            for _ in range(6):
                found[task] = await self.client.certain("GET", path)
                if found[task]["state"] not in ("waiting", "queued", "running"):
                    break
        listed, after = 0, ""
        while True:
            page = await self.client.certain("GET", f"/v1/tenants/default/tasks?limit=1000{after}")
            listed += len(page["tasks"])
            if not page["next"]:
                return wrong_tasks(self.tasks, found, listed)
            after = f"&after={page['next']}"

    async def _wrong_catalogue(self) -> list[str]:
        if self.applied:
            live = await self.client.certain("GET", f"{AGENTS}changing")
            number = int(live["version"].split(".")[1])
            if not self.applied <= number <= self.apply_tried:
                return [f"version 1.{self.applied}.0 was acknowledged, 1.{number}.0 is live"]
        # Whatever was in the way of changes, it is over.
        await self.client.certain("POST", "/v1/tenants/default/apply", self._definitions(self.apply_tried + 1))
        return []

    def counts(self) -> dict[str, int]:
        """How much was acknowledged, by kind."""
        writes = [one for one in self.sessions.operations if one.f == "write" and isinstance(one.output, int)]
        return {
            "session writes": len(writes),
            "log writes": sum(len(book.acknowledged) for book in self.logs.values()),
            "turns": sum(map(len, self.talks.values())),
            "tasks": len(self.tasks),
        }


async def under_load(
    url: str, key: str, meddle: Callable[[Load], Awaitable[None]], *, agent: str = "steady", scale: int = 2
) -> Load:
    """The load that ran while `meddle` did, with everything that the clients were told found true afterwards.

    Raises:
        AssertionError: something acknowledged was lost, or happened twice; or something never came to an end.
    """
    over = False
    async with connected(url, key) as client:
        load = Load(client, agent, lambda: not over, scale)
        await load.prepare()
        async with asyncio.TaskGroup() as group:
            clients = group.create_task(load.run())
            try:
                await meddle(load)
            finally:
                over = True
            await clients
        wrong = await load.wrong()
        assert not wrong, "\n".join(wrong)
    return load
