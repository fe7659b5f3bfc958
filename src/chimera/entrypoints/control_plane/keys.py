"""The Idempotency-Key of a request: what is asked for with one happens once, however often it is sent."""

import hashlib

from aiohttp import web

from chimera.entrypoints.control_plane.http import BadRequest, principal_of
from chimera.entrypoints.published.parameters import HEADER_KEY

_LONGEST_KEY = 255


def key_of(request: web.Request, about: str = "") -> str | None:
    """The digest of the request's key, if it has one: one caller's say nothing about another's.

    `about` is what the request's path names: the same key for another is another one.
    """
    key = request.headers.get(HEADER_KEY)
    if key is None:
        return None
    if not (1 <= len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable() and " " not in key):
        raise BadRequest(
            f"{HEADER_KEY} is no key: {key[:40]!r}",
            next_step=f"use 1 to {_LONGEST_KEY} visible ASCII characters, such as a UUID",
        )
    beside = f"\0{about}" if about else ""
    return hashlib.sha256(f"{principal_of(request).actor}\0{key}{beside}".encode()).hexdigest()
