"""What webhooks and functions have in common: where a request may go, and what becomes of it with bad receivers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import pytest

from chimera.adapters.push.addresses import Network, networks
from chimera.adapters.push.functions import FunctionPusher
from chimera.adapters.push.pusher import Pusher
from chimera.gateway.errors import FunctionFailed, FunctionRefused, FunctionTimeout, FunctionUnavailable
from chimera.gateway.ports import FunctionRequest
from chimera.testing.receivers import Serve, answering, speaking

LOOPBACK = networks(["127.0.0.0/8"])


@dataclass(frozen=True, kw_only=True)
class Came:
    """What came of a request."""

    to: Literal["answered", "refused", "failed"]
    status: int | None = None
    retry_after: float | None = None


class Sender(Protocol):
    """Sends a request."""

    async def post(self, url: str) -> Came: ...

    async def aclose(self) -> None: ...


class Webhooks:
    def __init__(self, allow: tuple[Network, ...]) -> None:
        self._pusher = Pusher(allow=allow, connect_timeout=1.0, timeout=0.5)

    async def post(self, url: str) -> Came:
        outcome = await self._pusher.post(url, {}, b"{}")
        if outcome.result == "refused" or outcome.status is None:
            assert outcome.result in ("refused", "failed")
            return Came(to="refused" if outcome.result == "refused" else "failed")
        return Came(to="answered", status=outcome.status, retry_after=outcome.retry_after)

    async def aclose(self) -> None:
        await self._pusher.aclose()


class Functions:
    def __init__(self, allow: tuple[Network, ...]) -> None:
        self._pusher = FunctionPusher(allow=allow, connections=10, connect_timeout=1.0)

    async def post(self, url: str) -> Came:
        try:
            answer = await self._pusher.post(
                FunctionRequest(url=url, headers={}, body=b"{}", timeout=0.5, most=20_000_000)
            )
        except FunctionRefused:
            return Came(to="refused")
        except (FunctionUnavailable, FunctionTimeout, FunctionFailed):
            return Came(to="failed")
        return Came(to="answered", status=answer.status, retry_after=answer.retry_after)

    async def aclose(self) -> None:
        await self._pusher.aclose()


KINDS: dict[str, Callable[[tuple[Network, ...]], Sender]] = {"webhooks": Webhooks, "functions": Functions}


@pytest.fixture(params=KINDS)
async def sender(request: pytest.FixtureRequest) -> AsyncIterator[Sender]:
    made = KINDS[request.param](LOOPBACK)
    yield made
    await made.aclose()


async def test_a_receiver_says_when_to_come_back(sender: Sender) -> None:
    async with speaking(answering("503 Later\r\nRetry-After: 120")) as url:
        assert await sender.post(url) == Came(to="answered", status=503, retry_after=120)


async def test_a_redirect_is_not_followed(sender: Sender) -> None:
    seen: list[bytes] = []
    async with (
        speaking(answering("200 OK", b"", seen)) as target,
        speaking(answering(f"307 Go\r\nLocation: {target}")) as url,
    ):
        assert (await sender.post(url)).status == 307
    assert seen == []


async def test_a_large_answer_is_an_answer(sender: Sender) -> None:
    async with speaking(answering("200 OK", b"x" * 10_000_000)) as url:
        assert (await sender.post(url)).status == 200


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n")


@pytest.mark.parametrize("serve", [hang, reset, nonsense])
async def test_a_receiver_that_is_broken_is_a_failure_in_time(sender: Sender, serve: Serve) -> None:
    async with asyncio.timeout(5), speaking(serve) as url:
        assert await sender.post(url) == Came(to="failed")


async def test_nobody_there_is_a_failure(sender: Sender) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert await sender.post(f"http://127.0.0.1:{port}/") == Came(to="failed")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("allow", [(), networks(["10.0.0.0/8"])], ids=["nothing", "another"])
@pytest.mark.parametrize("kind", KINDS)
async def test_an_inner_address_is_not_connected_to_however_it_is_written(
    kind: str, allow: tuple[Network, ...], host: str
) -> None:
    seen: list[bytes] = []
    guarded = KINDS[kind](allow)
    try:
        async with speaking(answering("200 OK", b"", seen)) as url:
            for scheme in ("http", "https"):
                told = url.replace("127.0.0.1", host).replace("http:", f"{scheme}:")
                assert await guarded.post(told) == Came(to="refused")
    finally:
        await guarded.aclose()
    assert seen == []
