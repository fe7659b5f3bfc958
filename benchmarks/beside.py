"""The same agents without Chimera: the bare framework in one process, a plain server with all, a process for each.

Everything here runs in the frameworks' own environments. What isn't there is left out with its reason. A plain server
is measured on a part of the roster, and a process for each agent on a sample; both say so beside their figures.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uv

from benchmarks import machine
from benchmarks.agents import Agent, Roster, compared
from benchmarks.figures import Sizes
from benchmarks.load import Plan, Request, Result
from benchmarks.platform import QUESTION, Broken, free_port, generate
from benchmarks.report import Beside
from benchmarks.rows import evenly
from chimera.adapters.runtimes import Runtimes
from chimera.agents import yaml
from chimera.kernel.places import runtime_overrides, runtimes_folder
from chimera.platform.errors import RuntimeMissing

FRAMEWORKS = ("AutoGen", "LangGraph")
BARE = Path(__file__).parent / "bare"
READY_TIMEOUT = 60.0
LOG_SHOWN = 500


class Without:
    """Measurements without Chimera; `skipped` collects what could not be measured, with the reason."""

    def __init__(self, roster: Roster, sizes: Sizes, folder: Path, say: Callable[[str], None]) -> None:
        """Find the frameworks' environments."""
        folder.mkdir(parents=True, exist_ok=True)
        self._roster, self._sizes, self._folder, self._say = roster, sizes, folder, say
        self.skipped: dict[str, str] = {}
        runtimes = Runtimes(runtimes_folder(os.environ), runtime_overrides(os.environ))
        self._pythons: dict[str, Path] = {}
        for framework in FRAMEWORKS:
            try:
                self._pythons[framework] = runtimes.python(framework.lower())
            except RuntimeMissing as error:
                self.skipped[f"{framework} alone"] = f"{error.detail}; {error.next_step}"

    def bare(self) -> dict[str, tuple[Agent, float]]:
        """By row, an agent and its median call in seconds."""
        found = {}
        for row, agent in compared(self._roster, self._folder).items():
            if agent.framework not in self._pythons:
                continue
            self._say(f"bare {agent.framework}: {agent.name}")
            agents = self._write(row, [agent])
            command = [str(self._pythons[agent.framework]), str(BARE / "time_call.py"), str(agents)]
            command.append(str(self._sizes.warm_calls))
            done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
            if done.returncode != 0:
                self.skipped[row] = done.stderr.strip()[-LOG_SHOWN:]
                continue
            found[row] = (agent, float(json.loads(done.stdout.splitlines()[-1])))
        return found

    def servers(self) -> list[Beside]:
        """A plain server with many agents, and a process for each of a few."""
        rows: list[Beside] = []
        for framework, python in self._pythons.items():
            try:
                extra = self._fastapi(framework, python)
                with self._model() as model:
                    rows += self._one_for_all(framework, python, extra, model)
                    rows += self._one_each(framework, python, extra, model)
            except Broken as error:
                self.skipped[f"{framework} without Chimera"] = str(error)
        return rows

    def _one_for_all(self, framework: str, python: Path, extra: Path, model: str) -> list[Beside]:
        agents = evenly(self._roster.of(framework), self._sizes.plain)
        self._say(f"a plain server with {len(agents):,} {framework} agents")
        with self._server(python, self._write(framework, agents), extra, model) as (base, pid):
            _call(base, agents[:1])
            before = machine.proportional(pid)
            result = _call(base, agents)
            grown = (machine.proportional(pid) - before) / max(1, len(agents) - 1)
            if result.errors:
                raise Broken(f"calls failed: {result.errors}")
        what = f"plain FastAPI + uvicorn, one process with {len(agents):,} {framework} agents"
        total = len(self._roster.of(framework))
        return [
            Beside(what=f"{what}, each called once", value=result.rate, unit="calls/s"),
            Beside(what=f"{what}, memory per agent", value=grown / 1024, unit="KB"),
            Beside(
                what=f"plain FastAPI + uvicorn, one process with all {total:,} {framework} agents, memory",
                value=(before + grown * total) / machine.MIB,
                unit="MB",
                extrapolated=f"{len(agents):,}" if total > len(agents) else "",
            ),
        ]

    def _one_each(self, framework: str, python: Path, extra: Path, model: str) -> list[Beside]:
        agents = evenly(self._roster.of(framework), self._sizes.alone)
        self._say(f"a process for each of {len(agents)} {framework} agents")
        memory, cpu, seconds = 0, 0.0, []
        with contextlib.ExitStack() as running:
            pids = []
            for agent in agents:
                began = time.perf_counter()
                base, pid = running.enter_context(self._server(python, self._write(agent.name, [agent]), extra, model))
                _call(base, [agent])
                seconds.append(time.perf_counter() - began)
                pids.append(pid)
            memory = sum(map(machine.proportional, pids))
            cpu = sum(map(machine.cpu_seconds, pids))
        total = len(self._roster.of(framework))
        what = f"a process for each of {total:,} {framework} agents"
        sample, more = str(len(agents)), total / len(agents)
        return [
            Beside(what=f"{what}, memory", value=memory * more / machine.MIB, unit="MB", extrapolated=sample),
            Beside(what=f"{what}, CPU to start all", value=cpu * more, unit="s", extrapolated=sample),
            Beside(
                what=f"a process for one {framework} agent, start to first answer",
                value=sorted(seconds)[len(seconds) // 2],
                unit="s",
            ),
        ]

    @contextlib.contextmanager
    def _server(self, python: Path, agents: Path, extra: Path, model: str) -> Iterator[tuple[str, int]]:
        port = free_port()
        command = [str(python), str(BARE / "server.py"), str(agents), model, str(port), str(extra)]
        with _process(command, f"http://127.0.0.1:{port}/ready", agents.with_suffix(".log")) as pid:
            yield f"http://127.0.0.1:{port}", pid

    @contextlib.contextmanager
    def _model(self) -> Iterator[str]:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.instant_model", str(port)]
        with _process(command, f"http://127.0.0.1:{port}/", self._folder / "model.log"):
            yield f"http://127.0.0.1:{port}/v1"

    def _fastapi(self, framework: str, python: Path) -> Path:
        target = self._folder / f"fastapi-{framework.lower()}"
        command = [uv.find_uv_bin(), "pip", "install", "--quiet", "--python", str(python), "--target", str(target)]
        done = subprocess.run([*command, "fastapi", "uvicorn"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Broken(f"FastAPI could not be installed: {done.stderr.strip()[-LOG_SHOWN:]}")
        return target

    def _write(self, name: str, agents: Sequence[Agent]) -> Path:
        file = self._folder / f"{name}.json"
        loaded = [yaml.load(agent.file.read_text(encoding="utf-8")) for agent in agents]
        plain = [{"name": one["metadata"]["name"], "behaviour": one["behaviour"]} for one in loaded]
        file.write_text(json.dumps(plain), encoding="utf-8")
        return file


@contextlib.contextmanager
def _process(command: list[str], ready: str, log: Path) -> Iterator[int]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=_environment())
    try:
        until = time.monotonic() + READY_TIMEOUT
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > until:
                raise Broken(f"{Path(command[1]).name} did not start: {log.read_text(errors='replace')[-LOG_SHOWN:]}")
            time.sleep(0.02)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _call(base: str, agents: Sequence[Agent]) -> Result:
    return generate(Plan(base=base, requests=[Request(f"/agents/{agent.name}", QUESTION) for agent in agents]))


def _environment() -> dict[str, str]:
    off = {"LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false", "ANONYMIZED_TELEMETRY": "false"}
    return {**os.environ, **off, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(Path(__file__).parents[1])}
