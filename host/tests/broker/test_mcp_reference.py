"""MCP against the reference implementation, 1.x and 2.x: over stdio, and over streamable HTTP with streams and JSON."""

import asyncio
import json
import logging
import os
from pathlib import Path

import pytest

from chimera_host.contract.tools import McpTool, ToolLimits
from chimera_host.errors import AgentLoadError, ToolFailed, ToolRefused
from chimera_host.testing.doubles import until

ALLOWED = ("add", "echo", "environment", "folder", "fail", "hang", "die", "large", "pid")
SECRET = "token-of-the-server"


def server(way, allow=ALLOWED, **limits):
    return McpTool(name="ref", allow=allow, credentials={"KEY": "secret:key"}, limits=ToolLimits(**limits), **way)


@pytest.fixture(autouse=True)
def secret(dict_platform):
    dict_platform.secrets["secret:key"] = SECRET


async def test_a_conversation_with_every_server(any_reference, open_broker):
    broker = await open_broker(server(any_reference, deadline_seconds=60.0))
    assert list(broker.specs) == ["ref"] and sorted(broker.flat) == sorted(f"ref_{name}" for name in ALLOWED)
    assert broker.flat["ref_add"].description == "Add two numbers."
    assert broker.flat["ref_add"].parameters["required"] == ["a"]
    assert await broker.call("ref_add", a=2, b=3) == "5"
    assert await broker.call("ref_echo", text="grüße\n\u2028 \U0001f600") == "grüße\n\u2028 \U0001f600"
    with pytest.raises(ToolFailed, match="tool 'ref_fail' failed: Error executing tool fail"):
        await broker.call("ref_fail", text="boom")
    with pytest.raises(ToolRefused, match='a: the value is not of type "integer"'):
        await broker.call("ref_add", a="2")
    with pytest.raises(ToolRefused, match="no tool 'ref_hidden'"):
        await broker.call("ref_hidden")
    many = await asyncio.gather(*(broker.call("ref_add", a=n) for n in range(20)))
    assert many == [str(n + 1) for n in range(20)]


async def test_a_server_gets_the_key_of_a_run(reference, open_broker, fake_call):
    broker = await open_broker(server(reference, allow=("key",), deadline_seconds=10.0))
    call = fake_call()
    assert await broker.broker.call("ref_key", {}, call=call) == "none"
    call.idempotency_key = "key-of-the-step"
    assert await broker.broker.call("ref_key", {}, call=call) == "key-of-the-step"


async def test_the_session_is_shared_and_its_credentials_are_fetched_for_it(reference, open_broker, dict_platform):
    broker = await open_broker(server(reference))
    assert len({await broker.call("ref_pid") for _ in range(3)}) == 1
    assert dict_platform.asked == [("", ("secret:key",))]


async def test_a_tool_that_takes_too_long_is_cancelled_at_the_server(reference, open_broker, tmp_path, monkeypatch):
    broker = await open_broker(server(reference, deadline_seconds=30.0))
    folders = [tmp_path / "work", tmp_path / "server"]

    def has(name: str) -> bool:
        return any((folder / name).exists() for folder in folders)

    hanging = asyncio.create_task(broker.call("ref_hang", seconds=600.0))
    await until(lambda: has("hanging"))
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda now=loop.time: now() + 30.0)
    with pytest.raises(ToolFailed, match=r"took longer than its 30 s"):
        await hanging
    await until(lambda: has("cancelled"))
    assert await broker.call("ref_add", a=1) == "2"


async def test_an_output_that_is_too_large_is_refused_at_either_bound(reference, open_broker):
    broker = await open_broker(server(reference, max_output_bytes=1000))
    with pytest.raises(ToolFailed, match="answered 1001 bytes, more than the 1000"):
        await broker.call("ref_large", size=1001)
    assert await broker.call("ref_large", size=1000) == "x" * 1000
    with pytest.raises(ToolFailed, match=r"longer than|more than \d+ bytes"):
        await broker.call("ref_large", size=3 * 1024**2)
    await asyncio.sleep(0.6)
    assert await broker.call("ref_add", a=1) == "2"


async def test_a_server_that_dies_in_a_call_is_told_and_started_again(reference, open_broker, caplog):
    caplog.set_level(logging.INFO)
    broker = await open_broker(server(reference))
    with pytest.raises(ToolFailed, match=r"MCP server 'ref'|can't be reached") as failed:
        await broker.call("ref_die")
    assert SECRET not in failed.value.detail
    if "command" in reference:
        assert "exit code 7" in failed.value.detail and "whether that had an effect is not known" in failed.value.detail
        assert await broker.call("ref_add", a=1) == "2"
    assert SECRET not in "\n".join(str(vars(record)) for record in caplog.records)


async def test_a_command_has_a_small_environment_and_the_agents_folder(open_broker, tmp_path, monkeypatch):
    monkeypatch.setenv("CHIMERA_PLATFORM_TOKEN", "host-token")
    monkeypatch.setenv("OPENAI_API_KEY", "provider-key")
    import sys

    command = (sys.executable, str(Path(__file__).with_name("reference_server.py")), "stdio")
    broker = await open_broker(server({"command": command}))
    environment = json.loads(await broker.call("ref_environment"))
    assert environment["KEY"] == "[secret:key]"
    assert set(environment) <= {
        *("KEY", "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "USER", "LOGNAME"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR"),
    }
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert await broker.call("ref_folder") == str(tmp_path / "work")


async def test_a_tool_that_the_server_lacks_is_refused_with_a_suggestion(reference, open_broker):
    with pytest.raises(AgentLoadError, match=r"has no tool 'ad' \(its tools: add, .*did you mean 'add'"):
        await open_broker(server(reference, allow=("ad",)))
