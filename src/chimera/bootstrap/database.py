"""Waiting for the database at the start of a process."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chimera.adapters.storage.errors import StorageAway, StorageBusy

log = logging.getLogger(__name__)

T = TypeVar("T")

START_TIMEOUT = 60.0
"""Seconds that a process waits for the database at its start."""
START_POLL = 0.05
MOST_POLL = 2.0


async def when_there(what: Callable[[], Awaitable[T]]) -> T:
    """What `what` gives, asked again while the database's server isn't there yet; raises its last refusal."""
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + START_TIMEOUT, START_POLL
    while True:
        try:
            return await what()
        except (StorageAway, StorageBusy) as error:
            if loop.time() + pause > until:
                raise
            log.warning("waiting for the database", extra={"error": error.detail})
        await asyncio.sleep(pause)
        pause = min(MOST_POLL, 2 * pause)
