"""Functions behind real sockets: what they answer, how long and how much (`test_both` has what webhooks share)."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from chimera.adapters.push.addresses import networks
from chimera.adapters.push.functions import FunctionPusher
from chimera.gateway.errors import FunctionFailed, FunctionRefused, FunctionTimeout, FunctionUnavailable
from chimera.gateway.ports import FunctionRequest
from chimera.testing.receivers import answering, speaking

LOOPBACK = networks(["127.0.0.0/8"])


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
    async with speaking(answering(head, b'{"a": 1}', seen)) as url:
        answer = await pusher.post(request(url))
    assert (answer.status, answer.content_type, answer.body) == (503, "application/json", b'{"a": 1}')
    assert answer.retry_after == 120
    assert b"Authorization: Bearer s" in seen[0] and b"Accept-Encoding: identity" in seen[0]


async def test_an_address_that_nobody_allowed_is_refused_with_what_to_do() -> None:
    pusher = FunctionPusher(connections=10, connect_timeout=5.0)
    async with speaking(answering("200 OK")) as url:
        with pytest.raises(FunctionRefused) as refused:
            await pusher.post(request(url))
    assert "functions.allow" in (refused.value.next_step or "")
    await pusher.aclose()


@pytest.mark.parametrize("url", ["ftp://example.com/", "https://user:p@example.com/", "https:///x", "https://a/#b"])
async def test_an_address_that_is_none(pusher: FunctionPusher, url: str) -> None:
    with pytest.raises(FunctionRefused):
        await pusher.post(request(url))


async def test_an_answer_that_is_too_large_or_too_slow(pusher: FunctionPusher) -> None:
    async with speaking(answering("200 OK", b"x" * 1_001)) as url:
        with pytest.raises(FunctionFailed, match="more than 1000 bytes"):
            await pusher.post(request(url))
        assert len((await pusher.post(request(url, most=1_001))).body) == 1_001

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with speaking(silent) as url:
        with pytest.raises(FunctionTimeout):
            await pusher.post(request(url, timeout=0.05))


async def test_a_function_that_is_not_there_or_breaks_off(pusher: FunctionPusher) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    async with speaking(broken) as url:
        with pytest.raises(FunctionUnavailable) as failed:
            await pusher.post(request(url))
    assert failed.value.retry_after
    with pytest.raises(FunctionUnavailable):
        await pusher.post(request(url))
