"""The API's client: where it is, one request, one stream of events. Asynchronous, with one bridge for commands."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import click
import msgspec

from chimera.entrypoints.cli.failing import NotRunning
from chimera.entrypoints.cli.places import home_folder
from chimera.entrypoints.published.parameters import HEADER_KEY
from chimera.kernel.ids import new_id
from chimera_host.contract.problem import Problem, ProblemError, RemoteProblem
from chimera_host.sending import READING, sent_once

T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
RETRIES = 3
KEYED_RETRIES = 6
LEAST_PAUSE = 0.5
"""Seconds before a request with a key is sent again; twice as many each time."""

_AWAY = (502, 503, 504)


class Api:
    """One API with a key and a tenant; use `connect`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, tenant: str) -> None:
        """Use an open session."""
        self._session = session
        self.url = url
        self._tenant = tenant

    def path(self, *parts: str) -> str:
        """A path below the tenant."""
        return "/".join(["/v1/tenants", quote(self._tenant, safe=""), *(quote(part, safe="") for part in parts)])

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """One request; the answer as data. One that only reads is sent again where its connection breaks."""
        data = msgspec.json.encode(body) if body is not None else None
        return await self.send(method, path, data, query=query, headers=headers)

    async def call_once(self, path: str, body: Any, *, method: str = "POST", key: str | None = None) -> Any:
        """A request that names itself by a key, a new one or `key`: it has its effect once however often it is sent.

        It is sent again where its answer is lost, or nobody is there: a control plane that was killed is back in
        seconds.
        """
        headers = {HEADER_KEY: key or new_id("key")}
        for attempt in range(KEYED_RETRIES):
            try:
                return await self.call(method, path, body, headers=headers)
            except ProblemError as error:
                if not was_lost(error) or attempt == KEYED_RETRIES - 1:
                    raise
            await asyncio.sleep(LEAST_PAUSE * 2.0**attempt)
        raise AssertionError("the loop returns or raises")

    async def send(
        self,
        method: str,
        path: str,
        data: bytes | None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The same with a body as bytes."""
        for attempt in range(RETRIES):
            try:
                url = self.url + path
                async with self._session.request(method, url, data=data, params=query, headers=headers) as answer:
                    content = await answer.read()
                    if answer.status >= 400:
                        raise problem_of(answer.status, content)
                    return msgspec.json.decode(content) if content else None
            except aiohttp.ServerDisconnectedError as error:
                if method not in READING or attempt == RETRIES - 1:
                    raise _gone(self.url, error) from error
            except (aiohttp.ClientError, TimeoutError) as error:
                raise _gone(self.url, error) from error
        return None

    async def events(
        self, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[tuple[str, Any]]:
        """Server-sent events as (name, data): of a POST with `body`, or of a GET without one."""
        sent = {"Accept": "text/event-stream", **(headers or {})}
        method, data = ("GET", None) if body is None else ("POST", msgspec.json.encode(body))
        async with self._opened(method, path, data=data, headers=sent) as answer:
            name = "message"
            async for line in answer.content:
                text = line.rstrip(b"\r\n")
                if text.startswith(b"event:"):
                    name = text[6:].strip().decode()
                elif text.startswith(b"data:"):
                    yield name, msgspec.json.decode(text[5:])
                elif not text:
                    name = "message"

    async def lines(self, path: str, query: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """JSON lines."""
        async for line in self.raw_lines(path, query):
            yield msgspec.json.decode(line)

    async def raw_lines(self, path: str, query: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """JSON lines as they are written, each with its end."""
        async with self._opened("GET", path, params=query) as answer:
            async for line in answer.content:
                if line.strip():
                    yield line

    @asynccontextmanager
    async def _opened(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with self._session.request(method, self.url + path, **options) as answer:
                if answer.status >= 400:
                    raise problem_of(answer.status, await answer.read())
                yield answer
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _gone(self.url, error) from error


@asynccontextmanager
async def connect(options: Mapping[str, Any]) -> AsyncIterator[Api]:
    """The API that the command line's options, the environment or the home name."""
    url, key = address(options)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(
        headers=headers, timeout=timeout, read_bufsize=2**20, middlewares=(sent_once,)
    ) as session:
        yield Api(session, url, options["tenant"])


def address(options: Mapping[str, Any]) -> tuple[str, str]:
    """URL and key; raises `NotRunning` where there is none."""
    home = home_folder(options)
    url, key = options.get("url"), options.get("key")
    endpoint, key_file = home / "run" / "endpoint.json", "chimera.key"
    if url is None:
        if not endpoint.exists():
            raise NotRunning(f"nothing runs in {home}", next_step="start it with `chimera up`, or give --url and --key")
        left = msgspec.json.decode(endpoint.read_bytes())
        # What runs in a cluster has a key of its own: the home's may be that of what ran here.
        url, key_file = left["public"], left.get("key_file", key_file)
    if key is None:
        file = home / key_file
        if not file.exists():
            raise NotRunning(f"there is no key in {home}", next_step="give --key, or set CHIMERA_KEY")
        key = file.read_text().strip()
    return str(url).rstrip("/"), key


def run(options: Mapping[str, Any], work: Callable[[Api], Awaitable[T]]) -> T:
    """The one bridge from a command to asynchronous code."""

    async def connected() -> T:
        async with connect(options) as api:
            return await work(api)

    return asyncio.run(connected())


def was_lost(error: ProblemError) -> bool:
    """Whether it isn't known what became of a request: nobody is there, or its answer was lost."""
    return isinstance(error, NotRunning) or error.status in _AWAY


def problem_of(status: int, content: bytes) -> ProblemError:
    """The problem that an answer tells, or one made from its status."""
    try:
        return RemoteProblem(msgspec.json.decode(content, type=Problem))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        error = ProblemError(f"the API answered {status}: {content[:200].decode('utf-8', 'replace')}")
        error.status = status
        return error


def _gone(url: str, error: BaseException) -> NotRunning:
    return NotRunning(f"{url} does not answer: {error}", next_step="see `chimera status`; start it with `chimera up`")


def options_of(context: click.Context) -> Mapping[str, Any]:
    """The options of the command line that every command shares."""
    found: Mapping[str, Any] = context.find_root().obj
    return found
