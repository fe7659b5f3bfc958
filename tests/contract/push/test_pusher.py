"""Webhooks' requests to real receivers: what an answer comes to (`test_both` has what functions share)."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from chimera.adapters.push.addresses import networks
from chimera.adapters.push.pusher import Pusher
from chimera.testing.receivers import answering, speaking


@pytest.fixture
async def pusher() -> AsyncIterator[Pusher]:
    made = Pusher(allow=networks(["127.0.0.0/8"]), connect_timeout=1.0, timeout=0.5)
    yield made
    await made.aclose()


@pytest.mark.parametrize(
    ("head", "result"),
    [
        ("200 OK", "delivered"),
        ("204 No Content", "delivered"),
        ("410 Gone", "gone"),
        ("400 Bad Request", "failed"),
        ("500 Oh", "failed"),
        ("302 Found\r\nLocation: http://127.0.0.1:1/", "failed"),
    ],
)
async def test_what_a_receiver_answers(pusher: Pusher, head: str, result: str) -> None:
    async with speaking(answering(head)) as url:
        outcome = await pusher.post(url, {}, b"{}")

    assert outcome.result == result
    assert outcome.status == int(head[:3])


async def test_a_large_answer_is_not_read_whole(pusher: Pusher) -> None:
    async with speaking(answering("200 OK", b"x" * 10_000_000)) as url:
        assert (await pusher.post(url, {}, b"{}")).result == "delivered"


async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
    await reader.read()


async def test_an_answer_whose_body_never_ends_counts_by_its_status(pusher: Pusher) -> None:
    async with asyncio.timeout(5), speaking(trickle) as url:
        assert (await pusher.post(url, {}, b"{}")).result == "delivered"
