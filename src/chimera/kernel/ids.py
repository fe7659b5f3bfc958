"""Identifiers: names that people give, and ids that sort by the time they were made."""

import os
import re
import time
from typing import NewType

Tenant = NewType("Tenant", str)
AgentName = NewType("AgentName", str)
RevisionDigest = NewType("RevisionDigest", str)
CellId = NewType("CellId", str)
HostId = NewType("HostId", str)
CallId = NewType("CallId", str)
SessionId = NewType("SessionId", str)

DEFAULT_TENANT = Tenant("default")
ENVIRONMENT = "env--"
"""What the names of environments begin with: tenants that the platform makes to test agents in, and takes away."""
NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """An id like `call_01jd…`: 48 bits of milliseconds and 80 random bits in Crockford's base 32 (as a ULID).

    Ids made a millisecond apart sort in that order; two are never equal in practice (80 random bits).
    """
    value = (int(time.time() * 1000) << 80) | int.from_bytes(os.urandom(10), "big")
    characters = []
    for _ in range(26):
        characters.append(_ALPHABET[value & 31])
        value >>= 5
    return f"{prefix}_{''.join(reversed(characters))}"


def is_environment(tenant: str) -> bool:
    """Whether a tenant is an environment for tests and not production."""
    return tenant.startswith(ENVIRONMENT)


def is_name(text: str) -> bool:
    """Whether `text` is a name: 1 to 63 lower-case letters, digits and inner hyphens (RFC 1123 label)."""
    return NAME_PATTERN.fullmatch(text) is not None
