"""Hosts forked from a warm parent, by the protocol that the node agent speaks."""

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest

from chimera_host.blackbox import read_black_box
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.doubles import PATIENCE, until
from chimera_host.testing.process import host_config
from chimera_host.testing.zygotes import ZygoteProcess


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
async def zygote():
    async with ZygoteProcess("function") as running:
        yield running


async def test_it_says_that_it_is_warm_and_forks_hosts_that_answer(platform, zygote, tmp_path):
    assert zygote.ready.op == "ready" and zygote.ready.framework == "function"
    assert zygote.ready.pid == zygote.process.pid
    agent = document()
    revision = platform.add(agent)
    for name in ("one", "two"):
        host = await zygote.fork(host_config(platform.url, "function", tmp_path, host=name))
        answer = await host.client.invoke(invoke_request(agent, revision, "hi"))
        assert (answer.output, answer.host) == ("echo: hi", name)
        assert '"message":"host ready"' in host.log.read_text()


async def test_it_reports_how_a_host_ended(platform, zygote, tmp_path):
    drained = await zygote.fork(host_config(platform.url, "function", tmp_path, host="drained"))
    os.kill(drained.pid, signal.SIGTERM)
    reply = await zygote.reply()
    assert (reply.op, reply.id, os.waitstatus_to_exitcode(reply.status)) == ("exited", "drained", 0)
    box = tmp_path / "killed-box"
    killed = await zygote.fork(host_config(platform.url, "function", tmp_path, host="killed", black_box=str(box)))
    os.kill(killed.pid, signal.SIGKILL)
    reply = await zygote.reply()
    assert (reply.id, os.waitstatus_to_exitcode(reply.status)) == ("killed", -signal.SIGKILL)
    assert read_black_box(box).pid == killed.pid


async def test_a_cut_lifeline_ends_one_host_only(platform, zygote, tmp_path):
    first = await zygote.fork(host_config(platform.url, "function", tmp_path, host="first"))
    second = await zygote.fork(host_config(platform.url, "function", tmp_path, host="second"))
    first.cut_lifeline()
    assert (await zygote.reply()).id == "first"
    assert (await second.client.get("/livez"))[0] == 200


@pytest.mark.parametrize("end", ["hang_up", "kill"])
async def test_no_host_outlives_its_zygote(platform, tmp_path, end):
    async with ZygoteProcess("function") as zygote:
        host = await zygote.fork(host_config(platform.url, "function", tmp_path))
        if end == "kill":
            zygote.process.send_signal(signal.SIGKILL)
        else:
            zygote.hang_up()
        async with asyncio.timeout(PATIENCE):
            await zygote.process.wait()
        await until(lambda: not alive(host.pid))


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"op": "fork", "id": "x"}, "not a request"),
        ({"op": "dance", "id": "x"}, "not a request"),
        ({"op": "fork", "id": "x", "config": "FULL"}, "needs 3 descriptors"),
    ],
)
async def test_a_wrong_request_is_refused_and_it_goes_on(platform, zygote, tmp_path, request_, words):
    config = host_config(platform.url, "function", tmp_path)
    if request_.get("config") == "FULL":
        request_ = {**request_, "config": msgspec.to_builtins(config)}
    zygote.send(request_, ())
    reply = await zygote.reply()
    assert reply.op == "failed" and reply.id == "x" and words in reply.error
    host = await zygote.fork(config)
    assert (await host.client.get("/livez"))[0] == 200


async def test_another_frameworks_host_is_refused(platform, zygote, tmp_path):
    with pytest.raises(RuntimeError, match="runs function, not crewai"):
        await zygote.fork(host_config(platform.url, "crewai", tmp_path))


async def test_forked_hosts_differ_in_their_random_ids(platform, zygote, tmp_path):
    agent = document()
    revision = platform.add(agent)
    for name in ("one", "two"):
        host = await zygote.fork(host_config(platform.url, "function", tmp_path, host=name))
        await host.client.invoke(invoke_request(agent, revision))
    first, second = (chat.traceparent for chat in platform.chats)
    assert first.split("-")[1] != second.split("-")[1]
