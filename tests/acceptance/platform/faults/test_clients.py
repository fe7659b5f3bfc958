"""Clients that are slow, half open or silent: they cost a place and nothing more, and are let go in time."""

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from chimera.testing.faults.load import AGENTS, Load, under_load

CLIENTS = 100
pytestmark = pytest.mark.slow


def connection(url: str) -> socket.socket:
    where = urlsplit(url)
    made = socket.create_connection((where.hostname, where.port), timeout=60)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return made


def request(key: str, body: bytes, length: int | None = None) -> bytes:
    head = (
        f"POST {AGENTS}steady/invoke HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nAccept: text/event-stream\r\nContent-Length: {length or len(body)}\r\n\r\n"
    )
    return head.encode() + body


def test_slow_half_open_and_silent_clients_hold_nobody_up(start: Callable[..., Any]) -> None:
    platform = start(CHIMERA_HTTP__HEADER_TIMEOUT="2", CHIMERA_HTTP__BODY_TIMEOUT="2")
    asked = json.dumps({"input": "x" * 200_000, "stream": True}).encode()

    async def be_rude(load: Load) -> None:
        url, key = platform.url, platform.key
        rude = [closing.enter_context(connection(url)) for _ in range(4 * CLIENTS)]
        kinds = [rude[start::4] for start in range(4)]
        for silent in kinds[0]:
            silent.send(b"")
        for slow in kinds[1]:
            slow.send(b"POST /v1/ten")
        for half in kinds[2]:
            half.send(request(key, b'{"input": "hel', length=1000))
        for deaf in kinds[3]:
            deaf.sendall(request(key, asked))
        for _ in range(20):
            answer = await load.client.ask("POST", f"{AGENTS}steady/invoke", {"input": "hello"})
            assert answer is not None and answer[0] in (200, 429, 503), answer
            await asyncio.sleep(0.1)
        for one in kinds[1] + kinds[2]:
            ended = await asyncio.to_thread(drained, one)
            assert ended in (b"", b"400", b"408"), ended

    with ExitStack() as closing:
        load = asyncio.run(under_load(platform.url, platform.key, be_rude))

    print(load.counts(), load.client.seen)
    assert all(load.counts().values())


def drained(one: socket.socket) -> bytes:
    """The status that the server ended the connection with, if it said one; a time-out fails the test."""
    said = b""
    try:
        while data := one.recv(65536):
            said += data
    except ConnectionResetError:
        pass
    return said.split(b" ", 2)[1] if said else b""
