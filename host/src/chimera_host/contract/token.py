"""A host's token: short-lived, changed for a fresh one at `POST /internal/v1/token` while it is still good.

The node agent gives a host its first token. A pod shows there what proves to its cluster who it is, the token of its
service account, and gets its first token, its name as a host, and the key that callers must show it. The gateway renews
a token only for a host that is known to run, so one that leaked is worth its few remaining minutes.
"""

from msgspec import Struct

PATH_TOKEN = "/internal/v1/token"
FIRST_RENEWAL = 60.0
"""A host asks for its second token this many seconds after its start; tokens live longer than that."""


class FreshToken(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A new token, and the seconds until it ends; for a pod's first one also who it is and its key."""

    token: str
    expires_in: float
    host: str | None = None
    cell: str | None = None
    host_key: str | None = None
