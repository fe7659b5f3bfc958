"""Keeping the host's token fresh: a third of its life after each renewal the next one, sooner where one failed.

So two thirds of a token's life are left for a gateway that is away, and for the longest call after a renewal. Only the
loop of a host that lives asks; nothing is asked for each agent or call.
"""

import asyncio
import logging

from chimera_host.contract.problem import ProblemError
from chimera_host.contract.token import FIRST_RENEWAL
from chimera_host.platform_client import PlatformClient

log = logging.getLogger(__name__)

AGAIN = 15.0
SOONEST, LATEST = 10.0, 3_600.0


def next_renewal(expires_in: float) -> float:
    """Seconds to wait before the next renewal of a token that lives so many."""
    return min(max(expires_in / 3, SOONEST), LATEST)


async def keep_fresh(platform: PlatformClient, *, first: float = FIRST_RENEWAL) -> None:
    """Renew for ever; a failure is said in the log and tried again."""
    wait = first
    while True:
        await asyncio.sleep(wait)
        try:
            wait = next_renewal(await platform.renew())
        except ProblemError as error:
            wait = AGAIN
            log.warning("the host's token was not renewed", extra={"code": error.code, "error": error.detail})
