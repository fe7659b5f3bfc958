"""A host's token: short-lived, changed for a fresh one at `POST /internal/v1/token` while it is still good.

The node agent gives a host its first token. The gateway renews it only for a host that is known to run, so a token that
leaked is worth its few remaining minutes.
"""

from msgspec import Struct

PATH_TOKEN = "/internal/v1/token"
FIRST_RENEWAL = 60.0
"""A host asks for its second token this many seconds after its start; tokens live longer than that."""


class FreshToken(Struct, frozen=True, kw_only=True):
    """A new token, and the seconds until it ends."""

    token: str
    expires_in: float
