"""A broker as Knative's behaves, in the test's own process: durable once it answered, at least once, in any order.

An event comes in by HTTP in the binary form. Each subscriber (a Trigger's) is sent it with an attribute more, as a real
broker adds the time of arrival; out of order, some twice; again while it answers 429 or 5xx; and what it refuses, or
refuses too often, goes to the dead letter sink with the attributes that say why. `away` has the ingress answer 503,
`stopped` holds deliveries back, as while its pods are away, and loses none.
"""

import asyncio
import random
from typing import Self

import aiohttp
from aiohttp import web

ARRIVED = "2026-01-31T09:30:00Z"
RETRIES = 5


class FakeBroker:
    """Use as an asynchronous context manager; `url` is its ingress. `subscriber` and `sink` are set once known."""

    def __init__(self, *, seed: int = 7, twice: float = 0.3) -> None:
        """Deliver a share of `twice` of all events two times."""
        self._chance = random.Random(seed)
        self._twice = twice
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: web.ServerRunner | None = None
        self._session: aiohttp.ClientSession
        self.subscriber = self.sink = self.url = ""
        self.away = False
        self.running = asyncio.Event()
        self.running.set()
        self.accepted: list[dict[str, str]] = []
        self.delivered = 0

    async def __aenter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._session = aiohttp.ClientSession()
        self._runner = web.ServerRunner(web.Server(self._take, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/chimera/chimera"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        assert self._runner is not None
        await self._runner.cleanup()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    async def _take(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if self.away:
            return web.Response(status=503)
        headers = {name.lower(): value for name, value in request.headers.items() if name.lower().startswith("ce-")}
        if not all(f"ce-{name}" in headers for name in ("specversion", "id", "source", "type")):
            return web.Response(status=400)
        headers["Content-Type"] = request.headers.get("Content-Type", "application/json")
        self.accepted.append(headers)
        for _ in range(2 if self._chance.random() < self._twice else 1):
            task = asyncio.create_task(self._deliver({**headers, "ce-knativearrivaltime": ARRIVED}, body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return web.Response(status=202)

    async def _deliver(self, headers: dict[str, str], body: bytes) -> None:
        status = 0
        for attempt in range(RETRIES):
            await asyncio.sleep(self._chance.random() * 0.02 * 2**attempt)
            await self.running.wait()
            status = await self._post(self.subscriber, headers, body)
            if status < 300:
                self.delivered += 1
                return
            if 400 <= status < 500 and status != 429:
                break
        why = {"ce-knativeerrorcode": str(status), "ce-knativeerrordest": self.subscriber}
        while await self._post(self.sink, {**headers, **why}, body) >= 300:  # noqa: ASYNC110 - it is elsewhere
            await asyncio.sleep(0.05)

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> int:
        try:
            async with self._session.post(url, data=body, headers=headers) as answer:
                said = await answer.read()
                assert not said, "a broker would take an answer's body for an event"
                return answer.status
        except aiohttp.ClientError:
            return 503
