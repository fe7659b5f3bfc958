"""Requests to functions that agents stand for: the same guarded addresses as receivers of events, and an answer.

Whoever writes a definition says where its function is, so what holds for receivers holds here: the address is judged
where the socket is made, redirects are not followed, proxies of the environment are not used, and nothing is
decompressed. An answer is read up to its bound, and no further.
"""

import asyncio
from urllib.parse import urlsplit

import aiohttp

from chimera.adapters.push.addresses import Network
from chimera.adapters.push.pusher import LONGEST_WAIT, fault_of_url, guarded, was_refused
from chimera.gateway.errors import FunctionFailed, FunctionRefused, FunctionTimeout, FunctionUnavailable
from chimera.gateway.ports import FunctionRequest, FunctionResponse

USER_AGENT = "chimera-functions/1"
PIECE = 64 * 1024
KEEPALIVE = 4.0
"""Servers of functions often close an idle connection after five seconds; who closes first breaks no request."""


class FunctionPusher:
    """Calls functions (the port `FunctionCaller`). Made inside the event loop."""

    def __init__(self, *, allow: tuple[Network, ...] = (), connections: int, connect_timeout: float) -> None:
        """Call public addresses by https, and those of `allow` also without."""
        self._connect_timeout = connect_timeout
        self._sessions = {
            scheme: aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=connections,
                    use_dns_cache=False,
                    keepalive_timeout=KEEPALIVE,
                    socket_factory=guarded(allow, encrypted=scheme == "https"),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
            )
            for scheme in ("https", "http")
        }

    async def aclose(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(session.close() for session in self._sessions.values()))

    async def post(self, request: FunctionRequest) -> FunctionResponse:
        """See `FunctionCaller`."""
        if (fault := fault_of_url(request.url)) is not None:
            raise FunctionRefused(fault, next_step="correct `url` of the agent's endpoint")
        session = self._sessions[urlsplit(request.url).scheme]
        limits = aiohttp.ClientTimeout(total=request.timeout, sock_connect=self._connect_timeout)
        try:
            async with session.post(
                request.url, data=request.body, headers=request.headers, allow_redirects=False, timeout=limits
            ) as answer:
                return FunctionResponse(
                    status=answer.status,
                    content_type=answer.headers.get("Content-Type", ""),
                    body=await _bounded(answer, request.most),
                    retry_after=_seconds(answer.headers.get("Retry-After")),
                )
        except aiohttp.ConnectionTimeoutError as error:
            raise FunctionUnavailable(
                f"the function can't be reached within {self._connect_timeout:g} s", retry_after=1.0
            ) from error
        except TimeoutError as error:
            raise FunctionTimeout(
                f"the function did not answer within {request.timeout:.1f} s",
                next_step="give it more time (`timeout_seconds` of the endpoint, the call's deadline), or see its log",
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if was_refused(error):
                raise FunctionRefused(
                    "the function's address is not public, or not encrypted, and the operator doesn't allow it",
                    next_step="use https and a public address, or have its network named in functions.allow",
                ) from error
            raise FunctionUnavailable(
                f"the function can't be reached: {type(error).__name__}",
                next_step="see whether it runs, and whether its address is right",
                retry_after=1.0,
            ) from error


async def _bounded(answer: aiohttp.ClientResponse, most: int) -> bytes:
    data = bytearray()
    async for piece in answer.content.iter_chunked(PIECE):
        data += piece
        if len(data) > most:
            answer.close()  # the rest is not waited for
            raise FunctionFailed(
                f"the function answered more than {most} bytes",
                next_step="answer less, or raise `max_output_bytes` of the endpoint",
            )
    return bytes(data)


def _seconds(text: str | None) -> float | None:
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 9):
        return None
    return min(float(text), LONGEST_WAIT)
