"""`python -m benchmarks.trials`: what agents' own tests take, as `chimera test` has them run.

A platform as a user starts it is given definitions of agents (`framework: function`) with two scripted cases each: the
test says what the model answers, so what is measured is the environment that is made, the tasks, and the hosts. The
time is that of the whole command: definitions are sent, all cases run, results read. Beside it stand the hosts that
answered.

How it grows: in step with the cases, since each is one durable task and one call, and with the agents once, for their
copies in the environment and their loading.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.platform import Broken, Platform, running

CHIMERA = str(Path(sys.executable).with_name("chimera"))
SIZES = (50, 200, 800)
CASES = 2
DEFINITION = """\
schema_version: "ADaC v2.0"
metadata: {{name: agent-{number:05d}, version: "1.0.0", description: Answers questions about {number}.}}
specification: {{framework: function}}
capabilities: {{primary_functions: [answer questions about {number}]}}
behaviour: {{function: {{system_message: "Answer in a word."}}}}
tests:
{cases}"""
CASE = """\
  - name: case {case}
    input: "What is {case}?"
    answers: [{{text: "It is {case}."}}]
    expect: {{contains: ["{case}"]}}
"""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One run: seconds of the command, the hosts that there were afterwards, and the load of the machine."""

    agents: int
    cases: int
    seconds: float
    hosts: int
    load: float


def write(folder: Path, agents: int) -> Path:
    """Definitions with their cases."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = "".join(CASE.format(case=case) for case in range(1, CASES + 1))
    for number in range(agents):
        (folder / f"{number:05d}.yaml").write_text(DEFINITION.format(number=number, cases=cases))
    return folder


def run(platform: Platform, folder: Path, agents: int) -> Figure:
    """Run all tests of the definitions in `folder` once; raises `Broken` where one doesn't pass."""
    command = [CHIMERA, "--home", str(platform.home), "test", str(folder), "--output", "json"]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise Broken(f"chimera test: {done.stderr.decode()[-2000:]}{done.stdout.decode()[-2000:]}")
    counts = msgspec.json.decode(done.stdout)["run"]["counts"]
    if counts["passed"] != agents * CASES:
        raise Broken(f"not all tests were run: {counts}")
    return Figure(
        agents=agents,
        cases=agents * CASES,
        seconds=seconds,
        hosts=len(platform.hosts()),
        load=round(os.getloadavg()[0], 1),
    )


def measure(sizes: Sequence[int]) -> list[Figure]:
    """Each size once, on one platform; the first run of all wakes the hosts."""
    with tempfile.TemporaryDirectory(prefix="chimera-bench-") as scratch, running(Path(scratch) / "home") as platform:
        return [run(platform, write(Path(scratch) / str(size), size), size) for size in sizes]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trials", description=main.__doc__)
    parser.add_argument("--agents", type=int, nargs="+", default=SIZES, help="agents of each run, with two cases each")
    parser.add_argument("--json", type=Path, help="where the figures are kept")
    options = parser.parse_args()
    console = Console(width=120)
    try:
        found = measure(options.agents)
    except Broken as error:
        console.print(f"error: {error}", markup=False)
        return 1
    told = machine.describe()
    console.print(f"{told['cores']} cores, {told['processor']}, {told['memory_mib']} MiB")
    table = Table(title="Agents' own tests", box=None, title_justify="left")
    for heading in ("agents", "cases", "seconds", "cases a second", "hosts", "load"):
        table.add_column(heading, justify="right")
    for one in found:
        rate = one.cases / one.seconds
        table.add_row(
            f"{one.agents:,}", f"{one.cases:,}", f"{one.seconds:.1f}", f"{rate:.1f}", str(one.hosts), str(one.load)
        )
    console.print(table)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
