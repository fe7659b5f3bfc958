"""The supervisor in this process: what its event loop alone doesn't keep alive."""

import gc
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import uvloop

from chimera.bootstrap.gateway_config import GatewayConfig
from chimera.bootstrap.supervisor import Supervisor, parser
from chimera_host.contract.problem import ProblemError


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


def test_a_gateway_that_always_ends_is_told_with_its_last_words(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CHIMERA_NODE__WARM_PARENTS", "false")
    made = Supervisor._gateway_config

    def without_its_key(self: Supervisor, *given: Any) -> GatewayConfig:
        return msgspec.structs.replace(made(self, *given), key_file=str(tmp_path / "nowhere"))

    monkeypatch.setattr(Supervisor, "_gateway_config", without_its_key)

    async def start() -> None:
        supervisor = Supervisor(parser().parse_args(["--home", str(tmp_path), "--port", "0", "--model", "scripted"]))
        try:
            await supervisor.start()
        finally:
            await supervisor.stop()

    with pytest.raises(ProblemError) as refused:
        uvloop.run(start())
    assert "the gateway ended each time it was started: " in refused.value.detail
