"""Authentication: from the header `Authorization` to a principal, or a 401.

Four kinds of credential, told apart by their looks before anything is compared: an API key (`chk_…`), the key of the
home (whoever can read its file owns the home), a token that an issuer signed, nothing. What the gateway knows already
is answered from memory; a look-up or a signature happens only for an address that didn't fail too often
(`failures.py`).

A token that held is remembered by its digest until it ends, since a signature costs 30 to 100 µs. Roles granted here
are looked up each time, so that taking one counts at once.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable
from typing import TypeVar

from msgspec.structs import replace

from chimera.gateway.errors import Unauthenticated
from chimera.gateway.identity import keys
from chimera.gateway.identity.directory import Directory
from chimera.gateway.identity.errors import IdentityUnavailable
from chimera.gateway.identity.failures import Failures
from chimera.gateway.identity.ports import TokenVerifier
from chimera.gateway.identity.principal import BOOTSTRAP_ADMIN, Principal
from chimera.kernel.clock import Clock
from chimera.kernel.lru import Lru

MAX_CREDENTIAL = 16 * 1024
REMEMBERED_TOKENS = 8_192
_BEARER = "bearer "

T = TypeVar("T")


class Authenticator:
    """Says who asks."""

    def __init__(
        self,
        *,
        home_key: bytes,
        directory: Directory,
        failures: Failures,
        clock: Clock,
        tokens: TokenVerifier | None = None,
        patience: float = 5.0,
    ) -> None:
        """Know the home's key, the keys in `directory`, and the tokens that `tokens` verifies.

        A look-up that takes more than `patience` seconds lets nobody in.
        """
        self._home_key = home_key
        self._directory = directory
        self._failures = failures
        self._clock = clock
        self._tokens = tokens
        self._patience = patience
        self._held: Lru[bytes, Principal] = Lru(REMEMBERED_TOKENS)

    async def authenticate(self, authorization: str | None, address: str) -> Principal:
        """Who shows `authorization`. Raises `Unauthenticated`, `TooManyFailures` or `IssuerUnavailable`."""
        shown = _bearer(authorization)
        try:
            if (parsed := keys.parse(shown)) is not None:
                return await self._key(*parsed, address)
            if hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self._home_key):
                return BOOTSTRAP_ADMIN
            if self._tokens is not None and shown.count(".") == 2 and len(shown) <= MAX_CREDENTIAL:
                return await self._token(shown, address)
            raise _wrong()
        except Unauthenticated:
            self._failures.failed(address, self._clock.monotonic())
            raise

    def issuers(self) -> list[str]:
        """The issuers whose tokens are taken."""
        return [] if self._tokens is None else list(self._tokens.issuers())

    async def _key(self, key: str, secret: str, address: str) -> Principal:
        stored = self._directory.known_key(key)
        if stored is None:
            self._failures.check(address, self._clock.monotonic())
            stored = await self._in_time(self._directory.key(key))
        now = self._clock.wall()
        match keys.judge(stored, key, secret, now):
            case "good":
                assert stored is not None
                self._directory.use(key, now)
                return keys.principal_of_key(stored)
            case "wrong":
                raise _wrong()
            case "expired":
                raise Unauthenticated(f"the key {key} has expired", next_step="use its new secret, or ask for a key")
            case "revoked":
                raise Unauthenticated(f"the key {key} is revoked", next_step="ask who gave it to you for another")

    async def _token(self, token: str, address: str) -> Principal:
        assert self._tokens is not None
        name = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        principal = self._held.get(name)
        if principal is None:
            self._failures.check(address, self._clock.monotonic())
            principal = await self._tokens.verify(token)
            self._held.put(name, principal)
        elif principal.expires is None or principal.expires <= self._clock.wall():
            raise Unauthenticated("the token has expired", next_step="get another from its issuer")
        given = await self._in_time(self._directory.roles(principal.tenant, principal.actor))
        return replace(principal, roles=principal.roles | frozenset(given)) if given else principal

    async def _in_time(self, look_up: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._patience):
                return await look_up
        except TimeoutError:
            raise IdentityUnavailable(
                f"keys and roles could not be looked up in {self._patience:g} s",
                next_step="see whether the database answers (`chimera status`), then try again",
                retry_after=1.0,
            ) from None


def _bearer(authorization: str | None) -> str:
    shown = authorization or ""
    if not shown[: len(_BEARER)].lower() == _BEARER:
        raise Unauthenticated(
            "the request shows no key",
            next_step="send `Authorization: Bearer` and an API key, a token of your issuer, or the key in chimera.key",
        )
    return shown[len(_BEARER) :].strip()


def _wrong() -> Unauthenticated:
    return Unauthenticated(
        "the request shows a wrong key",
        next_step="send an API key (`chimera keys create`), a token of your issuer, or the key in chimera.key",
    )
