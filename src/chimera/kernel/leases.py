"""Leases: a named piece of work that one process does at a time, whoever of several that is.

A lease has an owner, an expiry and a token. The token grows with each change of owner. An owner may always be late: it
may sleep, or lose its network, while its lease runs out and another takes over. So a lease alone excludes nobody from
writing; the token does. Whoever writes as the holder of a lease checks its token in the same transaction, and a late
owner's write is refused (M. Kleppmann, "How to do distributed locking", 2016).

Here are the rule, the port of whatever keeps leases, and the loop that works while it holds one.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """`name` belongs to `owner` until `expires` (seconds since the epoch, by the keeper's clock)."""

    name: str
    owner: str
    token: int
    expires: float


class Leases(Protocol):
    """Whatever keeps leases, for all processes that share it."""

    async def acquire(self, name: str, owner: str, life: float) -> Lease | None:
        """Take or renew a lease for `life` seconds; None while another owner has it."""

    async def release(self, lease: Lease) -> None:
        """Give a lease back before it expires; one that another has taken meanwhile stays his."""


def decide(held: Lease | None, *, name: str, owner: str, now: float, life: float) -> Lease | None:
    """The lease that `owner` gets who asks at `now` for `life` seconds; None where another holds it.

    A lease that would last more than twice `life` was given before the clock went back. It counts as expired: its owner
    may be gone, and if he isn't, his token is the older one.
    """
    if held is None:
        return Lease(name=name, owner=owner, token=1, expires=now + life)
    if held.owner == owner:
        return replace(held, expires=now + life)
    if now < held.expires <= now + 2 * life:
        return None
    return Lease(name=name, owner=owner, token=held.token + 1, expires=now + life)


async def work_while_held(
    leases: Leases, name: str, owner: str, life: float, work: Callable[[Lease], Awaitable[None]]
) -> None:
    """Do `work` whenever this owner holds the lease, and stop it in time when he doesn't; until cancelled.

    The lease is asked for and renewed three times in its life. While the keeper does not answer, the work goes on until
    the life is over that was asked for last, by this process's own clock; then it is cancelled, since another process
    may take over. Work that ends by itself or fails is begun again at the next renewal.
    """
    loop = asyncio.get_running_loop()
    running: asyncio.Task[None] | None = None
    held: Lease | None = None
    until = 0.0
    try:
        while True:
            asked = loop.time()
            try:
                async with asyncio.timeout_at(asked + life if held is None else until):
                    got = await leases.acquire(name, owner, life)
                until = asked + life
            except Exception as error:
                log.warning("a lease could not be asked for", extra={"lease": name, "error": str(error)})
                got = held if loop.time() < until else None
            if running is not None and (running.done() or got is None or held is None or got.token != held.token):
                await _end(running, name)
                running = None
            held = got
            if held is not None and running is None:
                running = asyncio.create_task(_awaited(work(held)), name=f"lease-{name}")
            await asyncio.sleep(life / 3 if held is None else min(life / 3, max(0.0, until - loop.time())))
    finally:
        if running is not None:
            await _end(running, name)
        if held is not None:
            with suppress(Exception):
                await leases.release(held)


async def _awaited(work: Awaitable[None]) -> None:
    await work


async def _end(running: "asyncio.Task[None]", name: str) -> None:
    running.cancel()
    (failure,) = await asyncio.gather(running, return_exceptions=True)
    if isinstance(failure, Exception):
        log.error("work under a lease failed", exc_info=failure, extra={"lease": name})
