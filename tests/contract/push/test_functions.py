"""Functions behind real sockets, good and bad: where they may be, how long and how much they may answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from chimera.adapters.push.addresses import networks
from chimera.adapters.push.functions import FunctionPusher
from chimera.gateway.errors import FunctionFailed, FunctionRefused, FunctionTimeout, FunctionUnavailable
from chimera.gateway.ports import FunctionRequest

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LOOPBACK = networks(["127.0.0.0/8"])


@asynccontextmanager
async def function(serve: Serve) -> AsyncIterator[str]:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/fn"
    finally:
        server.close()


def answering(head: str, body: bytes = b"", seen: list[bytes] | None = None) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(data)
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()

    return serve


def request(url: str, *, timeout: float = 30.0, most: int = 1_000) -> FunctionRequest:
    return FunctionRequest(url=url, headers={"Authorization": "Bearer s"}, body=b"{}", timeout=timeout, most=most)


@pytest.fixture
async def pusher() -> AsyncIterator[FunctionPusher]:
    made = FunctionPusher(allow=LOOPBACK, connections=10, connect_timeout=5.0)
    yield made
    await made.aclose()


async def test_an_answer_is_given_as_it_is(pusher: FunctionPusher) -> None:
    seen: list[bytes] = []
    head = "503 Later\r\nContent-Type: application/json\r\nRetry-After: 120"
    async with function(answering(head, b'{"a": 1}', seen)) as url:
        answer = await pusher.post(request(url))
    assert (answer.status, answer.content_type, answer.body) == (503, "application/json", b'{"a": 1}')
    assert answer.retry_after == 120
    assert b"Authorization: Bearer s" in seen[0] and b"Accept-Encoding: identity" in seen[0]


async def test_a_redirect_is_not_followed(pusher: FunctionPusher) -> None:
    seen: list[bytes] = []
    async with (
        function(answering("200 OK", b"", seen)) as target,
        function(answering(f"307 Go\r\nLocation: {target}")) as url,
    ):
        assert (await pusher.post(request(url))).status == 307
    assert seen == []


@pytest.mark.parametrize("allow", [(), networks(["10.0.0.0/8"])])
async def test_an_address_that_nobody_allowed_is_not_called(allow: tuple[object, ...]) -> None:
    seen: list[bytes] = []
    pusher = FunctionPusher(allow=allow, connections=10, connect_timeout=5.0)  # type: ignore[arg-type]
    async with function(answering("200 OK", b"", seen)) as url:
        with pytest.raises(FunctionRefused) as refused:
            await pusher.post(request(url))
        with pytest.raises(FunctionRefused):  # a name that leads there
            await pusher.post(request(url.replace("127.0.0.1", "localhost").replace("http:", "https:")))
    assert seen == [] and "functions.allow" in (refused.value.next_step or "")
    await pusher.aclose()


@pytest.mark.parametrize("url", ["ftp://example.com/", "https://user:p@example.com/", "https:///x", "https://a/#b"])
async def test_an_address_that_is_none(pusher: FunctionPusher, url: str) -> None:
    with pytest.raises(FunctionRefused):
        await pusher.post(request(url))


async def test_an_answer_that_is_too_large_or_too_slow(pusher: FunctionPusher) -> None:
    async with function(answering("200 OK", b"x" * 1_001)) as url:
        with pytest.raises(FunctionFailed, match="more than 1000 bytes"):
            await pusher.post(request(url))
        assert len((await pusher.post(request(url, most=1_001))).body) == 1_001

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with function(silent) as url:
        with pytest.raises(FunctionTimeout):
            await pusher.post(request(url, timeout=0.05))


async def test_a_function_that_is_not_there_or_breaks_off(pusher: FunctionPusher) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    async with function(broken) as url:
        with pytest.raises(FunctionUnavailable) as failed:
            await pusher.post(request(url))
    assert failed.value.retry_after
    with pytest.raises(FunctionUnavailable):
        await pusher.post(request(url))
