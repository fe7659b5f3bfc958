"""Requests to real receivers, good and bad."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from chimera.adapters.push.addresses import networks
from chimera.adapters.push.pusher import Pusher

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LOOPBACK = networks(["127.0.0.0/8"])


@asynccontextmanager
async def receiver(serve: Serve) -> AsyncIterator[str]:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/in"
    finally:
        server.close()


@pytest.fixture
async def pusher() -> AsyncIterator[Pusher]:
    made = Pusher(allow=LOOPBACK, connect_timeout=1.0, timeout=0.5)
    yield made
    await made.aclose()


def answering(head: bytes, body: bytes = b"") -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    return serve


@pytest.mark.parametrize(
    ("head", "result"),
    [
        (b"200 OK", "delivered"),
        (b"204 No Content", "delivered"),
        (b"410 Gone", "gone"),
        (b"400 Bad Request", "failed"),
        (b"500 Oh", "failed"),
        (b"302 Found\r\nLocation: http://127.0.0.1:1/", "failed"),
    ],
)
async def test_what_a_receiver_answers(pusher: Pusher, head: bytes, result: str) -> None:
    async with receiver(answering(head)) as url:
        outcome = await pusher.post(url, {}, b"{}")

    assert outcome.result == result
    assert outcome.status == int(head[:3])


async def test_a_receiver_says_when_to_come_back(pusher: Pusher) -> None:
    async with receiver(answering(b"503 Later\r\nRetry-After: 120")) as url:
        assert (await pusher.post(url, {}, b"{}")).retry_after == 120


async def test_a_redirect_is_not_followed(pusher: Pusher) -> None:
    asked: list[str] = []

    async def inner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append("yes")

    async with receiver(inner) as target, receiver(answering(b"307 Go\r\nLocation: " + target.encode())) as url:
        await pusher.post(url, {}, b"{}")

    assert asked == []


async def test_a_large_answer_is_not_read_whole(pusher: Pusher) -> None:
    async with receiver(answering(b"200 OK", b"x" * 10_000_000)) as url:
        assert (await pusher.post(url, {}, b"{}")).result == "delivered"


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
    await reader.read()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n")


@pytest.mark.parametrize("serve", [hang, reset, nonsense])
async def test_a_receiver_that_is_broken_is_a_failure_in_time(pusher: Pusher, serve: Serve) -> None:
    async with asyncio.timeout(5), receiver(serve) as url:
        assert (await pusher.post(url, {}, b"{}")).result == "failed"


async def test_an_answer_whose_body_never_ends_counts_by_its_status(pusher: Pusher) -> None:
    async with asyncio.timeout(5), receiver(trickle) as url:
        assert (await pusher.post(url, {}, b"{}")).result == "delivered"


async def test_nobody_there_is_a_failure(pusher: Pusher) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert (await pusher.post(f"http://127.0.0.1:{port}/", {}, b"{}")).result == "failed"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_an_inner_address_is_not_connected_to_however_it_is_written(host: str) -> None:
    asked: list[str] = []

    async def inner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append("yes")

    guarded = Pusher(connect_timeout=1.0, timeout=2.0)
    try:
        async with receiver(inner) as url:
            for scheme in ("http", "https"):
                told = url.replace("127.0.0.1", host).replace("http:", f"{scheme}:")
                assert (await guarded.post(told, {}, b"{}")).result == "refused"
    finally:
        await guarded.aclose()
    assert asked == []
