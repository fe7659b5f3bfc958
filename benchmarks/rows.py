"""One run: every row of the table once, on platforms started for it.

Applying is measured on an empty home. Calls are measured after a restart on the same home, so that no agent is loaded.
Agents for a measurement are taken evenly over the roster. A call that fails is counted, and its row says so.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import audit, policies, queue, state, tasks
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
SETTLING = 20
"""Agents that a host has loaded before memory is counted."""


def one_run(
    home: Path, roster: Roster, sizes: Sizes, bare: dict[str, tuple[Agent, float]], say: Say, *, beside: bool = True
) -> Values:
    """Measure every row; `bare` holds agents and their median call in the bare framework in seconds, by row.

    With `beside` DBOS does what the task queue does.
    """
    values: Values = {}
    with running(home / "roster") as platform:
        say("apply")
        values |= applying(platform, roster)
        say("first calls")
        values["first_call"] = first_calls(platform, roster, sizes)
        for row, (agent, seconds) in bare.items():
            values[row] = share(platform, agent, sizes, seconds)
    with running(home / "roster") as platform:
        say("calls of two frameworks")
        values["calls_two"] = calls_of_two(platform, roster, sizes)
    with running(home / "roster") as platform:
        say("calls of three frameworks")
        called = evenly(roster.agents, sizes.skills)
        values["calls_three"] = rate(platform, called)
    with running(home / "roster", max_hosts=1) as platform:
        for framework in ("AutoGen", "LangGraph"):
            say(f"memory of {framework} agents")
            memory = agent_memory(platform, roster, framework, sizes.loaded)
            values[f"agent_{framework.lower()}"] = memory
    with running(home / "sleepers") as platform:
        for framework in ("AutoGen", "LangGraph", "CrewAI"):
            say(f"wake-ups of {framework}")
            values[f"wake_{framework.lower()}"] = wake(platform, home / "definitions", framework, sizes.wakes)
    say("decisions of policies")
    values |= policies.measure(sizes.decisions)
    say("sessions")
    values |= state.measure(sizes.sessions)
    values |= tasks.measure(home, queued=sizes.queued, singly=sizes.singly, done=sizes.done, say=say)
    say("the task queue alone")
    values |= queue.measure(sizes.queue, beside=beside)
    say("the audit log")
    values |= audit.measure(sizes.entries)
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


def share(platform: Platform, agent: Agent, sizes: Sizes, bare: float) -> Measured:
    """A loaded agent's median call, less what the same call takes in the bare framework."""
    apply(platform.client, [agent.file])
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


def calls_of_two(platform: Platform, roster: Roster, sizes: Sizes) -> Measured:
    """Distinct agents of two frameworks."""
    return rate(platform, evenly(roster.of("AutoGen", "LangGraph"), sizes.two))


def agent_memory(platform: Platform, roster: Roster, framework: str, count: int) -> Measured:
    """What each loaded agent adds to its host, once the host has run enough calls to have what agents share."""
    agents = evenly(roster.of(framework), count + SETTLING)
    settled = agents[:SETTLING]
    _warm(platform, settled)
    platform.load([agent.name for agent in settled], clients=SETTLING)
    before, loaded_before = _host_memory(platform, framework)
    result = platform.load([agent.name for agent in agents[SETTLING:]], clients=8)
    after, loaded_after = _host_memory(platform, framework)
    loaded = loaded_after - loaded_before
    return Measured(
        value=(after - before) / max(1, loaded) / 1024,
        generator=result.cpu,
        wall=result.seconds,
        errors=sum(result.errors.values()),
        note=f"{loaded_after:,} loaded, the host {after / MIB:.0f} MB",
    )


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


def _host_memory(platform: Platform, framework: str) -> tuple[int, int]:
    """Bytes of a framework's hosts, and how many agents they have loaded."""
    pids = platform.processes()
    memory = loaded = 0
    for row in platform.hosts():
        if f"-{framework.lower()}-" in row["cell"]:
            memory += sum(proportional(pid) for name, pid in pids.items() if row["host"] in name)
            loaded += row.get("loaded_agents", 0)
    return memory, loaded
