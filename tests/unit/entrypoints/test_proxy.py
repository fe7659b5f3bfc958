"""Passing requests on to a process that goes away at any moment: the caller is told so, by its name."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from io import BytesIO
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from chimera.entrypoints.gateway.http import PRINCIPAL
from chimera.entrypoints.gateway.proxy import Proxy
from chimera.gateway.errors import ControlPlaneUnavailable
from chimera.gateway.identity.principal import system

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Callable[[Serve, BytesIO], Awaitable[str]]]:
    """`asked(serve, body)`: what a caller is told, where `serve` is the process behind the proxy."""

    async def ask(serve: Serve, body: BytesIO) -> str:
        address = str(tmp_path / "process.sock")
        behind = await asyncio.start_unix_server(serve, address)
        proxy = Proxy(address, away=lambda: ControlPlaneUnavailable("away"), routes=None, most_bytes=2**24, patience=5)

        async def handle(request: web.Request) -> web.StreamResponse:
            request[PRINCIPAL] = system("test")
            try:
                return await proxy.pass_on(request, "req_1", "/v1/apply")
            except ControlPlaneUnavailable as error:
                return web.Response(text=error.code)

        app = web.Application(client_max_size=2**24)
        app.router.add_post("/", handle)
        async with TestClient(TestServer(app)) as client:
            answer = await client.post("/", data=body)
            said = await answer.text()
        await proxy.aclose()
        behind.close()
        return said

    yield ask


async def _close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _reset_in_the_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    # What was not read makes the close a reset.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@pytest.mark.parametrize("serve", [_close, _reset_in_the_body])
@pytest.mark.parametrize("size", [0, 10, 8 * 2**20])
async def test_a_process_that_goes_away_in_the_middle_is_named(
    asked: Callable[[Serve, BytesIO], Awaitable[str]], serve: Serve, size: int
) -> None:
    assert await asked(serve, BytesIO(bytes(size))) == "control-plane-unavailable"
