"""The principal: who asks, as authentication found it; made once for each request and passed along.

Between gateway and control plane it travels as a header on a socket that only this machine's user can open
(`encode_header`, `decode_header`): the gateway has authenticated and authorised, and the control plane writes down who
it was.
"""

import base64
import hashlib
from typing import Literal

import msgspec
from msgspec import Struct

PrincipalKind = Literal["key", "user", "agent", "owner", "host", "system"]

ALL_TENANTS = "*"
"""The tenant of principals that belong to the platform as a whole."""

MAX_ACTOR = 128
_DIGEST_CHARACTERS = 24


class Principal(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who asks.

    `subject` is the key's id, the user as `issuer|sub`, the agent's name, the team that owns code, the host's id or the
    platform's part.
    `tenant` is the one it belongs to, or `ALL_TENANTS`. `scopes` and `agents` narrow what its roles carry: the actions
    it may ask for and the agents it may ask them of; None narrows nothing. `expires` is when its credential ends
    (seconds since the epoch).
    """

    kind: PrincipalKind
    subject: str
    tenant: str
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] | None = None
    agents: frozenset[str] | None = None
    expires: float | None = None

    @property
    def actor(self) -> str:
        """Its name in facts and the audit log: `kind:subject`, a digest at its end where that is too long."""
        whole = f"{self.kind}:{self.subject}"
        if len(whole) <= MAX_ACTOR:
            return whole
        digest = hashlib.sha256(whole.encode()).hexdigest()[:_DIGEST_CHARACTERS]
        return f"{whole[: MAX_ACTOR - _DIGEST_CHARACTERS - 1]}~{digest}"

    def reaches(self, tenant: str) -> bool:
        """Whether `tenant` is its own, or it belongs to all."""
        return self.tenant in (tenant, ALL_TENANTS)


BOOTSTRAP_ADMIN = Principal(kind="key", subject="bootstrap", tenant=ALL_TENANTS, roles=frozenset({"admin"}))
"""Who shows the key in the home's file `chimera.key`: whoever may read that file owns the home anyway."""


def system(part: str) -> Principal:
    """A part of the platform that acts by itself."""
    return Principal(kind="system", subject=part, tenant=ALL_TENANTS, roles=frozenset({"admin"}))


def named_user(subject: str, tenant: str, roles: frozenset[str] = frozenset()) -> Principal:
    """A user by its name `issuer|subject`."""
    return Principal(kind="user", subject=subject, tenant=tenant, roles=roles)


def encode_header(principal: Principal) -> str:
    """`principal` as a header's value (base64url of JSON, since a subject may be any text)."""
    return base64.urlsafe_b64encode(_encoder.encode(principal)).decode("ascii")


def decode_header(value: str) -> Principal:
    """The principal that `encode_header` wrote. Raises ValueError for anything else."""
    return _decoder.decode(base64.b64decode(value, altchars=b"-_", validate=True))


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Principal)
