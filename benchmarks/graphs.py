"""`python -m benchmarks.graphs`: what it adds to a call that a LangGraph graph is kept after each node.

The same agents are called through a real platform on SQLite with and without something that makes their work last: an
Idempotency-Key, a session. The three ways take turns, so that what the machine does meanwhile hits all alike; CPU is
that of all of the platform's processes, and the model is the scripted one. `steps` choose a way and ask no model, but
for the last; `prompts` ask the model each, whose answers are kept too, under their keys.

Beside it, LangGraph alone in one process: with no checkpointer, and with its own for SQLite at `durability="sync"`.

How it grows: with the nodes that a call runs, and with the bytes of the graph's state, which each node saves whole. Not
with the number of agents, sessions or runs.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import uv
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.applying import apply
from benchmarks.beside import BARE
from benchmarks.platform import QUESTION, Broken, Platform, running
from benchmarks.stats import median, spread
from chimera.adapters.runtimes import Runtimes
from chimera.kernel.ids import new_id
from chimera.kernel.places import runtime_overrides, runtimes_folder

NODES = (1, 3, 10)
WARM = 10
NOT_KEPT, KEY, SESSION = "not kept", "with a key", "in a session"
SAVER = "langgraph-checkpoint-sqlite>=3,<4"

BLOCK = 20
"""Calls in one way before the next has its turn."""


class Figures(msgspec.Struct, frozen=True):
    """A call in milliseconds: the median of what it took, and its CPU (0: not measured)."""

    took: float
    cpu: float = 0.0


Run = dict[str, dict[str, Figures]]
"""By what is called and how."""


def one_run(count: int, folder: Path) -> Run:
    """Every shape in every way, `count` times."""
    found: Run = {}
    files = []
    for nodes in NODES:
        for shape in ("steps", "prompts"):
            file = folder / f"{shape}-{nodes}.yaml"
            file.write_bytes(msgspec.json.encode(definition(file.stem, shape, nodes)))
            files.append(file)
    with running(folder / "home") as platform:
        apply(platform.client, files)
        for file in files:
            found[file.stem] = called(platform, file.stem, count)
    return found | alone(count, folder)


def definition(name: str, shape: str, nodes: int) -> dict[str, Any]:
    """A line of nodes; JSON is YAML."""
    names = [f"n{number}" for number in range(1, nodes + 1)]
    made: list[dict[str, Any]] = []
    for number, node in enumerate(names[:-1]):
        after = names[number + 1]
        if shape == "steps":
            case = {"to": after, "contains": "?"}
            made.append({"type": "branch", "name": node, "value": "{input}", "cases": [case], "otherwise": after})
        else:
            made.append({"type": "prompt", "name": node, "prompt": "{input}", "next": [after]})
    made.append({"type": "prompt", "name": names[-1], "prompt": "{input}"})
    return {
        "schema_version": "ADaC v2.0",
        "metadata": {"name": name, "version": "1.0.0", "description": "Goes through its nodes."},
        "specification": {"framework": "LangGraph"},
        "capabilities": {"primary_functions": ["answer"]},
        "behaviour": {"langgraph": {"start": [names[0]], "nodes": made}},
    }


def called(platform: Platform, agent: str, count: int) -> dict[str, Figures]:
    """A call in each way."""
    times: dict[str, list[float]] = {NOT_KEPT: [], KEY: [], SESSION: []}
    cpu = dict.fromkeys(times, 0.0)
    path = f"/v1/tenants/default/agents/{agent}/invoke"

    def call(way: str) -> float:
        body = {**QUESTION, "session": new_id("s")} if way == SESSION else QUESTION
        headers = {"Idempotency-Key": new_id("k")} if way == KEY else {}
        began = time.perf_counter()
        platform.client.post(path, body, **headers)
        return time.perf_counter() - began

    for way in times:
        for _ in range(WARM):
            call(way)
    for _ in range(count // BLOCK):
        for way, seconds in times.items():
            before = platform.cpu()
            seconds += [call(way) for _ in range(BLOCK)]
            cpu[way] += platform.cpu() - before
    return {way: Figures(median(seconds) * 1000, cpu[way] / len(seconds) * 1000) for way, seconds in times.items()}


def alone(count: int, folder: Path) -> Run:
    """LangGraph in one process, without a platform. Its saver writes in a thread."""
    python = Runtimes(runtimes_folder(os.environ), runtime_overrides(os.environ)).python("langgraph")
    extra = folder / "saver"
    install = (uv.find_uv_bin(), "pip", "install", "--quiet", "--python", str(python), "--target", str(extra), SAVER)
    _run(*install, environment=os.environ)
    few = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    found: Run = {}
    for nodes in NODES:
        script = (str(python), str(BARE / "time_graph.py"), str(nodes), str(count))
        none, own = (
            Figures(*json.loads(_run(*script, saver, str(extra), cwd=folder, environment=few).splitlines()[-1]))
            for saver in ("none", "sqlite")
        )
        found[f"LangGraph alone, {nodes}"] = {NOT_KEPT: none, "its own SQLite saver": own}
    return found


def _run(*command: str, environment: Mapping[str, str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)
    if done.returncode != 0:
        raise Broken(f"{Path(command[0]).name}: {done.stderr.strip()[-500:]}")
    return done.stdout


def show(runs: list[Run], console: Console) -> None:
    """Median of the runs, and half of their spread; how many times the CPU it takes where nothing is kept."""
    told = machine.describe()
    console.print(f"{told['cores']} cores, {told['processor']}, {told['memory_mib']} MiB; {len(runs)} runs")
    table = Table(box=None, pad_edge=False)
    for name in ("a call of", "way", "median ms", "CPU ms", "times"):
        table.add_column(name, justify="left" if name in ("a call of", "way") else "right")
    for what, ways in runs[0].items():
        for way in ways:
            took, cpu = [run[what][way].took for run in runs], [run[what][way].cpu for run in runs]
            times = median([run[what][way].cpu / run[what][NOT_KEPT].cpu for run in runs])
            table.add_row(
                what,
                way,
                f"{median(took):.2f} ±{spread(took) / 2:.2f}",
                f"{median(cpu):.2f} ±{spread(cpu) / 2:.2f}",
                f"{times:.2f}",
            )
    console.print(table)


def main() -> None:
    """Measure and print; keep the JSON where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graphs", description=main.__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--count", type=int, default=200, help="calls in each way (default 200)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory(prefix="chimera-graphs-") as folder:
            runs.append(one_run(options.count, Path(folder)))
    show(runs, Console(width=110))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=2) + b"\n")


if __name__ == "__main__":
    main()
