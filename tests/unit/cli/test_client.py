"""The API's client: what it sends again, and what it says where an answer was lost."""

import asyncio

import pytest

from chimera.entrypoints.cli.client import Api, connect
from chimera.entrypoints.cli.failing import NotRunning
from chimera_host.testing.doubles import BreaksOnce


async def _twice(server: BreaksOnce, method: str) -> tuple[object, object]:
    async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
        host, port = listening.sockets[0].getsockname()
        async with connect({"url": f"http://{host}:{port}", "key": "k", "tenant": "default"}) as api:
            return await _sent(api, "GET"), await _sent(api, method)


async def _sent(api: Api, method: str) -> object:
    return await api.call(method, api.path("agents", "one"))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_what_may_change_something_is_sent_once(method: str) -> None:
    server = BreaksOnce()
    with pytest.raises(NotRunning, match="broke before the answer"):
        await _twice(server, method)
    assert server.heard == ["GET", method]


async def test_what_only_reads_is_sent_again() -> None:
    server = BreaksOnce()
    assert await _twice(server, "GET") == ("ok", "ok")
    assert server.heard == ["GET", "GET", "GET"]
