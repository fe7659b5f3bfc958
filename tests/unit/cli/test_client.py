"""The API's client: what it sends again, and what it says where an answer was lost."""

import asyncio
import json
from pathlib import Path

import pytest

from chimera.entrypoints.cli.client import Api, address, connect
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


@pytest.mark.parametrize(("left", "key"), [({}, "the-home's"), ({"key_file": "run/cluster.key"}, "the-cluster's")])
def test_the_key_is_of_what_runs_and_the_homes_own_stays(tmp_path: Path, left: dict[str, str], key: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "chimera.key").write_text("the-home's\n")
    (tmp_path / "run" / "cluster.key").write_text("the-cluster's\n")
    (tmp_path / "run" / "endpoint.json").write_text(json.dumps({"public": "http://127.0.0.1:1/", **left}))
    assert address({"home": str(tmp_path)}) == ("http://127.0.0.1:1", key)
    assert address({"home": str(tmp_path), "url": "http://else", "key": "k"}) == ("http://else", "k")
