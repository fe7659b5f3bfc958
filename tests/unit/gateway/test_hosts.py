"""What a proxy in front of a host says of a host that doesn't answer: whether the call may be made again."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from chimera.gateway.errors import HostFailed
from chimera.gateway.hosts import HostClient, HostDied, HostUnreachable
from chimera.platform.model import Endpoint
from chimera_host.contract.call import InvokeRequest, Message


@pytest.fixture
async def said() -> AsyncIterator[dict[str, object]]:
    """A proxy that answers with what a test puts here."""
    told: dict[str, object] = {}

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=int(str(told["status"])), text=str(told["text"]))

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    told["url"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield told
    await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (502, "dial tcp 127.0.0.1:8080: connect: connection refused\n", HostUnreachable),
        (502, "EOF\n", HostDied),
        (502, "read tcp 127.0.0.1:1->127.0.0.1:8080: read: connection reset by peer\n", HostDied),
        (504, "timeout", HostFailed),
        (404, "404 page not found\n", HostFailed),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_proxys_own_answer(
    said: dict[str, object], status: int, text: str, error: type[Exception], stream: bool
) -> None:
    said.update(status=status, text=text)
    client = HostClient()
    request = InvokeRequest(
        call="c",
        tenant="t",
        agent="a",
        revision="r",
        messages=(Message(role="user", content="hi"),),
        deadline=5.0,
        stream=stream,
    )
    endpoint = Endpoint(host="h", cell="c", url=str(said["url"]), key="k")

    async def sink(name: bytes, data: bytes) -> None:
        raise AssertionError("nothing comes")

    try:
        with pytest.raises(error) as raised:
            if stream:
                await client.stream(endpoint, request, "", sink)
            else:
                await client.invoke(endpoint, request, "")
        assert not isinstance(raised.value, HostDied) or not raised.value.spoke
    finally:
        await client.aclose()
