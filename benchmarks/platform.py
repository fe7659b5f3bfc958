"""A platform as a user starts it: `chimera up` in a folder of its own, called over its public address.

The model is the scripted one, which answers at once, so that what is measured is Chimera and the frameworks. Its one
answer ends a task-execution agent's chat, as a real model's would.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import machine
from benchmarks.http import Client
from benchmarks.load import Plan, Request, Result

SCRIPT = "- {reply: 'This is done. TERMINATE'}\n"
READY_TIMEOUT = 120.0
STOP_TIMEOUT = 60.0
QUESTION = {"input": "What do you do first?"}


class Broken(Exception):
    """The platform did not do what a measurement needs."""


class Platform:
    """One running platform."""

    def __init__(self, home: Path, *, max_hosts: int | None = None, **environ: str) -> None:
        """Start in `home`, made where it isn't there; `environ` are variables of its processes."""
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        (home / "script.yaml").write_text(SCRIPT, encoding="utf-8")
        environment = {**os.environ, **environ}
        if max_hosts is not None:
            environment["CHIMERA_NODE__MAX_HOSTS"] = str(max_hosts)
        read, write = os.pipe()
        command = [sys.executable, "-m", "chimera.bootstrap.supervisor", "--home", str(home)]
        options = ["--port", str(free_port()), "--model", "scripted", "--script", str(home / "script.yaml")]
        began = time.perf_counter()
        self._errors = (home / "stderr.txt").open("wb")
        self._process = subprocess.Popen(
            [*command, *options, "--ready-fd", str(write)],
            pass_fds=(write,),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
        )
        os.close(write)
        where = self._wait(read)
        self.start_seconds = time.perf_counter() - began
        self.base: str = where["public"]
        self.key = (home / "chimera.key").read_text().strip()
        self.client = Client(self.base, self.key)

    @property
    def pid(self) -> int:
        """The supervisor, above all other processes."""
        return self._process.pid

    def cpu(self) -> float:
        """CPU seconds of all processes so far."""
        return machine.cpu_seconds(self.pid)

    def processes(self) -> dict[str, int]:
        """Process ids by name."""
        rows = self.client.get("/v1/top")["processes"]
        return {row["process"]: row["pid"] for row in rows}

    def memory(self, prefix: str = "") -> int:
        """Proportional set size of the processes whose name begins with `prefix`; the local model never counts."""
        chosen = self.processes().items()
        return sum(
            machine.proportional(pid) for name, pid in chosen if name.startswith(prefix) and name != "local-model"
        )

    def hosts(self) -> list[dict[str, Any]]:
        """Running hosts with what they have loaded."""
        rows: list[dict[str, Any]] = self.client.get("/v1/top")["hosts"]
        return rows

    def call(self, agent: str) -> dict[str, Any]:
        """Call one agent."""
        answer: dict[str, Any] = self.client.post(f"/v1/tenants/default/agents/{agent}/invoke", QUESTION)
        return answer

    def load(self, agents: Sequence[str], *, clients: int) -> Result:
        """Call each of `agents` once, from the load generator."""
        requests = [Request(f"/v1/tenants/default/agents/{agent}/invoke", QUESTION) for agent in agents]
        return generate(Plan(base=self.base, key=self.key, requests=requests, clients=clients))

    def kill(self) -> None:
        """Kill the supervisor, and with it everything, without a word (SIGKILL)."""
        self.client.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def stop(self) -> None:
        """Stop everything and wait for it."""
        self.client.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise Broken(f"the platform did not stop within {STOP_TIMEOUT:.0f} s") from None
        finally:
            self._errors.close()

    def _wait(self, descriptor: int) -> dict[str, Any]:
        with os.fdopen(descriptor, "rb") as ready:
            line = ready.readline()
        if not line:
            self._process.wait(READY_TIMEOUT)
            told = (self.home / "stderr.txt").read_text(errors="replace").strip()
            logs = self.home / "logs"
            raise Broken(f"the platform did not start: {told or f'see {logs}'}")
        where: dict[str, Any] = msgspec.json.decode(line)
        return where


def generate(plan: Plan) -> Result:
    """Run the load generator in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"], input=msgspec.json.encode(plan), capture_output=True, check=False
    )
    if done.returncode != 0:
        raise Broken(f"the load generator failed: {done.stderr.decode(errors='replace')[-2000:]}")
    return msgspec.json.decode(done.stdout, type=Result)


@contextlib.contextmanager
def running(home: Path, *, max_hosts: int | None = None, **environ: str) -> Iterator[Platform]:
    """A platform for a while."""
    platform = Platform(home, max_hosts=max_hosts, **environ)
    try:
        yield platform
    finally:
        platform.stop()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
