"""One run: every row of the table once, on platforms started for it.

Applying is measured on an empty home. Calls are measured after a restart on the same home, so that no agent is loaded.
Agents for a measurement are taken evenly over the roster. A call that fails is counted, and its row says so.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.agents import Agent, Roster, dedicated
from benchmarks.applying import apply
from benchmarks.figures import Measured, Sizes
from benchmarks.load import Result
from benchmarks.machine import MIB, proportional
from benchmarks.platform import Platform, running
from benchmarks.stats import median, percentile

Values = dict[str, Measured]
Say = Callable[[str], None]
WARM_CALLS = 3
SHARED = {"AutoGen": "conversational", "LangGraph": "sequential"}


def one_run(home: Path, roster: Roster, sizes: Sizes, bare: dict[str, float], say: Say) -> Values:
    """Measure every row; `bare` holds the median call of the bare frameworks in seconds."""
    values: Values = {}
    with running(home / "roster") as platform:
        say("apply")
        values |= applying(platform, roster)
        say("first calls")
        values["first_call"] = first_calls(platform, roster, sizes)
        for framework in bare:
            values[f"share_{framework.lower()}"] = share(platform, roster, framework, sizes, bare[framework])
    with running(home / "roster") as platform:
        say("calls of two frameworks")
        values |= calls_of_two(platform, roster, sizes)
    with running(home / "roster") as platform:
        say("calls of three frameworks")
        called = evenly(roster.agents, sizes.skills)
        values["calls_three"] = rate(platform, called)
    with running(home / "sleepers") as platform:
        for framework in ("AutoGen", "LangGraph", "CrewAI"):
            say(f"wake-ups of {framework}")
            values[f"wake_{framework.lower()}"] = wake(platform, home / "definitions", framework, sizes.wakes)
    return values


def applying(platform: Platform, roster: Roster) -> Values:
    """Apply everything, twice; then the control plane's memory."""
    files = [agent.file for agent in roster.agents]
    before = platform.cpu()
    first = apply(platform.client, files)
    between = platform.cpu()
    second = apply(platform.client, files)
    after = platform.cpu()
    refused = int(first.counts.get("refused", 0)) + len(files) - int(second.counts["unchanged"])
    return {
        "apply": Measured(value=first.seconds, cpu=between - before, generator=first.cpu, errors=refused),
        "reapply": Measured(value=second.seconds, cpu=after - between, generator=second.cpu),
        "control_plane": Measured(value=platform.memory("control-plane") / MIB),
    }


def first_calls(platform: Platform, roster: Roster, sizes: Sizes) -> Measured:
    """Agents called for the first time, one after the other, on hosts that are up."""
    agents = evenly(roster.of("AutoGen", "LangGraph"), sizes.first_calls + 2 * WARM_CALLS)
    _warm(platform, agents[: 2 * WARM_CALLS])
    return _calls(platform, agents[2 * WARM_CALLS :], 1, lambda result: percentile(result.latencies, 0.95) * 1000)


def share(platform: Platform, roster: Roster, framework: str, sizes: Sizes, bare: float) -> Measured:
    """A loaded agent's median call, less what the same call takes in the bare framework."""
    agent = roster.shaped(framework, SHARED[framework])[0]
    _warm(platform, [agent] * WARM_CALLS)
    measured = _calls(platform, [agent] * sizes.warm_calls, 1, lambda result: (median(result.latencies) - bare) * 1000)
    whole = measured.value + bare * 1000
    return Measured(
        value=measured.value,
        cpu=measured.cpu,
        generator=measured.generator,
        wall=measured.wall,
        errors=measured.errors,
        note=f"{whole:.2f} ms whole, {bare * 1000:.2f} ms bare",
    )


def calls_of_two(platform: Platform, roster: Roster, sizes: Sizes) -> Values:
    """Distinct agents of two frameworks; and what each of them costs its host in memory."""
    agents = evenly(roster.of("AutoGen", "LangGraph"), sizes.two)
    for framework in ("AutoGen", "LangGraph"):
        _warm(platform, [agent for agent in agents if agent.framework == framework][:1])
    before = _host_memory(platform)
    values: Values = {"calls_two": rate(platform, agents)}
    after = _host_memory(platform)
    for framework in ("autogen", "langgraph"):
        loaded = after[framework][1] - before[framework][1]
        # A host that came up meanwhile is a host, not an agent: its own share is taken from the first one's.
        more = after[framework][2] - before[framework][2]
        own = before[framework][0] / max(1, before[framework][2])
        grown = after[framework][0] - before[framework][0] - more * own
        if loaded > 0:
            values[f"agent_{framework}"] = Measured(
                value=grown / loaded / 1024, note=f"{loaded} loaded in {after[framework][2]} hosts"
            )
    return values


def rate(platform: Platform, agents: Sequence[Agent]) -> Measured:
    """Each agent once, 64 clients: good answers a second."""
    for framework in sorted({agent.framework for agent in agents}):
        _warm(platform, [agent for agent in agents if agent.framework == framework][:1])
    return _calls(platform, agents, 64, lambda result: result.rate)


def wake(platform: Platform, folder: Path, framework: str, count: int) -> Measured:
    """First calls of cells without a host, one after the other."""
    agents = dedicated(folder, framework, count)
    apply(platform.client, [agent.file for agent in agents])
    return _calls(platform, agents, 1, lambda result: percentile(result.latencies, 0.95))


def evenly(agents: Sequence[Agent], count: int) -> list[Agent]:
    """`count` agents from all parts of the sequence."""
    count = min(count, len(agents))
    return [agents[index * len(agents) // count] for index in range(count)]


def _calls(platform: Platform, agents: Sequence[Agent], clients: int, value: Callable[[Result], float]) -> Measured:
    before = platform.cpu()
    result = platform.load([agent.name for agent in agents], clients=clients)
    errors = "; ".join(f"{count} x {text[:200]}" for text, count in sorted(result.errors.items())[:3])
    return Measured(
        value=value(result),
        cpu=platform.cpu() - before,
        generator=result.cpu,
        wall=result.seconds,
        errors=sum(result.errors.values()),
        note=errors,
    )


def _warm(platform: Platform, agents: Sequence[Agent]) -> None:
    for agent in agents:
        platform.call(agent.name)
        time.sleep(0.01)


def _host_memory(platform: Platform) -> dict[str, tuple[int, int, int]]:
    """By framework: bytes of its hosts, agents that they have loaded, and how many hosts there are."""
    pids = platform.processes()
    found = {"autogen": (0, 0, 0), "langgraph": (0, 0, 0), "crewai": (0, 0, 0)}
    for row in platform.hosts():
        framework = next((name for name in found if f"-{name}-" in row["cell"]), None)
        pid = next((pid for name, pid in pids.items() if row["host"] in name), None)
        if framework is not None and pid is not None:
            memory, loaded, hosts = found[framework]
            found[framework] = (memory + proportional(pid), loaded + row.get("loaded_agents", 0), hosts + 1)
    return found
