"""`python -m benchmarks.steps`: what a call takes longer where what it finishes is kept.

A platform as a user starts it, on SQLite, with the scripted model, which answers at once. Each agent is called without
anything to keep, with a session of its own, and with a key of its own, in turn, so that what else the machine does
falls on all three alike. A session adds its own save and a stored answer for each model call; what a framework finishes
before its last message or task is saved beside it, and the last is not.

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

Results = dict[str, dict[str, float]]
"""Median milliseconds of each agent in each way."""


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


def _measured(platform: Platform, agent: str, count: int, numbers: "itertools.count[int]") -> dict[str, float]:
    path = f"/v1/tenants/default/agents/{agent}/invoke"
    seen: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(count + WARM):
        for way in WAYS:
            body: dict[str, Any] = dict(QUESTION)
            headers = {}
            if way == "a session":
                body["session"] = f"s-{next(numbers)}"
            elif way == "a key":
                headers["Idempotency-Key"] = f"k-{next(numbers)}"
            began = time.perf_counter()
            platform.client.post(path, body, **headers)
            seen[way].append((time.perf_counter() - began) * 1000)
    return {way: median(times[WARM:]) for way, times in seen.items()}


def show(runs: list[Results], console: Console) -> None:
    """Print the table: medians of the runs and their spread."""
    told = machine.describe()
    console.print(f"{told['cores']} cores, {told['processor']}, {told['memory_mib']} MiB; {len(runs)} runs; median ms")
    table = Table(box=None, pad_edge=False)
    for name in ("", *WAYS):
        table.add_column(name, justify="right" if name else "left")
    for what in runs[0]:
        cells = []
        for way in WAYS:
            values = [run[what][way] for run in runs]
            cells.append(f"{median(values):.3g} ±{spread(values) / 2:.2g}")
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
