"""`python -m benchmarks.steps`: what a call takes longer where what it finishes is kept.

A platform as a user starts it, on SQLite, with the scripted model, which answers at once. Each agent is called without
anything to keep, with a session of its own, and with a key of its own, in turn, so that what else the machine does
falls on all three alike. The time of a call is told beside the CPU of all the platform's processes for it, which says
more on a machine that does other things too. A session adds its own save and a stored answer for each model call; what
a framework finishes before its last message or task is saved beside it, and the last is not.

How it grows: with model calls and steps of a call, not with the number of agents.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.applying import apply
from benchmarks.platform import QUESTION, Platform, running
from benchmarks.stats import median, spread

DEFINITION = """\
schema_version: "ADaC v2.0"
metadata: {{name: {name}, version: "1.0.0", description: Is measured.}}
specification: {{framework: {framework}}}
capabilities: {{primary_functions: [answer]}}
behaviour: {behaviour}
"""
MEMBERS = ", ".join(f"{{name: {name}, role: Says something.}}" for name in ("ann", "bob", "cid"))
TASKS = ", ".join(f"{{name: {name}, member: one, description: x, expected_output: y}}" for name in ("a", "b", "c"))
AGENTS = {
    "one model call": ("function", "{function: {system_message: Answer.}}"),
    "an AutoGen chat of four messages": (
        "AutoGen",
        f"{{autogen: {{kind: coordination, pattern: round_robin, max_rounds: 4, termination: <end>, "
        f"system_message: Talk., participants: [{MEMBERS}]}}}}",
    ),
    "a crew of three tasks": (
        "CrewAI",
        f"{{crewai: {{members: [{{name: one, role: r, goal: g, backstory: b}}], tasks: [{TASKS}]}}}}",
    ),
}
WAYS = ("nothing kept", "a session", "a key")
WARM = 5

TURNS = 5

Results = dict[str, dict[str, tuple[float, float]]]
"""Of each agent in each way: the median call, and CPU for each call, in milliseconds."""


def one_run(count: int) -> Results:
    """Each agent `count` times in each way."""
    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, (framework, behaviour) in enumerate(AGENTS.values()):
            file = Path(folder) / f"agent-{number}.yaml"
            file.write_text(DEFINITION.format(name=f"agent-{number}", framework=framework, behaviour=behaviour))
            files.append(file)
        with running(Path(folder) / "home") as platform:
            apply(platform.client, files)
            return {what: _measured(platform, f"agent-{n}", count, numbers) for n, what in enumerate(AGENTS)}


def _measured(
    platform: Platform, agent: str, count: int, numbers: "itertools.count[int]"
) -> dict[str, tuple[float, float]]:
    seen: dict[str, list[float]] = {way: [] for way in WAYS}
    cpu = dict.fromkeys(WAYS, 0.0)
    for way in WAYS:
        for _ in range(WARM):
            _call(platform, agent, way, next(numbers))
    for _ in range(TURNS):
        for way in WAYS:
            before = platform.cpu()
            seen[way] += [_call(platform, agent, way, next(numbers)) for _ in range(max(1, count // TURNS))]
            cpu[way] += platform.cpu() - before
    return {way: (median(times), cpu[way] * 1000 / len(times)) for way, times in seen.items()}


def _call(platform: Platform, agent: str, way: str, number: int) -> float:
    body: dict[str, Any] = dict(QUESTION)
    headers = {}
    if way == "a session":
        body["session"] = f"s-{number}"
    elif way == "a key":
        headers["Idempotency-Key"] = f"k-{number}"
    began = time.perf_counter()
    platform.client.post(f"/v1/tenants/default/agents/{agent}/invoke", body, **headers)
    return (time.perf_counter() - began) * 1000


def show(runs: list[Results], console: Console) -> None:
    """Print the table: medians of the runs and their spread."""
    told = machine.describe()
    console.print(
        f"{told['cores']} cores, {told['processor']}, {told['memory_mib']} MiB; {len(runs)} runs; median ms, CPU ms"
    )
    table = Table(box=None, pad_edge=False)
    for name in ("", *WAYS):
        table.add_column(name, justify="right" if name else "left")
    for what in runs[0]:
        cells = []
        for way in WAYS:
            times, cpu = zip(*(run[what][way] for run in runs), strict=True)
            told_times = f"{median(times):.3g} ±{spread(times) / 2:.2g}"
            cells.append(f"{told_times}, {median(cpu):.3g} ±{spread(cpu) / 2:.2g}")
        table.add_row(what, *cells)
    console.print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steps", description=main.__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--count", type=int, default=100, help="calls of each agent in each way (default 100)")
    options = parser.parse_args()
    show([one_run(options.count) for _ in range(options.runs)], Console(width=110))


if __name__ == "__main__":
    main()
