"""The checker of the contract: a host that keeps it passes whole, one that doesn't is told which rule it breaks."""

import sys

import pytest

from chimera_host import checking
from chimera_host.__main__ import main
from chimera_host.checking import RULES, Result, agent_of, check, started
from chimera_host.testing.process import HostProcess

RUDE = """
import http.server, os

class Rude(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path != "/readyz" else 503)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    do_POST = do_DELETE = do_GET
    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Rude).serve_forever()
"""


async def results(world) -> list[Result]:
    return [result async for result in check(world)]


async def test_the_python_host_keeps_every_rule() -> None:
    async with started((sys.executable, "-m", "chimera_host", "serve"), "function") as world:
        found = await results(world)
    assert [one for one in found if not one.kept] == [] and len(found) == len(RULES)


async def test_a_running_host_is_checked_as_far_as_that_goes(platform) -> None:
    async with HostProcess(platform, host_key="its key", platform_token="its token") as host:
        async with checking.running(host.client.url, "its key", "its token", "function") as world:
            found = await results(world)
        assert [one for one in found if not one.kept] == []
        assert host.process.returncode is None, "it is not ended"


async def test_what_is_no_host_breaks_rules_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "PATIENCE", 0.2)
    async with started((sys.executable, "-c", RUDE), "function") as world:
        broken = {one.rule for one in await results(world) if not one.kept}
    assert {"everything else needs the key", "probes need no key", "answers a call by the model"} <= broken


@pytest.mark.parametrize("framework", ["autogen", "crewai", "langgraph", "function"])
def test_there_is_an_agent_for_each_framework(framework) -> None:
    assert getattr(agent_of(framework).behaviour, framework) is not None


def test_one_thing_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 64 and main(["check", "--url", "http://x", "--", "y"]) == 64
    assert "two things" in capsys.readouterr().err
