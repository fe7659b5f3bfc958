"""API keys: how they look, how they are checked and rotated; pure rules.

A key is `chk_<id>_<secret>`: the id (80 random bits) finds the row, the secret (256) is shown once and never stored.
What is stored is SHA-256 in HMAC under the key's id. That is right for a random secret, where a password would need a
slow hash such as Argon2: those make each guess dear because there are few passwords worth guessing. There are 2^256
secrets; no hash can be slow enough to matter beside that, and a slow one would cost 50 ms and 64 MB of every call, a
gift to whoever sends wrong keys. Nor is there a secret pepper: it would have to be shared by all gateways of a database
and guarded like a key, to protect what can't be guessed. The id in the hash keeps a row's digest from being worth
anything in another row.

Rotation makes a new secret for the same id and lets the one before live for an overlap, so that its users can change
without a moment in which neither works. Revoking ends both at once.
"""

import hashlib
import hmac
import re
import secrets
from typing import Literal

from msgspec.structs import replace

from chimera.gateway.identity.model import StoredKey
from chimera.gateway.identity.principal import Principal

PREFIX = "chk_"
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_ID = 16
_SECRET = 52
_TOKEN = re.compile(rf"chk_([{_ALPHABET}]{{{_ID}}})_([{_ALPHABET}]{{{_SECRET}}})")
_NO_DIGEST = bytes(32)

Verdict = Literal["good", "wrong", "expired", "revoked"]


def new_key_id() -> str:
    """An id for a key."""
    return _random(_ID)


def new_secret() -> str:
    """A secret for a key."""
    return _random(_SECRET)


def token(key: str, secret: str) -> str:
    """What the key's owner shows."""
    return f"{PREFIX}{key}_{secret}"


def parse(shown: str) -> tuple[str, str] | None:
    """The id and the secret in what was shown; None where it isn't a key at all."""
    found = _TOKEN.fullmatch(shown)
    return None if found is None else (found[1], found[2])


def digest(key: str, secret: str) -> bytes:
    """What is stored of `secret`: 32 bytes."""
    return hmac.new(f"chimera-key-1:{key}".encode(), secret.encode(), hashlib.sha256).digest()


def judge(stored: StoredKey | None, key: str, secret: str, now: float) -> Verdict:
    """Whether `secret` opens `stored`. Takes the same steps for an unknown key as for a wrong secret."""
    shown = digest(key, secret)
    current = hmac.compare_digest(shown, _NO_DIGEST if stored is None else stored.digest)
    before = hmac.compare_digest(shown, _NO_DIGEST if stored is None else stored.previous or _NO_DIGEST)
    if stored is None or not (current or before):
        return "wrong"
    if stored.revoked is not None:
        return "revoked"
    ends = [] if stored.expires is None else [stored.expires]
    if not current:
        ends.append(stored.previous_until or 0.0)
    return "expired" if ends and min(ends) <= now else "good"


def rotated(stored: StoredKey, new_digest: bytes, *, now: float, overlap: float) -> StoredKey:
    """`stored` with a new secret; the one in force until now goes on for `overlap` seconds."""
    return replace(stored, digest=new_digest, previous=stored.digest, previous_until=now + overlap, rotated=now)


def has_ended(stored: StoredKey, now: float) -> bool:
    """Whether no secret opens it any more."""
    return stored.revoked is not None or (stored.expires is not None and stored.expires <= now)


def principal_of_key(stored: StoredKey) -> Principal:
    """Who shows the key."""
    return Principal(
        kind="key",
        subject=stored.id,
        tenant=stored.tenant,
        roles=frozenset(stored.roles),
        scopes=None if stored.scopes is None else frozenset(stored.scopes),
        agents=None if stored.agents is None else frozenset(stored.agents),
        expires=stored.expires,
    )


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
