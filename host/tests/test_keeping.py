"""What a host keeps loaded: one load for many calls, no mixing, room for others, and the end."""

import asyncio

from chimera_host.ports import RunResult
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.doubles import Gate, ScriptedAdapter, refused, saying, until
from chimera_host.testing.platform import problem


async def test_many_calls_at_once_dont_mix(platform, local_host):
    host = await local_host(concurrency=500)
    agents = [document(f"agent-{n}") for n in range(10)]
    revisions = [platform.add(agent) for agent in agents]

    async def one(n):
        answer = await host.invoke(invoke_request(agents[n % 10], revisions[n % 10], f"number {n}"))
        return answer.output == f"echo: number {n}" and answer.agent == f"agent-{n % 10}"

    assert all(await asyncio.gather(*(one(n) for n in range(100))))
    assert sorted(platform.fetched) == sorted(revisions)
    report = (await host.client.loaded())["agents"]
    assert {(a["agent"], a["calls"], a["in_flight"]) for a in report} == {(f"agent-{n}", 10, 0) for n in range(10)}


async def test_a_revision_is_loaded_once_however_many_wait(platform, local_host):
    adapter = ScriptedAdapter(saying("ok"))
    host = await local_host(adapter)
    agent = document()
    revision = platform.add(agent)
    await asyncio.gather(*(host.invoke(invoke_request(agent, revision)) for _ in range(9)))
    assert adapter.loads == 1 and platform.fetched == [revision]


async def test_two_revisions_of_an_agent_live_side_by_side(platform, local_host):
    host = await local_host(ScriptedAdapter(saying("ok")))
    old, new = document(version="1.0.0"), document(version="2.0.0")
    for agent in (old, new, old):
        await host.invoke(invoke_request(agent, platform.add(agent)))
    assert {a["version"] for a in (await host.client.loaded())["agents"]} == {"1.0.0", "2.0.0"}


async def test_a_caller_who_leaves_does_not_stop_the_load_for_others(platform, local_host):
    adapter = ScriptedAdapter(saying("ok"))
    host = await local_host(adapter)
    agent = document()
    revision = platform.add(agent)
    platform.fetch_delay = 0.2
    first = asyncio.ensure_future(host.invoke(invoke_request(agent, revision)))
    second = asyncio.ensure_future(host.invoke(invoke_request(agent, revision)))
    await until(lambda: host.host.in_flight == 2)
    first.cancel()
    assert (await second).output == "ok" and adapter.loads == 1


async def test_idle_agents_are_unloaded_and_busy_ones_are_not(platform, local_host):
    gate = Gate()

    async def run(call):
        return await gate.run(call) if call.prompt == "wait" else RunResult(output="ok")

    adapter = ScriptedAdapter(run)
    host = await local_host(adapter)
    idle, busy = document("idle"), document("busy")
    waiting = asyncio.ensure_future(host.invoke(invoke_request(busy, platform.add(busy), "wait")))
    await gate.entered.wait()
    await host.invoke(invoke_request(idle, platform.add(idle)))
    assert host.host.agents.unload_idle(60.0) == 0
    assert host.host.agents.unload_idle(-1.0) == 1
    assert adapter.closed == ["idle"] and len(host.host.agents) == 1
    gate.open.set()
    await waiting
    assert host.host.agents.unload_idle(-1.0) == 1
    assert (await host.invoke(invoke_request(idle, platform.add(idle)))).timings.loaded


async def test_the_host_unloads_idle_agents_by_itself(platform, local_host):
    adapter = ScriptedAdapter(saying("ok"))
    host = await local_host(adapter, idle_unload=0.2)
    agent = document()
    await host.invoke(invoke_request(agent, platform.add(agent)))
    await until(lambda: adapter.closed == ["agent"])
    assert host.host.agents.counts.unloads == 1


async def test_the_least_recently_used_make_room(platform, local_host):
    adapter = ScriptedAdapter(saying("ok"))
    host = await local_host(adapter, memory_bytes=1)
    for name in "abc":
        agent = document(name)
        await host.invoke(invoke_request(agent, platform.add(agent)))
    assert adapter.closed == ["a", "b"] and (await host.client.loaded())["evictions"] == 2


async def test_draining_finishes_what_runs_and_takes_nothing_more(platform, local_host):
    gate = Gate()
    host = await local_host(ScriptedAdapter(gate.run))
    agent = document()
    revision = platform.add(agent)
    running = asyncio.ensure_future(host.invoke(invoke_request(agent, revision)))
    await gate.entered.wait()
    drain = asyncio.ensure_future(host.host.drain())
    await until(lambda: host.host.draining)
    assert (await host.client.get("/readyz"))[0] == 503 and (await host.client.get("/livez"))[0] == 200
    assert (await refused(host.invoke(invoke_request(agent, revision)))).code == "host-draining"
    assert not drain.done()
    gate.open.set()
    assert (await running).output == "late"
    await drain


async def test_draining_cancels_what_does_not_finish(platform, local_host):
    gate = Gate()
    host = await local_host(ScriptedAdapter(gate.run), drain=0.1, grace=5.0)
    agent = document()
    running = asyncio.ensure_future(host.invoke(invoke_request(agent, platform.add(agent))))
    await gate.entered.wait()
    await host.host.drain()
    assert (await refused(running)).code == "call-cancelled" and host.host.in_flight == 0


async def test_the_metrics_page_counts_without_naming_agents(platform, local_host):
    host = await local_host()
    agent = document("secretive")
    revision = platform.add(agent)
    await host.invoke(invoke_request(agent, revision))
    platform.say(problem("model-failed", 502, "x"))
    await refused(host.invoke(invoke_request(agent, revision)))
    _, page = await host.client.get("/metrics")
    lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    assert lines['chimera_host_calls_total{outcome="ok"}'] == "1"
    assert lines['chimera_host_calls_total{outcome="model-failed"}'] == "1"
    assert lines["chimera_host_call_seconds_count"] == "2" and lines["chimera_host_loads_total"] == "1"
    assert lines["chimera_host_loaded_agents"] == "1" and "secretive" not in page


async def test_a_report_counts_also_what_it_leaves_out(platform, local_host):
    host = await local_host()
    for name in ("a", "b", "c"):
        agent = document(name)
        await host.invoke(invoke_request(agent, platform.add(agent)))
    report = host.host.loaded(2)
    assert report.loaded == 3 and [one["agent"] for one in report.agents] == ["c", "b"]
