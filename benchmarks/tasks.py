"""`python -m benchmarks.tasks`: durable tasks of a whole platform, over HTTP, with real hosts, on both databases.

    accepted     tasks a second that are answered 202, each in a request of its own, from 64 clients; durable by then
    in batches   the same by one client, 1,000 in each request
    completed    tasks a second that agents have answered (one model call each, by the scripted model), 64 at once
    recovery     after `kill -9` with the queue full: seconds until the next task is answered, and until as many as
                 before are answered in a second (80 %, since the machine is shared with the client)

The queue is filled while the gateway takes tasks in and works on none (`tasks.concurrency` 0). Then it is worked off,
and killed: first the gateway alone, which the supervisor starts again, then everything, which is started again at
once. What the gateway has answered is read from its metrics, which begin anew with it. Frameworks that no task needs
are not warmed up, which would take the cores for the first half minute.

How it grows: a task costs the same however many are queued, but for the depth of an index; recovery doesn't read the
queue, only what had been begun.
"""

import argparse
import contextlib
import os
import signal
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.applying import apply
from benchmarks.figures import Measured
from benchmarks.load import Plan, Request
from benchmarks.platform import QUESTION, Broken, Platform, generate, running
from benchmarks.stats import median, spread
from benchmarks.storage import databases

AGENTS = 16
BATCH = 1_000
COUNTER = 'chimera_gateway_tasks_total{outcome="succeeded"}'
GLANCE = 0.05
WINDOW = 1.0
AS_BEFORE = 0.8
PATIENCE = 180.0
DATABASES = ("sqlite", "postgresql")

Values = dict[str, Measured]
Say = Callable[[str], None]


def measure(folder: Path, *, queued: int, singly: int, done: int, say: Say, on: Sequence[str] = DATABASES) -> Values:
    """The rows: `queued` tasks in all, `singly` of them accepted one by one; rates of completion over `done`."""
    values: Values = {}
    with databases() as (_, server):
        for database in on:
            environ = {"CHIMERA_NODE__WARM_PARENTS": "false"}
            if database == "postgresql":
                environ["CHIMERA_NODE__DATABASE"] = server.new_database(migrated=False)
            home = folder / f"tasks-{database}"
            say(f"tasks on {database}: filled")
            found = filled(home, environ, queued=queued, singly=singly)
            say(f"tasks on {database}: worked off, killed, and worked off again")
            found |= recovered(home, environ, done=done)
            say(", ".join(f"{name} {measured.value:,.4g}" for name, measured in found.items()))
            values |= {f"tasks_{name}_{database}": measured for name, measured in found.items()}
    return values


def filled(home: Path, environ: dict[str, str], *, queued: int, singly: int) -> Values:
    """Accept tasks and work on none."""
    with running(home, CHIMERA_TASKS__CONCURRENCY="0", **environ) as platform:
        apply(platform.client, definitions(home / "definitions"))
        path = "/v1/tenants/default/agents/worker-{}/tasks"
        requests = [Request(path.format(number % AGENTS), QUESTION) for number in range(singly)]
        before = platform.cpu()
        alone = generate(Plan(base=platform.base, key=platform.key, requests=requests, status=202))
        cpu = platform.cpu() - before
        began = time.perf_counter()
        rest = queued - singly
        for start in range(0, rest, BATCH):
            several = range(start, min(start + BATCH, rest))
            tasks = [{"agent": f"worker-{number % AGENTS}", **QUESTION} for number in several]
            platform.client.post("/v1/tenants/default/tasks", {"tasks": tasks})
        seconds = time.perf_counter() - began
    errors = sum(alone.errors.values())
    return {
        "accepted": Measured(value=alone.rate, cpu=cpu, generator=alone.cpu, wall=alone.seconds, errors=errors),
        "batched": Measured(value=rest / seconds if rest else 0.0),
    }


def recovered(home: Path, environ: dict[str, str], *, done: int) -> Values:
    """Work tasks off, kill the gateway, then everything where tasks are left."""
    platform = Platform(home, **environ)
    try:
        before, taken = rate(platform, done)
        values = {"completed": taken}
        os.kill(platform.processes()["gateway"], signal.SIGKILL)
        values |= recovery("gateway", platform, time.perf_counter(), before)
        if nothing_waits(platform):
            return values
        _until(platform, done // 4)
        killed = time.perf_counter()
        platform.kill()
        platform = Platform(home, **environ)
        return values | recovery("all", platform, killed, before)
    finally:
        platform.stop()


def rate(platform: Platform, done: int) -> tuple[float, Measured]:
    """Tasks answered a second, once it goes steadily."""
    first = _until(platform, done // 4)
    cpu = platform.cpu()
    last = _until(platform, first[1] + done)
    value = (last[1] - first[1]) / (last[0] - first[0])
    return value, Measured(value=value, cpu=platform.cpu() - cpu, wall=last[0] - first[0])


def recovery(what: str, platform: Platform, killed: float, before: float) -> Values:
    """Seconds from the kill until the first task is answered, and until as many a second are as before.

    The second is left out where the queue is empty before, which happens in a run that is small.
    """
    seen: list[tuple[float, int]] = [(killed, 0)]
    first, looked = 0.0, killed
    for at, count in glances(platform):
        if count and not first:
            first = at - killed
        seen.append((at, count))
        known = [one for one in seen if one[0] <= at - WINDOW]
        if known and (count - known[-1][1]) / (at - known[-1][0]) >= AS_BEFORE * before:
            note = f"{before:.0f} a second before"
            return {f"{what}_first": Measured(value=first), f"{what}_rate": Measured(value=at - killed, note=note)}
        if first and at - looked >= WINDOW:
            looked = at
            if nothing_waits(platform):
                return {f"{what}_first": Measured(value=first, note="the queue was empty before throughput was back")}
    raise AssertionError("glances end by raising")


def glances(platform: Platform) -> Iterator[tuple[float, int]]:
    """How many tasks the gateway has answered, again and again; a gateway that is away is waited for."""
    until = time.perf_counter() + PATIENCE
    while time.perf_counter() < until:
        with contextlib.suppress(OSError):
            yield time.perf_counter(), _answered(platform)
        time.sleep(GLANCE)
    raise Broken(f"tasks were not worked off within {PATIENCE:.0f} s")


def nothing_waits(platform: Platform) -> bool:
    """No task is queued any more."""
    found = msgspec.json.decode(_read(platform, "/v1/tenants/default/tasks?state=queued&limit=1"))
    return not found["tasks"]


def _until(platform: Platform, count: int) -> tuple[float, int]:
    return next(glance for glance in glances(platform) if glance[1] >= count)


def _answered(platform: Platform) -> int:
    for line in _read(platform, "/metrics").decode().splitlines():
        if line.startswith(COUNTER):
            return int(float(line.rpartition(" ")[2]))
    return 0


def _read(platform: Platform, path: str) -> bytes:
    """An answer over a connection of its own: the gateway on the other end is killed now and then."""
    asked = urllib.request.Request(platform.base + path, headers={"Authorization": f"Bearer {platform.key}"})
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
        found: bytes = answer.read()
        return found


def definitions(folder: Path) -> list[Path]:
    """Agents that ask the model once."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(AGENTS):
        file = folder / f"worker-{number}.yaml"
        file.write_text(
            f'schema_version: "ADaC v2.0"\nmetadata: {{name: worker-{number}, version: "1.0.0", description: Works.}}\n'
            "specification: {framework: function}\ncapabilities: {primary_functions: [work]}\n"
            "behaviour: {function: {system_message: Work.}}\n",
            encoding="utf-8",
        )
        files.append(file)
    return files


def show(runs: list[Values], console: Console) -> None:
    """Print the table: medians of the runs and half their spread."""
    told = machine.describe()
    console.print(f"{told['cores']} cores, {told['processor']}, {told['memory_mib']} MiB; {len(runs)} runs")
    table = Table(box=None, pad_edge=False)
    for name in ("durable tasks", *DATABASES):
        table.add_column(name, justify="left" if name == "durable tasks" else "right")
    for row in dict.fromkeys(name.rpartition("_")[0] for name in runs[0]):
        cells = []
        for database in DATABASES:
            values = [run[f"{row}_{database}"].value for run in runs if f"{row}_{database}" in run]
            cells.append(f"{median(values):,.4g} ±{spread(values) / 2:,.2g}" if values else "")
        table.add_row(row, *cells)
    console.print(table)


def main() -> None:
    """Measure and print; keep the JSON where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=main.__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--queued", type=int, default=100_000, help="tasks in the queue (default 100,000)")
    parser.add_argument("--singly", type=int, default=5_000, help="of these accepted one by one (default 5,000)")
    parser.add_argument("--done", type=int, default=2_000, help="completed for a rate (default 2,000)")
    parser.add_argument("--on", choices=DATABASES, nargs="+", default=DATABASES, help="databases (default: both)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs = []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory(prefix="chimera-bench-") as folder:
            told = {"queued": options.queued, "singly": options.singly, "done": options.done}
            runs.append(measure(Path(folder), **told, on=options.on, say=lambda text: print(text, flush=True)))
    show(runs, Console(width=120))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=2) + b"\n")


if __name__ == "__main__":
    main()
