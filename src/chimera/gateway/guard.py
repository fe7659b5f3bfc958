"""Who may speak to a listener at all: the Host header and the Origin header, as pure rules.

A web page in the user's browser can send requests to 127.0.0.1. It holds no credential, so it can't call anything; the
two headers keep it from trying, also by DNS rebinding (a name of the attacker's that points to 127.0.0.1 shows in
Host). There is no CORS: no foreign origin is ever told that it may read an answer.
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from chimera.gateway.errors import Forbidden
from chimera.kernel.settings import SettingsError

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


def check_host(host: str | None, allowed: Collection[str]) -> None:
    """Raise `Forbidden` unless the Host header names one of `allowed` (lower case, without port)."""
    if host is None or without_port(host) not in allowed:
        raise Forbidden(
            f"the Host header {(host or '')[:200]!r} is none of this gateway's names",
            next_step="use the address that `chimera up` printed, or name the host in the setting `hosts`",
        )


def check_origin(origin: str | None, host: str, scheme: str) -> None:
    """Raise `Forbidden` for a request that a web page of another origin makes."""
    if origin is None:
        return
    try:
        parts = urlsplit(origin)
        own = parts.scheme.lower() == scheme and parts.netloc.lower() == host.lower()
    except ValueError:
        own = False
    if not own:
        raise Forbidden(
            f"pages of {origin[:200]!r} may not call this API", next_step="call it from a program, or through a server"
        )


def without_port(host: str) -> str:
    """The name of a Host header, in lower case."""
    host = host.strip().lower()
    if host.startswith("[") and "]" in host:
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a listener there."""
    if address.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def check_listen(address: str, *, tls: bool, behind_proxy: bool) -> None:
    """Raise `SettingsError` for an address that others can reach without TLS and without a proxy that has it."""
    if not (is_loopback(address) or tls or behind_proxy):
        raise SettingsError(
            [
                f"listening on {address} lets others read keys on the wire: "
                "give a TLS certificate and key, or say --behind-proxy where a proxy ends TLS"
            ]
        )
