"""Model answers that are paid once: stored under the idempotency key that a host sends with a model call of a run.

A step that was in flight when its host died runs again and asks its models again. What was answered before is given
again, without a call, a reserve of a budget or a price. An answer is committed before the host gets it: one that a host
has acted on is one that is found again. A stream's last chunk waits for that.

A key is answered again only to the same request: a step that asks something else the second time (because it has the
time of day in its prompt, say) is a new call.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from chimera.gateway.errors import InvalidRequest
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.settings import StateSettings
from chimera.gateway.state import rules
from chimera.gateway.state.ports import AnswerStore
from chimera.gateway.state.runs import OpenRun, Runs
from chimera.kernel.clock import Clock

Answer = dict[str, Any]

_ENCODER = msgspec.json.Encoder(order="deterministic")
_PLAIN = msgspec.json.Encoder()
_WHOLE = msgspec.json.Decoder(Answer)
_CHUNKS = msgspec.json.Decoder(list[Answer])


class Answers:
    """Asks once for each key and request of a run."""

    def __init__(
        self, store: AnswerStore, runs: Runs, clock: Clock, *, settings: StateSettings, metrics: GatewayMetrics
    ) -> None:
        """Keep answers in `store`."""
        self._store = store
        self._runs = runs
        self._clock = clock
        self._settings = settings
        self._metrics = metrics
        self._asking: dict[tuple[str, str, str, bytes], tuple[asyncio.Lock, list[None]]] = {}

    async def whole(self, opened: OpenRun, key: str, body: Answer, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer to `body`: stored, or asked for and stored."""
        digest = _digest(key, body, b"whole")
        async with self._alone(opened, key, digest):
            stored = await self._find(opened, key, digest)
            if stored is not None:
                return _WHOLE.decode(stored)
            answer = await ask()
            await self._keep(opened, key, digest, _PLAIN.encode(answer))
            return answer

    async def chunks(
        self, opened: OpenRun, key: str, body: Answer, ask: Callable[[], AsyncGenerator[Answer, None]]
    ) -> AsyncGenerator[Answer, None]:
        """The same for a stream; it is stored once it has ended well."""
        digest = _digest(key, body, b"chunks")
        async with self._alone(opened, key, digest):
            stored = await self._find(opened, key, digest)
            if stored is not None:
                for chunk in _CHUNKS.decode(stored):
                    yield chunk
                return
            made: list[Answer] = []
            asked = ask()
            try:
                async for chunk in asked:
                    if made:
                        yield made[-1]
                    made.append(chunk)
            finally:
                await asked.aclose()
            await self._keep(opened, key, digest, _PLAIN.encode(made))
            if made:
                yield made[-1]

    @asynccontextmanager
    async def _alone(self, opened: OpenRun, key: str, digest: bytes) -> AsyncIterator[None]:
        """Whoever asks the same at the same time waits, and finds the answer then."""
        place = (opened.run.tenant, opened.name, key, digest)
        lock, waiting = self._asking.setdefault(place, (asyncio.Lock(), []))
        waiting.append(None)
        try:
            async with lock:
                yield
        finally:
            waiting.pop()
            if not waiting:
                self._asking.pop(place, None)

    async def _find(self, opened: OpenRun, key: str, digest: bytes) -> bytes | None:
        found = await self._store.find(opened.run.tenant, opened.name, key, digest, self._clock.wall())
        if found is not None:
            self._metrics.model_replays.inc()
        return found

    async def _keep(self, opened: OpenRun, key: str, digest: bytes, answer: bytes) -> None:
        if len(answer) > self._settings.model_answer_bytes:
            return
        now, life = self._clock.wall(), self._settings.model_answer_ttl
        self._runs.touched(opened)
        await self._store.keep(opened.run, key, digest, answer, now=now, life=life)


def _digest(key: str, body: Answer, form: bytes) -> bytes:
    if rules.RUN_KEY.fullmatch(key) is None:
        raise InvalidRequest(
            "the Idempotency-Key is not valid", next_step="use 1 to 255 visible ASCII characters, such as a UUID"
        )
    return rules.content_digest(form, _ENCODER.encode(body))
