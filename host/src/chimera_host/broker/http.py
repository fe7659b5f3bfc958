"""HTTP as tools may use it: every connection goes through the egress rule, redirects included, and answers are bounded.

The rule judges names in `Egress`; here it is made to hold. A name is resolved by a resolver that judges each address
and hands only judged ones on, and aiohttp connects to exactly those: there is no second look-up that could say
something else. Redirects are followed by hand, so that each hop is judged anew; a hop to another origin loses the
headers that were meant for the first. Proxy settings of the environment are not used, cookies are not kept.

In a run, a request that may have effects carries an idempotency key in the header that the IETF's draft gives it,
unless the tool has set one: the same when the tool runs again, another for each request that a tool sends.
"""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct
from yarl import URL

from chimera_host.broker.egress import Egress, Target, as_address
from chimera_host.contract.state import HEADER_IDEMPOTENCY
from chimera_host.errors import ToolFailed, ToolRefused
from chimera_host.sending import AnswerLost, sent_once
from chimera_host.steps import current_scope

MAX_REDIRECTS = 5
MAX_BODY = 16 * 1024**2
CONNECT_TIMEOUT = 10.0
KEEPALIVE = 4.0
"""Below the five seconds after which common servers close an idle connection: a request is then not lost to that."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEEP_METHOD = frozenset({307, 308})
_NO_EFFECT = frozenset({"GET", "HEAD", "OPTIONS"})
_HARMLESS = frozenset({"accept", "accept-language", "content-type"})
_BAD_URL = "the URL can't be read"


class CheckedResolver(AbstractResolver):
    """Resolves a name and passes only those of its addresses on that the rule allows."""

    def __init__(self, egress: Egress, inner: AbstractResolver | None = None) -> None:
        """Judge by `egress` what `inner` finds."""
        self._egress = egress
        self._inner = inner or aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The allowed addresses of `host`; the refusal of the first one where none is allowed."""
        target = Target("", host.rstrip(".").lower(), port)
        allowed: list[ResolveResult] = []
        refusal: ToolRefused | None = None
        for found in await self._inner.resolve(host, port, family):
            address = as_address(found["host"])
            if address is None:
                continue
            try:
                self._egress.judge(target, address)
            except ToolRefused as refused:
                refusal = refusal or refused
            else:
                allowed.append(found)
        if not allowed:
            raise refusal or OSError(f"{host} has no address")
        return allowed

    async def close(self) -> None:
        """Close the inner one."""
        await self._inner.close()


class CheckedSession:
    """A pool of connections for one tool. Made on first use, inside the event loop; `aclose` when done."""

    def __init__(self, egress: Egress, resolver: AbstractResolver | None = None) -> None:
        """Connect only where `egress` allows it."""
        self.egress = egress
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        leave_origin: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and give its answer's head; the caller reads the body. Redirects are followed.

        Without `leave_origin` a redirect to another server is refused: a protocol's endpoint is where it was set up.
        """
        place = parse_url(url)
        target = self.egress.target(place)
        sent = dict(headers or {})
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._send(method, place, target, sent, data)
            try:
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or location is None:
                    yield response
                    return
                status = response.status
            finally:
                response.close()
            place = _joined(place, location)
            following = self.egress.target(place)
            if following.origin != target.origin:
                if not leave_origin:
                    raise ToolRefused(
                        f"{target.host} redirects to {following.host}:{following.port}, which is another server",
                        next_step="use the address that it redirects to, if that is the server you mean",
                    )
                sent = {name: value for name, value in sent.items() if name.lower() in _HARMLESS}
            target = following
            if status not in _KEEP_METHOD and method not in ("GET", "HEAD"):
                method, data = "GET", None
        raise ToolFailed(f"{target.host} redirects more than {MAX_REDIRECTS} times")

    async def _send(
        self, method: str, place: URL, target: Target, headers: Mapping[str, str], data: bytes | None
    ) -> aiohttp.ClientResponse:
        try:
            return await self._pool().request(method, place, headers=headers, data=data, allow_redirects=False)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise unreachable(target, error) from None

    def _pool(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=CheckedResolver(self.egress, self._resolver),
                use_dns_cache=False,
                limit=0,
                keepalive_timeout=KEEPALIVE,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
                headers={"User-Agent": "chimera-host"},
                middlewares=(sent_once,),
            )
        return self._session


class HttpAnswer(Struct, frozen=True, kw_only=True):
    """An answer, read whole. Header names are in small letters."""

    status: int
    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ToolFailed(f"{URL(self.url).host} answered {self.status} with what is no JSON: {error}") from error


class CheckedHttp:
    """The HTTP client that a function tool is given. `request` is for coroutines, `request_blocking` for threads."""

    def __init__(self, session: CheckedSession, loop: asyncio.AbstractEventLoop) -> None:
        """Send through `session`, which belongs to `loop`."""
        self._session = session
        self._loop = loop

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
        json: Any = None,
        seconds: float = 30.0,
        max_bytes: int = MAX_BODY,
    ) -> HttpAnswer:
        """Send a request, follow redirects, read the answer.

        Raises `ToolRefused` where the tool may not connect, `ToolFailed` where there is no answer within
        `seconds` or it is larger than `max_bytes`. An answer of any status is an answer.
        """
        sent = dict(headers or {})
        data = body.encode() if isinstance(body, str) else body
        if json is not None:
            data = msgspec.json.encode(json)
            sent.setdefault("Content-Type", "application/json")
        method = method.upper()
        try:
            with _keyed(sent, method, url, data) as headers:
                return await self._exchange(method, url, headers, data, seconds, max_bytes)
        except TimeoutError:
            raise ToolFailed(f"{parse_url(url).host} did not answer within {seconds:g} s") from None

    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes | None, seconds: float, max_bytes: int
    ) -> HttpAnswer:
        async with (
            asyncio.timeout(seconds),
            self._session.open(method, url, headers=headers, data=data) as response,
        ):
            return HttpAnswer(
                status=response.status,
                url=str(response.url),
                headers={name.lower(): value for name, value in response.headers.items()},
                body=await read_bounded(response, max_bytes),
            )

    def request_blocking(self, method: str, url: str, **options: Any) -> HttpAnswer:
        """`request`, from a function that is not a coroutine."""
        return asyncio.run_coroutine_threadsafe(self.request(method, url, **options), self._loop).result()


@contextmanager
def _keyed(headers: dict[str, str], method: str, url: str, data: bytes | None) -> Iterator[dict[str, str]]:
    """The headers with the request's idempotency key, where it has one."""
    scope = current_scope.get()
    if scope is None or method in _NO_EFFECT or any(name.lower() == "idempotency-key" for name in headers):
        yield headers
        return
    with scope.asking("http", method, url, hashlib.sha256(data or b"").hexdigest()) as key:
        yield {**headers, HEADER_IDEMPOTENCY: key}


async def read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, if it is not larger than `limit` bytes."""
    data = bytearray()
    try:
        async for piece in response.content.iter_chunked(64 * 1024):
            data += piece
            if len(data) > limit:
                raise ToolFailed(f"{response.url.host} answered more than {limit} bytes", next_step="ask it for less")
    except (aiohttp.ClientError, OSError) as error:
        raise ToolFailed(f"the answer of {response.url.host} broke off ({type(error).__name__})") from None
    return bytes(data)


def parse_url(url: str) -> URL:
    """The URL; refuses what is none."""
    try:
        return URL(url)
    except ValueError:
        raise ToolRefused(_BAD_URL, next_step="give a whole URL, with its scheme") from None


def _joined(place: URL, location: str) -> URL:
    try:
        return place.join(URL(location))
    except ValueError:
        raise ToolFailed(f"{place.host} redirects to what is no URL") from None


def unreachable(target: Target, error: Exception) -> ToolFailed:
    """The error of a target that can't be reached; the vendor's words may hold the URL, so only its kind is told."""
    reason = "the name has no address" if isinstance(error, aiohttp.ClientConnectorDNSError) else ""
    if not reason and isinstance(error, TimeoutError):
        reason = "no answer in time"
    if isinstance(error, AnswerLost):
        reason = "the connection broke before the answer, so what was asked may be done"
    os_error = getattr(error, "os_error", error)
    if not reason and isinstance(os_error, OSError) and os_error.strerror:
        reason = os_error.strerror
    return ToolFailed(
        f"{target.host}:{target.port} can't be reached: {reason or type(error).__name__}",
        next_step="see whether the service runs",
    )
