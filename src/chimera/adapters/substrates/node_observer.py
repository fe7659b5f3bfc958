"""What one machine shows of its cells, for the keeper of conditions: asked of the node agent by a long poll."""

import asyncio
import logging
from contextlib import suppress

import aiohttp
import msgspec
from msgspec import Struct

from chimera.kernel.ids import DEFAULT_TENANT
from chimera.platform.condition_keeper import Sight
from chimera.platform.conditions import HOME, Evidence, Seen
from chimera.platform.reasons import Reason

log = logging.getLogger(__name__)

TIMEOUT = 10.0
AWAY = 10.0
"""A node agent that has been silent for so many seconds is told of; it may start again in one or two."""
RETRY = 1.0


class _Seen(Struct, frozen=True, kw_only=True):
    version: int
    cells: tuple[Seen, ...]


_decoder = msgspec.json.Decoder(_Seen)


class NodeObserver:
    """The `ConditionSource` of a machine. Made inside the event loop; `aclose` it when done."""

    def __init__(self, socket: str) -> None:
        """Reach the node agent at the Unix socket `socket`."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(socket),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0),
        )
        self._version = 0
        self._away_since: float | None = None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def seen(self) -> Sight:
        """See `ConditionSource`."""
        try:
            found = await self._ask(0, 0.0)
        except (aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
            return self._away(error)
        self._version, self._away_since = found.version, None
        return Sight(subjects=(Seen(subject=HOME, tenant=DEFAULT_TENANT), *found.cells))

    async def changed(self, within: float) -> None:
        """See `ConditionSource`."""
        if self._away_since is not None:
            await asyncio.sleep(RETRY)
            return
        with suppress(aiohttp.ClientError, OSError, msgspec.MsgspecError):
            await self._ask(self._version, within)

    def _away(self, error: Exception) -> Sight:
        now = asyncio.get_running_loop().time()
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since < AWAY:
            return Sight(subjects=(), whole=False)
        words = f"the node agent does not answer ({type(error).__name__}: {error})"
        away = Evidence(reason=Reason.HOME_AWAY, message=words, next_step="see `chimera status`; running hosts go on")
        return Sight(subjects=(Seen(subject=HOME, tenant=DEFAULT_TENANT, evidence=(away,)),), whole=False)

    async def _ask(self, after: int, wait: float) -> _Seen:
        async with (
            asyncio.timeout(wait + TIMEOUT),
            self._session.get(f"http://node/v1/seen?after={after}&wait={wait:.0f}") as answer,
        ):
            answer.raise_for_status()
            return _decoder.decode(await answer.read())
