"""The supervisor in this process: what its event loop alone doesn't keep alive."""

import gc
from pathlib import Path

import aiohttp
import uvloop

from chimera.bootstrap.supervisor import Supervisor, parser


def test_the_node_agent_still_listens_after_a_collection(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CHIMERA_NODE__WARM_PARENTS", "false")

    async def look() -> int:
        supervisor = Supervisor(parser().parse_args(["--home", str(tmp_path), "--port", "0", "--model", "scripted"]))
        try:
            await supervisor.start()
            gc.collect()
            connector = aiohttp.UnixConnector(str(supervisor.socket))
            async with aiohttp.ClientSession(connector=connector) as session, session.get("http://node/livez") as got:
                return got.status
        finally:
            await supervisor.stop()

    assert uvloop.run(look()) == 200
    assert not (tmp_path / "run" / "endpoint.json").exists()
