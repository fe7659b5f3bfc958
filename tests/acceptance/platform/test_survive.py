"""Each process is killed in turn: calls go on or come back, nothing acknowledged is lost, nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEFINITION = """\
schema_version: "ADaC v2.0"
metadata: {{name: {name}, version: 1.0.0, description: Says it again}}
specification: {{framework: {framework}}}
capabilities: {{primary_functions: [echo]}}
"""
CRASHING = """\
import os

def factory(context):
    def answer(prompt, call):
        if prompt == "crash":
            os.abort()
        return prompt
    return answer
"""
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def until(holds, within=60.0):
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


def answers(platform, agent="steady"):
    return "You said: hello" in platform.ok("invoke", agent, "hello")


@pytest.fixture
def steady(platform):
    platform.ok("apply", "-", text=DEFINITION.format(name="steady", framework="function"))
    assert answers(platform)
    return platform


def test_calls_go_on_without_the_control_plane_and_changes_come_back(steady):
    killed = steady.kill("control-plane")
    assert answers(steady)
    until(lambda: steady.run("get", "agents").returncode == 0)
    assert steady.pids()["control-plane"] != killed
    assert [row["name"] for row in steady.data("get", "agents", "-q", "steady")] == ["steady"]


def test_a_gateway_that_is_killed_makes_callers_wait_and_refuses_none(steady):
    killed = steady.kill("gateway")
    assert answers(steady)
    assert steady.pids()["gateway"] != killed


def test_a_host_that_is_killed_is_replaced(steady):
    steady.kill("host_")
    assert answers(steady)
    assert steady.data("get", "incidents")[0]["cause"].startswith("killed by SIGKILL")


def test_a_zygote_that_is_killed_is_started_again(platform):
    platform.ok("apply", "-", text=DEFINITION.format(name="forked", framework="AutoGen"))
    done = platform.run("invoke", "forked", "hello")
    if "not installed" in done.stderr:
        pytest.skip(done.stderr)
    platform.kill("zygote-autogen")
    assert answers(platform, "forked")


def test_the_agent_that_brings_a_host_down_is_named(platform, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "mine.py").write_text(CRASHING)
    text = DEFINITION.format(name="crasher", framework="function, entrypoint: 'mine:factory', source: ./src")
    (tmp_path / "crasher.yaml").write_text(text)
    platform.ok("apply", str(tmp_path))
    done = platform.run("invoke", "crasher", "crash")
    assert done.returncode == 69 and "crasher" in done.stderr
    until(lambda: platform.data("get", "incidents")[0]["agent"] == "default/crasher")
    assert platform.ok("invoke", "crasher", "fine").strip() == "fine"


@needs_proc
def test_nothing_is_left_when_the_supervisor_is_killed_and_the_catalogue_is_whole(another):
    first = another()
    first.ok("apply", "-", text=DEFINITION.format(name="kept", framework="function"))
    assert answers(first, "kept")
    pids = first.pids()
    os.kill(pids["supervisor"], signal.SIGKILL)
    first.process.wait(20)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()))
    again = subprocess.run(
        [sys.executable, "-c", READ, str(first.home / "chimera.db")], capture_output=True, text=True, check=True
    )
    assert again.stdout.split() == ["kept", "live", "ok"]


READ = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
print(*db.execute("SELECT name, status FROM agent").fetchone(), *db.execute("PRAGMA integrity_check").fetchone())
"""


def test_a_second_start_in_the_same_home_says_so(platform):
    done = platform.run("up", "--port", "0", "--model", "scripted")
    assert done.returncode == 78 and "runs already" in done.stderr


def test_without_fork_and_control_groups_hosts_run_all_the_same(another):
    plain = another("--no-fork", "--no-limits")
    plain.ok("apply", "-", text=DEFINITION.format(name="whole", framework="function"))
    assert answers(plain, "whole")
