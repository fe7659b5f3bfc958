"""MCP servers over stdio that misbehave, and their end with their host."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import chimera_host
from chimera_host.broker.mcp import tools as mcp_tools
from chimera_host.contract.tools import McpTool, ToolLimits
from chimera_host.errors import AgentLoadError, ToolFailed
from chimera_host.testing.doubles import until

RUDE = Path(__file__).with_name("rude_server.py")


def rude(way, *more, allow=("do",), **limits):
    command = (sys.executable, str(RUDE), way, *map(str, more))
    return McpTool(
        name="rude",
        allow=allow,
        command=command,
        credentials={"KEY": "secret:key"},
        limits=ToolLimits(**{"deadline_seconds": 60.0, **limits}),
    )


@pytest.fixture(autouse=True)
def secret(dict_platform):
    dict_platform.secrets["secret:key"] = "key-of-the-rude"


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def test_garbage_between_messages_is_skipped(open_broker):
    assert await (await open_broker(rude("garbage"))).call("rude_do") == "fine"


async def test_ids_that_come_back_as_texts_are_understood(open_broker):
    assert await (await open_broker(rude("text-ids"))).call("rude_do") == "ok"


async def test_a_server_may_ping_and_nothing_else(open_broker):
    heard = await (await open_broker(rude("asks"))).call("rude_do")
    assert '{"jsonrpc": "2.0", "id": "s1", "result": {}}' in heard and "-32601" in heard


async def test_all_pages_of_tools_are_read(open_broker):
    broker = await open_broker(rude("pages", allow=("do", "other")))
    assert list(broker.flat) == ["rude_do", "rude_other"]
    assert broker.flat["rude_other"].parameters == {"type": "object", "properties": {}}


async def test_a_line_without_end_costs_the_connection_and_no_memory(open_broker):
    broker = await open_broker(rude("flood", max_output_bytes=1000))
    with pytest.raises(ToolFailed, match="longer than it may be"):
        await broker.call("rude_do")


async def test_what_a_server_says_is_logged_within_bounds(open_broker, caplog):
    caplog.set_level(logging.INFO)
    broker = await open_broker(rude("chatty"))
    assert await broker.call("rude_do") == ""
    await broker.broker.aclose()
    said = [record.said for record in caplog.records if record.getMessage() == "an MCP server said"]
    assert said[0].startswith("line 0 ") and 200_000 < sum(map(len, said)) < 300_000


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("dead", r"ended with exit code 5 \(it said: no licence\)"),
        ("old", "speaks version 1999-01-01"),
        ("no-tools", "offers no tools"),
        ("bad-listing", "what the protocol doesn't define"),
        ("bad-schema", "are no JSON Schema"),
        ("endless-pages", "more than 100 pages"),
    ],
)
async def test_a_server_that_cant_be_used_is_named_with_the_reason(open_broker, way, words):
    with pytest.raises(AgentLoadError, match=words) as failed:
        await open_broker(rude(way))
    assert "rude" in failed.value.detail


async def test_a_server_that_doesnt_answer_is_given_up(open_broker, monkeypatch):
    monkeypatch.setattr(mcp_tools, "OPEN_TIMEOUT", 0.2)
    with pytest.raises(AgentLoadError, match=r"did not answer within 0.2 s"):
        await open_broker(rude("mute"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("no-such-command-here",), "No such file"),
        ((str(Path(__file__).parent),), "Permission denied"),
        (("./missing",), "No such file"),
        (("echo\0",), "NUL|No such file"),
    ],
)
async def test_a_command_that_cant_be_started_says_so(open_broker, command, words):
    with pytest.raises(AgentLoadError, match=words):
        await open_broker(McpTool(name="none", allow=("a",), command=command))


@pytest.mark.parametrize(("way", "words"), [("error", r"no: \[secret:key\]"), ("no-result", "with no result")])
async def test_an_error_of_the_server_is_told_without_its_credentials(open_broker, way, words):
    with pytest.raises(ToolFailed, match=words):
        await (await open_broker(rude(way))).call("rude_do")


async def test_a_server_that_dies_loses_only_the_call_that_ran(open_broker, tmp_path):
    broker = await open_broker(rude("die-once", tmp_path / "marker"))
    with pytest.raises(ToolFailed, match="exit code 3"):
        await broker.call("rude_do")
    assert await asyncio.gather(*(broker.call("rude_do") for _ in range(3))) == ["alive again"] * 3


async def test_a_server_that_was_killed_while_idle_costs_no_call(open_broker, tmp_path):
    broker = await open_broker(rude("stubborn", tmp_path / "pids"))
    first = int((tmp_path / "pids").read_text().split()[0])
    os.kill(first, signal.SIGKILL)
    await until(lambda: not alive(first))
    assert await broker.call("rude_do") == "done"
    assert int((tmp_path / "pids").read_text().split()[0]) != first


async def test_a_server_that_cant_be_started_again_is_tried_with_delays(open_broker, tmp_path, monkeypatch):
    script = tmp_path / "server.py"
    script.write_text(RUDE.read_text())
    tool = McpTool(name="rude", allow=("do",), command=(sys.executable, str(script), "die-once", str(tmp_path / "m")))
    broker = await open_broker(tool)
    script.write_text("raise SystemExit(9)")
    monkeypatch.setattr(mcp_tools, "FIRST_DELAY", 1_000.0)
    monkeypatch.setattr(mcp_tools, "LONGEST_DELAY", 1_000.0)
    for words in ("exit code 3", "exit code 9", "tried again in"):
        with pytest.raises(ToolFailed, match=words):
            await broker.call("rude_do")
    script.write_text(RUDE.read_text())
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda now=loop.time: now() + 1_000.0)
    assert await broker.call("rude_do") == "alive again"


async def test_a_call_that_is_cancelled_while_the_server_starts_takes_it_from_nobody(open_broker, tmp_path):
    broker = await open_broker(rude("die-once", tmp_path / "marker"))
    with pytest.raises(ToolFailed):
        await broker.call("rude_do")
    first = asyncio.create_task(broker.call("rude_do"))
    second = asyncio.create_task(broker.call("rude_do"))
    await asyncio.sleep(0.01)
    first.cancel()
    assert await second == "alive again"
    with contextlib.suppress(asyncio.CancelledError):
        await first


async def test_a_server_that_doesnt_want_to_end_is_ended_with_its_children(open_broker, tmp_path, monkeypatch):
    monkeypatch.setattr("chimera_host.broker.mcp.stdio.GRACE", 0.1)
    broker = await open_broker(rude("stubborn", tmp_path / "pids"))
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(map(alive, pids))
    await broker.broker.aclose()
    await until(lambda: not any(map(alive, pids)))
    with pytest.raises(ToolFailed, match="closed with its agent"):
        await broker.call("rude_do")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_server_ends_with_its_host_however_that_ends(tmp_path, loop):
    """A process that holds a server is killed with SIGKILL; the server, which ignores SIGTERM, and its child end."""
    command = (sys.executable, str(RUDE), "stubborn", str(tmp_path / "pids"))
    program = textwrap.dedent(f"""
        import asyncio
        {"import uvloop" if loop == "uvloop" else ""}
        from chimera_host.broker import Broker
        from chimera_host.contract.tools import McpTool
        from chimera_host.testing.builders import document
        async def main():
            tool = McpTool(name="rude", allow=("do",), command={command!r})
            await Broker(document(tools=(tool,)), None, {str(tmp_path)!r}, None).specs()
            print("ready", flush=True)
            await asyncio.sleep(60)
        {"uvloop" if loop == "uvloop" else "asyncio"}.run(main())
    """)
    environ = {**os.environ, "PYTHONPATH": str(Path(chimera_host.__file__).parent.parent)}
    host = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=subprocess.PIPE, env=environ, start_new_session=True
    )
    assert host.stdout is not None
    async with asyncio.timeout(20):
        assert await host.stdout.readline() == b"ready\n"
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(map(alive, pids))
    host.kill()
    await host.wait()
    await until(lambda: not any(map(alive, pids)))
