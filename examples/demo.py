"""`make demo`: thirteen thousand real agents on this machine, with one command.

Installs the frameworks' environments and the bundled model, builds the roster from ESCO, starts Chimera, applies all
definitions, calls one agent of each framework, and keeps running until Ctrl-C. A second run finds everything in place.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import uv

from chimera.adapters.runtimes import Runtimes
from chimera.entrypoints.cli import up
from chimera.entrypoints.cli.applying import apply_paths
from chimera.entrypoints.cli.client import Api, connect
from chimera.kernel.places import runtime_overrides, runtimes_folder

ROOT = Path(__file__).resolve().parent.parent
RUNTIMES = ("autogen", "langgraph", "crewai", "function", "local-model")
DOWNLOAD_MB = {"autogen": 11, "langgraph": 9, "crewai": 71, "function": 0, "local-model": 127}
"""What each adds to Chimera's own packages and those before it: `python -m benchmarks.downloads`, on x86-64."""
QUESTIONS = {
    "autogen": "What do you do, in one sentence?",
    "langgraph": "How do I begin? Answer in one sentence.",
    "crewai": "Name one thing to watch out for.",
}


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=main.__doc__)
    parser.add_argument("--home", type=Path, default=ROOT / ".chimera" / "demo")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--limit", type=int, help="apply only this many agents")
    parser.add_argument("--once", action="store_true", help="end after the calls")
    options = parser.parse_args()
    install()
    roster = build(options.home, options.limit)
    say("Starting Chimera …")
    process, where = up.start(options.home, {"port": options.port, "model": "local"})
    if where is None:
        return process.wait() or 1
    try:
        asyncio.run(show(where, roster, options.home))
        up.announce(where)
        say("\nTry, with that home:")
        say("  .venv/bin/chimera get agents -q negotiate\n  .venv/bin/chimera chat AGENT\n  .venv/bin/chimera top")
        return 0 if options.once else up.wait(process)
    except KeyboardInterrupt:
        say("\nStopping …")
        return 0
    finally:
        up.stop(process)


def install() -> None:
    """Make the environments that aren't there, after saying how much that downloads."""
    runtimes = Runtimes(runtimes_folder(os.environ), runtime_overrides(os.environ))
    missing = [one.name for one in runtimes.status() if not one.installed and one.name in RUNTIMES]
    if missing:
        size = max(1, sum(DOWNLOAD_MB[name] for name in missing))
        say(f"Downloading about {size} MB of packages (frameworks and the bundled model); a second run needs none.")
    for name in missing:
        began = time.perf_counter()
        runtimes.install(name, report=lambda text: say(f"  {text} …"))
        say(f"  {name} is ready after {time.perf_counter() - began:.0f} s")


def build(home: Path, limit: int | None) -> Path:
    """Build the roster where it isn't there."""
    out = home.parent / (f"roster-{limit}" if limit else "roster")
    if (out / ".roster").exists():
        return out
    say("Building the roster from ESCO …")
    command = [uv.find_uv_bin(), "run", "--quiet", "--project", str(ROOT / "examples" / "esco")]
    command += ["python", str(ROOT / "examples" / "esco" / "build.py"), "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    subprocess.run([*command, *(["--limit", str(limit)] if limit else [])], check=True, env=environment)
    return out


async def show(where: dict[str, Any], roster: Path, home: Path) -> None:
    """Apply the roster and call one agent of each framework."""
    async with connect({"home": str(home), "url": where["public"], "key": None, "tenant": "default"}) as api:
        began = time.perf_counter()
        done = await apply_paths(api, [str(roster)], keep_going=False)
        say(
            f"{done['created'] + done['updated']:,} agents applied, {done['unchanged']:,} unchanged, "
            f"in {time.perf_counter() - began:.1f} s"
        )
        say("\nThe bundled model has 135 million parameters: it shows the way of a call, not wisdom.\n")
        for framework, question in QUESTIONS.items():
            await ask(api, framework, question)


async def ask(api: Api, framework: str, question: str) -> None:
    """Call the first agent of a framework and show what it answers."""
    found = await api.call("GET", api.path("agents"), query={"framework": framework, "limit": 1})
    for agent in found["agents"]:
        began = time.perf_counter()
        answer = await api.call("POST", api.path("agents", agent["name"], "invoke"), {"input": question})
        say(f"{agent['name']} ({framework}, {time.perf_counter() - began:.1f} s)")
        say(f"  > {question}")
        say("  < " + " ".join(answer["output"].split())[:400] + "\n")


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
