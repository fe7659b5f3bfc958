"""Tokens by which hosts show who they are at the internal API.

A token says "host H of cell C, until T", signed with a secret that only the gateway and the node agent know. The
gateway keeps no list of hosts: a host that starts while the gateway restarts is as good as any.

A pod's key, which a caller must show it, comes from the same secret, so that every gateway knows the keys of all pods
without asking anybody.
"""

import base64
import binascii
import hashlib
import hmac

import msgspec
from msgspec import Struct

from chimera.gateway.errors import Unauthenticated

_VERSION = "ct1"
MAX_TOKEN = 1024


class HostClaims(Struct, frozen=True, kw_only=True):
    """What a token says. `expires` is seconds since the epoch."""

    host: str
    cell: str
    expires: float


_decoder = msgspec.json.Decoder(HostClaims)


def mint(secret: bytes, *, host: str, cell: str, expires: float) -> str:
    """A token for `host` of `cell`, good until `expires` (seconds since the epoch)."""
    payload = _encode(msgspec.json.encode(HostClaims(host=host, cell=cell, expires=expires)))
    return f"{_VERSION}.{payload}.{_encode(_sign(secret, payload))}"


def is_token(text: str) -> bool:
    """Whether `text` is of the form of a host's token, good or not."""
    return text.startswith(f"{_VERSION}.")


def host_key(secret: bytes, *, host: str, unique: str) -> str:
    """The key of the pod `host` whose unique id is `unique`: another pod of the same name has another key."""
    return _encode(hmac.new(secret, f"host-key.{host}.{unique}".encode(), hashlib.sha256).digest())


def verify(secret: bytes, token: str, *, now: float, leeway: float = 0.0) -> HostClaims:
    """What `token` says, if `secret` signed it and it hasn't expired; else `Unauthenticated`.

    Another gateway may have made it, by another clock: `leeway` is by how many seconds the two may differ.
    """
    version, _, rest = token.partition(".")
    payload, _, signature = rest.partition(".")
    if len(token) > MAX_TOKEN or version != _VERSION or not token.isascii():
        raise _refused("the token is not one of this platform")
    if not hmac.compare_digest(_encode(_sign(secret, payload)), signature):
        raise _refused("the token's signature is wrong")
    try:
        claims = _decoder.decode(base64.b64decode(payload + "=" * (-len(payload) % 4), altchars=b"-_", validate=True))
    except (msgspec.MsgspecError, binascii.Error) as error:
        raise _refused("the token can't be read") from error
    if claims.expires + leeway <= now:
        raise Unauthenticated(
            f"the token has expired {now - claims.expires:.0f} s ago by this gateway's clock",
            next_step="compare the clocks of the gateways' machines; `identity.clock_leeway` says by how much they may "
            "differ",
        )
    return claims


def _refused(detail: str) -> Unauthenticated:
    return Unauthenticated(detail, next_step="the node agent gives each host a token when it starts it")


def _sign(secret: bytes, payload: str) -> bytes:
    return hmac.new(secret, f"{_VERSION}.{payload}".encode(), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
