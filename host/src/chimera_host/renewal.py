"""Keeping the host's token fresh: a third of its life after each renewal the next one, sooner where one failed.

So two thirds of a token's life are left for a gateway that is away, and for the longest call after a renewal. Only the
loop of a host that lives asks; nothing is asked for each agent or call. A pod has no token at first: it shows what
proves who it is to its cluster, at its start and whenever its token is taken no more (it was suspended for long).
"""

import asyncio
import logging
from pathlib import Path

import msgspec

from chimera_host.config import HostConfig
from chimera_host.contract.problem import ProblemError
from chimera_host.contract.token import FIRST_RENEWAL
from chimera_host.platform_client import PlatformClient

log = logging.getLogger(__name__)

AGAIN = 15.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
SOONEST, LATEST = 10.0, 3_600.0


def next_renewal(expires_in: float) -> float:
    """Seconds to wait before the next renewal of a token that lives so many."""
    return min(max(expires_in / 3, SOONEST), LATEST)


async def introduced(config: HostConfig) -> HostConfig:
    """`config` with the token, the name and the key of the pod that this host is; tried until the gateway answers."""
    file = config.identity_file or ""
    wait, said = FIRST_PAUSE, False
    platform = PlatformClient(config.platform_url, "")
    try:
        while True:
            try:
                fresh = await platform.renew(_identity(file))
                if fresh.host_key:
                    return msgspec.structs.replace(
                        config,
                        host=fresh.host or config.host,
                        cell=fresh.cell or config.cell,
                        platform_token=fresh.token,
                        host_key=fresh.host_key,
                    )
                raise ProblemError("the gateway gave no key", next_step="run the same release of both")
            except ProblemError as error:
                if not said:
                    log.warning("the host is not known yet", extra={"code": error.code, "error": error.detail})
                said = True
            await asyncio.sleep(wait)
            wait = min(LONGEST_PAUSE, 2 * wait)
    finally:
        await platform.aclose()


async def keep_fresh(
    platform: PlatformClient, identity_file: str | None = None, *, first: float = FIRST_RENEWAL
) -> None:
    """Renew for ever; a failure is said in the log and tried again, with the pod's identity where there is one."""
    wait, refused = first, False
    while True:
        await asyncio.sleep(wait)
        try:
            identity = _identity(identity_file) if refused and identity_file is not None else None
            wait = next_renewal((await platform.renew(identity)).expires_in)
            refused = False
        except ProblemError as error:
            wait, refused = AGAIN, error.status in (401, 403)
            log.warning("the host's token was not renewed", extra={"code": error.code, "error": error.detail})


def _identity(file: str) -> str:
    """The token that the cluster keeps fresh there."""
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise ProblemError(f"the identity can't be read: {error}", next_step="mount the token there") from error
