"""An issuer's public keys: fetched, kept, fetched again when they turn out to be old.

Keys are fetched at most once in `pause` seconds, whatever tokens arrive, so that made-up key ids can't make us hammer
the issuer; they are fetched again when a token names a key that isn't there (the issuer has changed its keys) and when
they are older than `fresh`. An issuer that is away costs nothing while the known keys are younger than `kept`: tokens
go on being checked. After that they are refused, since a key withdrawn meanwhile could not be known.
"""

import asyncio
import json
import logging
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet

from chimera.gateway.identity.errors import IssuerUnavailable
from chimera.kernel.clock import Clock

log = logging.getLogger(__name__)

MAX_BYTES = 1024**2
TIMEOUT = 5.0


class JwksSource(Protocol):
    """Where a key set comes from."""

    async def fetch(self) -> bytes:
        """The key set as JSON. Raises OSError, `aiohttp.ClientError`, TimeoutError or ValueError."""


class JwksFile:
    """A file."""

    def __init__(self, path: Path) -> None:
        """Read `path` each time."""
        self._path = path

    async def fetch(self) -> bytes:
        """See `JwksSource`."""
        return await asyncio.to_thread(self._path.read_bytes)


class JwksUrl:
    """An address at the issuer. Redirects are not followed: the operator named this one."""

    def __init__(self, url: str) -> None:
        """Get `url`."""
        self._url = url

    async def fetch(self) -> bytes:
        """See `JwksSource`."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(self._url, allow_redirects=False, headers={"Accept": "application/json"}) as answer,
        ):
            if answer.status != 200:
                raise ValueError(f"{urlsplit(self._url).hostname} answered {answer.status}")
            data = await answer.content.read(MAX_BYTES + 1)
            while not answer.content.at_eof() and len(data) <= MAX_BYTES:
                data += await answer.content.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
            return data


class Jwks:
    """The keys of one issuer. Times in seconds."""

    def __init__(
        self,
        name: str,
        source: JwksSource,
        clock: Clock,
        *,
        pause: float = 10.0,
        fresh: float = 3_600.0,
        kept: float = 86_400.0,
    ) -> None:
        """Get keys from `source`; `name` is the issuer's in messages."""
        self._name = name
        self._source = source
        self._clock = clock
        self._pause, self._fresh, self._kept = pause, fresh, kept
        self._lock = asyncio.Lock()
        self._keys: list[Key] = []
        self._at: float | None = None
        self._tried: float | None = None
        self._fault = ""

    async def find(self, kid: str | None, kind: str) -> list[Key]:
        """The keys that may have signed: those of `kid`, or all of key type `kind` where the token names none.

        Empty: the issuer has no such key. Raises `IssuerUnavailable` where that can't be known.
        """
        now = self._clock.monotonic()
        if self._at is None or now - self._at > self._fresh or not self._matching(kid, kind):
            await self._refresh()
        age = None if self._at is None else self._clock.monotonic() - self._at
        if age is None or age > self._kept:
            raise IssuerUnavailable(
                f"the keys of issuer {self._name} can't be had: {self._fault}",
                next_step="try again; see the issuer's `jwks` in the settings",
                retry_after=self._pause,
            )
        return self._matching(kid, kind)

    def _matching(self, kid: str | None, kind: str) -> list[Key]:
        return [key for key in self._keys if key.key_type == kind and (kid is None or key.kid == kid)]

    async def _refresh(self) -> None:
        async with self._lock:  # whoever waited finds it done
            now = self._clock.monotonic()
            if self._tried is not None and now - self._tried < self._pause:
                return
            self._tried = now
            try:
                self._keys = _public(await self._source.fetch())
                self._at = self._clock.monotonic()
                self._fault = ""
            except (OSError, aiohttp.ClientError, TimeoutError, ValueError, JoseError) as error:
                self._fault = f"{type(error).__name__}: {error}"
                log.warning("an issuer's keys could not be fetched", extra={"issuer": self._name, "error": self._fault})


def _public(data: bytes) -> list[Key]:
    """The keys of a set that may check signatures. Symmetric and private ones are left out: they don't belong there."""
    document = json.loads(data)
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("it is no key set")
    found: list[Key] = []
    for one in document["keys"][:1_000]:
        if not isinstance(one, dict) or one.get("kty") not in ("RSA", "EC", "OKP") or "d" in one:
            continue
        if one.get("use", "sig") != "sig":
            continue
        try:
            found += KeySet.import_key_set({"keys": [one]}).keys
        except (JoseError, ValueError, KeyError, TypeError) as error:
            log.warning("a key of a set can't be read", extra={"kid": str(one.get("kid"))[:64], "error": str(error)})
    if not found:
        raise ValueError("it holds no public key for signatures")
    return found
