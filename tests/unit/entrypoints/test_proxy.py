"""Passing requests on to a process that goes away at any moment: the caller is told so, by its name."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from chimera.entrypoints.gateway.http import PRINCIPAL
from chimera.entrypoints.gateway.proxy import UNSURE, Proxy
from chimera.gateway.errors import ControlPlaneUnavailable
from chimera.gateway.identity.principal import system
from chimera_host.testing.doubles import BreaksOnce

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Caller = TestClient[web.Request, web.Application]


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[Callable[[Serve], Awaitable[Caller]]]:
    """`await behind(serve)`: who calls a proxy, with `serve` as the process behind it; an absence is told as text."""
    async with AsyncExitStack() as stack:

        async def start(serve: Serve) -> Caller:
            address = str(tmp_path / "process.sock")
            stack.callback((await asyncio.start_unix_server(serve, address)).close)
            away = partial(ControlPlaneUnavailable, "away")
            proxy = Proxy(address, away=away, routes=None, most_bytes=2**24, patience=5)
            stack.push_async_callback(proxy.aclose)

            async def handle(request: web.Request) -> web.StreamResponse:
                request[PRINCIPAL] = system("test")
                try:
                    return await proxy.pass_on(request, "req_1", "/v1/apply")
                except ControlPlaneUnavailable as error:
                    return web.Response(text=f"{error.code}: {error.detail}")

            app = web.Application(client_max_size=2**24)
            app.router.add_route("*", "/", handle)
            return await stack.enter_async_context(TestClient(TestServer(app)))

        yield start


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
    behind: Callable[[Serve], Awaitable[Caller]], serve: Serve, size: int
) -> None:
    caller = await behind(serve)
    answer = await caller.post("/", data=BytesIO(bytes(size)))
    assert (await answer.text()).startswith("control-plane-unavailable: away")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_what_may_change_something_is_passed_on_once(
    behind: Callable[[Serve], Awaitable[Caller]], method: str
) -> None:
    process = BreaksOnce()
    caller = await behind(process)
    assert await (await caller.get("/")).text() == '"ok"'
    assert await (await caller.request(method, "/")).text() == f"control-plane-unavailable: away: {UNSURE}"
    assert process.heard == ["GET", method]


async def test_what_only_reads_is_passed_on_again(behind: Callable[[Serve], Awaitable[Caller]]) -> None:
    process = BreaksOnce()
    caller = await behind(process)
    assert [await (await caller.get("/")).text() for _ in range(2)] == ['"ok"', '"ok"']
    assert process.heard == ["GET", "GET", "GET"]
