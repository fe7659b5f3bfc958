"""`python -m benchmarks.rollouts`: a change of 1,000 of 12,000 definitions to all of it live, and switches under load.

**Rolled out**: a platform as a user starts it has 12,000 agents (AutoGen, CrewAI, LangGraph in turns). A thousand files
change, `chimera rollout start --watch` sends them, and the time is until the command ends. Nobody calls these agents,
so their switch is a pointer, and steps and bake time are set to nothing: what is measured is the machinery, to which a
rollout adds the times that are asked of it. Beside it stands `chimera apply` of as many, which makes all live at once.

**Switches**: callers call agents of own code in a closed loop, while rollouts switch them to another revision and back.
Each answer names the revision that gave it. A failed request is any but a whole answer of one of the two; the count of
them is the figure.

How it grows: a pass is a few statements for all agents of a rollout, so the time grows with their number in the
database alone; a switch takes what loading green on its hosts takes, and two looks of whoever loads (five seconds each
at most).
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import msgspec
from rich.console import Console

from benchmarks import machine
from benchmarks.platform import Broken, Platform, running

CHIMERA = str(Path(sys.executable).with_name("chimera"))
AGENTS, CHANGED = 12_000, 1_000
SWITCHES, SWITCHED, CALLERS = 500, 50, 8
AT_ONCE = ("--set", "steps=50,100", "--set", "step_seconds=0", "--set", "bake_seconds=0")
FRAMEWORKS = ("AutoGen", "CrewAI", "LangGraph")
DEFINITION = """\
schema_version: "ADaC v2.0"
metadata: {{name: agent-{number:05d}, version: "1.0.{version}", description: Answers questions about {number}.}}
specification: {{framework: {framework}}}
capabilities: {{primary_functions: [answer questions about {number}]}}
model: {{temperature: 0.{version}}}
"""
OWN = """\
schema_version: "ADaC v2.0"
metadata: {{name: own-{number:03d}, version: "1.{version}.0", description: Says which revision it is.}}
specification: {{framework: function, entrypoint: "mine:factory", source: ./src}}
capabilities: {{primary_functions: [answer]}}
"""
CODE = """\
def factory(context):
    def answer(prompt, call):
        return "{version}"
    return answer
"""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of a rollout and of an apply of as many; switches, calls meanwhile, those that failed, and as what."""

    agents: int
    changed: int
    rolled_out: float
    applied: float
    switches: int
    seconds: float
    calls: int
    failed: int
    failures: dict[str, int]
    answers: dict[str, int]


def write(folder: Path, numbers: Sequence[int], version: int) -> Path:
    """Definitions that differ by `version` alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        framework = FRAMEWORKS[number % len(FRAMEWORKS)]
        text = DEFINITION.format(number=number, version=version, framework=framework)
        (folder / f"{number:05d}.yaml").write_text(text)
    return folder


def own(folder: Path, count: int, version: int) -> Path:
    """Agents of own code that say `version`."""
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "src" / "mine.py").write_text(CODE.format(version=version))
    for number in range(count):
        (folder / f"{number:03d}.yaml").write_text(OWN.format(number=number, version=version))
    return folder


def command(platform: Platform, *arguments: str) -> str:
    """One command of the command line."""
    done = subprocess.run(
        [CHIMERA, "--home", str(platform.home), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Broken(f"chimera {' '.join(arguments)}: {done.stderr[-2000:]}{done.stdout[-2000:]}")
    return done.stdout


def rolled_out(platform: Platform, scratch: Path, agents: int, changed: int) -> tuple[float, float]:
    """Seconds of a rollout of a change of `changed` of `agents` definitions, and of an apply of it."""
    command(platform, "apply", str(write(scratch / "all", range(agents), 1)))
    some = [number * (agents // changed) for number in range(changed)]
    files = write(scratch / "changed", some, 2)
    began = time.perf_counter()
    command(platform, "rollout", "start", str(files), *AT_ONCE, "--watch", "--output", "json")
    rolled = time.perf_counter() - began
    shutil.rmtree(files)
    began = time.perf_counter()
    command(platform, "apply", str(write(files, some, 3)))
    return rolled, time.perf_counter() - began


async def called(platform: Platform, agents: int, ended: asyncio.Event) -> tuple[Counter[str], Counter[str]]:
    """What callers were answered, until the switches are over; whole answers, and everything else."""
    answers, failures = Counter[str](), Counter[str]()
    headers = {"Authorization": f"Bearer {platform.key}"}

    async def caller(session: aiohttp.ClientSession, first: int) -> None:
        number = first
        while not ended.is_set():
            url = f"{platform.base}/v1/tenants/default/agents/own-{number % agents:03d}/invoke"
            try:
                async with session.post(url, json={"input": "who"}) as answer:
                    body = await answer.json()
                    said = body["output"] if answer.status == 200 else f"{answer.status} {body.get('detail')}"
                    (answers if said in ("1", "2") else failures)[said[:200]] += 1
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                failures[f"{type(error).__name__}: {error}"[:200]] += 1
            number += 1

    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        await asyncio.gather(*(caller(session, first * 7) for first in range(CALLERS)))
    return answers, failures


async def switched(platform: Platform, scratch: Path, agents: int, switches: int) -> Figures:
    """Rollouts there and back, until so many agents were switched, under calls of all of them."""
    folders = [own(scratch / str(version), agents, version) for version in (1, 2)]
    command(platform, "apply", str(folders[0]))
    platform.call("own-000")
    ended = asyncio.Event()
    calls = asyncio.create_task(called(platform, agents, ended), name="callers")
    began, done = time.perf_counter(), 0
    try:
        while done < switches:
            folder = folders[(done // agents + 1) % 2]
            settings = ("--set", "canary=1", "--set", "waves=1")
            told = ("rollout", "start", str(folder), *AT_ONCE, *settings, "--watch", "--output", "json")
            await asyncio.to_thread(command, platform, *told)
            done += agents
    finally:
        seconds = time.perf_counter() - began
        ended.set()
    answers, failures = await calls
    return Figures(
        agents=0,
        changed=0,
        rolled_out=0.0,
        applied=0.0,
        switches=done,
        seconds=seconds,
        calls=answers.total() + failures.total(),
        failed=failures.total(),
        failures=dict(failures),
        answers=dict(answers),
    )


def measure(scale: int) -> Figures:
    """Everything once, at this part of the size."""
    agents, changed = AGENTS // scale, max(3, CHANGED // scale)
    switches, own_agents = max(6, SWITCHES // scale), max(3, SWITCHED // scale)
    with tempfile.TemporaryDirectory(prefix="chimera-bench-") as folder:
        scratch = Path(folder)
        with running(scratch / "home") as platform:
            rolled, applied = rolled_out(platform, scratch, agents, changed)
            found = asyncio.run(switched(platform, scratch / "own", own_agents, switches))
    return msgspec.structs.replace(found, agents=agents, changed=changed, rolled_out=rolled, applied=applied)


def show(found: Figures, console: Console) -> None:
    """Print the figures."""
    told = machine.describe()
    console.print(f"{told['cores']} cores, {told['processor']}, {told['memory_mib']} MiB")
    console.print(f"{found.changed:,} of {found.agents:,} definitions changed and rolled out: {found.rolled_out:.1f} s")
    console.print(f"as many by `chimera apply`: {found.applied:.1f} s")
    console.print(
        f"{found.switches:,} switches in {found.seconds:.0f} s under {found.calls:,} calls ({found.answers}): "
        f"{found.failed:,} failed"
    )
    for why, count in sorted(found.failures.items()):
        console.print(f"  {count:,}: {why}", markup=False)


def main() -> int:
    """Measure and print; 1 where a call failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollouts", description=main.__doc__)
    parser.add_argument("--scale", type=int, default=1, help="measure at this part of the size, for breakage only")
    parser.add_argument("--json", type=Path, help="where the figures are kept")
    options = parser.parse_args()
    console = Console()
    try:
        found = measure(options.scale)
    except Broken as error:
        console.print(f"error: {error}", markup=False)
        return 1
    show(found, console)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return 1 if found.failed else 0


if __name__ == "__main__":
    sys.exit(main())
