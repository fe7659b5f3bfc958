"""One request to a receiver, and what came of it.

The address is judged where the socket is made, after every name is resolved: what was judged is what is connected to,
so a name that changes its address between a look and the call (DNS rebinding) gains nothing. Redirects are not
followed, proxies of the environment are not used, cookies are not kept, and of an answer's body a little is read and
thrown away. Each request has one time limit for everything.
"""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from chimera.adapters.push.addresses import Network, is_address, may_call
from chimera.events.delivery.model import Outcome

MOST_READ = 4 * 1024
MOST_URL = 2_048
LONGEST_WAIT = 86_400.0
USER_AGENT = "chimera-webhooks/1"


class AddressRefused(OSError):
    """The receiver's address is not one that may be called."""


def fault_of_url(url: str) -> str | None:
    """What is wrong with a receiver's address as it is written; None where nothing is."""
    if len(url) > MOST_URL:
        return f"the address is longer than {MOST_URL} characters"
    if not url.isascii() or any(ord(one) <= 0x20 for one in url):
        return "the address holds characters that must be written as %XX"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"the address can't be read: {error}"
    if parts.scheme not in ("https", "http"):
        return "the address must begin with https://"
    if not parts.hostname:
        return "the address names no host"
    if parts.username is not None or parts.password is not None:
        return "the address must hold no user and no password"
    return "the address must have no part after #" if parts.fragment else None


def fault_of_receiver(url: str, allow: tuple[Network, ...]) -> str | None:
    """What is wrong with a receiver's address before it is ever called; None where nothing is to be seen yet.

    A name's address is judged when it is called, an address that is written out is judged here too.
    """
    if (fault := fault_of_url(url)) is not None:
        return fault
    parts = urlsplit(url)
    encrypted = parts.scheme == "https"
    if not encrypted and not allow:
        return "the address must begin with https://: the operator allows no network without encryption (events.allow)"
    host = parts.hostname or ""
    if is_address(host) and not may_call(host, allow, encrypted=encrypted):
        return "the address is not public, and not one that the operator allows (events.allow)"
    return None


class Pusher:
    """Sends requests. Made inside the event loop; `aclose` when done."""

    def __init__(
        self, *, allow: tuple[Network, ...] = (), connections: int = 64, connect_timeout: float, timeout: float
    ) -> None:
        """Call public addresses by https, and those of `allow` also without; times in seconds."""
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=connect_timeout)
        self._sessions = {
            scheme: aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=connections,
                    use_dns_cache=False,
                    keepalive_timeout=30.0,
                    socket_factory=guarded(allow, encrypted=scheme == "https"),
                ),
                timeout=limits,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                headers={"User-Agent": USER_AGENT, "Accept": "*/*"},
            )
            for scheme in ("https", "http")
        }

    async def aclose(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(session.close() for session in self._sessions.values()))

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        """Send `body` to `url`, which `fault_of_url` found right."""
        session = self._sessions[urlsplit(url).scheme]
        try:
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                outcome = outcome_of(answer.status, answer.headers.get("Retry-After"))
                await answer.content.read(MOST_READ)
                if not answer.content.at_eof():
                    answer.close()  # the rest is not waited for
                return outcome
        except TimeoutError:
            return Outcome(result="failed", reason="the receiver did not answer in time")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if was_refused(error):
                return Outcome(result="refused", reason="the receiver's address is not public, and not allowed")
            return Outcome(result="failed", reason=f"the receiver can't be reached: {type(error).__name__}")


def outcome_of(status: int, retry_after: str | None) -> Outcome:
    """What a receiver's status means; a redirect is a failure, since it is not followed."""
    if 200 <= status < 300:
        return Outcome(result="delivered", status=status)
    if status == 410:
        return Outcome(result="gone", status=status, reason="the receiver answered 410: it wants no more")
    wait = None
    if retry_after is not None and retry_after.isascii() and retry_after.isdigit() and len(retry_after) <= 9:
        wait = min(float(retry_after), LONGEST_WAIT)
    return Outcome(result="failed", status=status, reason=f"the receiver answered {status}", retry_after=wait)


def guarded(allow: tuple[Network, ...], *, encrypted: bool) -> Any:
    """Makes sockets for addresses that may be called, as aiohttp's connectors ask for them."""

    def make(info: Any) -> socket.socket:
        family, kind, protocol, _, address = info
        if not may_call(str(address[0]), allow, encrypted=encrypted):
            raise AddressRefused(f"{address[0]} may not be called")
        made = socket.socket(family=family, type=kind, proto=protocol)
        made.setblocking(False)
        return made

    return make


def was_refused(error: BaseException | None) -> bool:
    """Whether an address that may not be called is behind an error."""
    while error is not None:
        if isinstance(error, AddressRefused) or isinstance(getattr(error, "os_error", None), AddressRefused):
            return True
        error = error.__cause__ or error.__context__
    return False
