"""A whole life of an ecosystem in a cluster, in the order of its tests: every framework, in pods.

Installed, the roster applied, agents of all frameworks called, processes killed meanwhile, asleep and awake, rolled out
and back, taken out. A cluster is what `homes` says, with an image for each framework. `CHIMERA_TEST_AGENTS` is how many
of the roster are applied (200; `all` for every one), `CHIMERA_TEST_CALLED` how many of them are called (60), spread
over frameworks as evenly as there are agents of them. With `CHIMERA_TEST_SLEEP` the shared cells, too, are waited for
until they sleep, which takes five minutes.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from chimera.adapters.substrates.knative.objects import PODS
from chimera.testing.definitions import definition, fleet

from .homes import CODE, NEEDED, PATIENCE, Cluster, together

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

ROOT = Path(__file__).parents[3]
FRAMEWORKS = ("autogen", "crewai", "langgraph", "function")
SPELT = {"autogen": "AutoGen", "crewai": "CrewAI", "langgraph": "LangGraph", "function": "function"}
AGENTS = os.environ.get("CHIMERA_TEST_AGENTS", "200")
CALLED = int(os.environ.get("CHIMERA_TEST_CALLED", "60"))
AT_ONCE = 8
STARTING = 180  # seconds a new host may take: a dozen start at once, on as few cores as the machine has
FUNCTIONS = 10
ROLLED = 12


class Ecosystem(Cluster):
    """A cluster with the roster in it."""

    roster: list[Path]

    async def some(self, framework: str, count: int) -> list[str]:
        """Agents of the roster by name, of one framework."""
        # Some more than are wanted: those with a cell of their own are left out.
        limit = count + len(FRAMEWORKS)
        page = await self.get(f"/v1/tenants/default/agents?framework={framework}&limit={limit}")
        return [row["name"] for row in page["agents"] if not row["name"].startswith("alone-")][:count]

    async def ask(self, agents: list[str], text: str) -> dict[str, float]:
        """Call each agent, a few at once; how long each took. All must answer."""
        bound = asyncio.Semaphore(AT_ONCE)

        async def one(agent: str) -> tuple[str, float]:
            async with bound:
                began = time.monotonic()
                async with asyncio.timeout(PATIENCE):
                    # Who wakes a cell on a busy machine may be told to come again.
                    while (answered := await self.call(agent, text))[0] != 200:
                        assert (answered[0], answered[1]["code"]) == (503, "cell-unavailable"), answered
                        await asyncio.sleep(answered[1].get("retry_after") or 1)
                assert answered[1]["output"], answered
                return agent, time.monotonic() - began

        return dict(await together(*(one(agent) for agent in agents)))

    async def until_ready(self) -> None:
        """Wait until all cells of the catalogue are there and ready."""
        wanted = (await self.get("/v1/status"))["cells"]
        async with asyncio.timeout(PATIENCE):
            while len(found := await self.generations()) < wanted:  # noqa: ASYNC110 - it happens elsewhere
                await asyncio.sleep(0.5)
        await self.until_moved(dict.fromkeys(found, 0))

    async def everywhere(self, count: int) -> list[str]:
        """So many agents, spread evenly over the frameworks."""
        found: list[str] = []
        for left, framework in enumerate(reversed(FRAMEWORKS)):  # of the first there are few: others make up for it
            found += await self.some(framework, -(-(count - len(found)) // (len(FRAMEWORKS) - left)))
        assert len(found) == count
        return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ecosystem]:
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        pytest.skip(f"no cluster: {', '.join(missing)} not set")
    made = Ecosystem(tmp_path_factory.mktemp("ecosystem"), os.environ["CHIMERA_TEST_KUBECONFIG"])
    try:
        await made.install(start_timeout=STARTING)
        await made.connect()
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as session:
            made.session = session
            yield made
    finally:
        await made.remove()  # which holds that nothing is left


def build(folder: Path) -> None:
    """The roster as a user builds it, or as many made-up agents where the package that it is made from can't be had."""
    every = AGENTS == "all"
    project = ROOT / "examples" / "esco"
    uv = shutil.which("uv", path=f"{os.environ['PATH']}:{ROOT / '.tools' / 'bin'}:{Path(sys.executable).parent}")
    if uv is not None:
        command = [uv, "run", "--quiet", "--project", str(project), "python", str(project / "build.py")]
        command += ["--out", str(folder), *(["--all"] if every else ["--limit", AGENTS])]
        environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
        if subprocess.run(command, env=environ, capture_output=True, check=False).returncode == 0:
            return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    print("the roster can't be built here: agents are made up")
    for number, made in enumerate(fleet(12_000 if every else int(AGENTS))):
        (folder / f"{number:05}.yaml").write_text(yaml.safe_dump(made))


async def test_the_roster_is_applied(world: Ecosystem) -> None:
    folder = world.folder / "roster"
    await asyncio.to_thread(build, folder)
    world.roster = sorted(folder.glob("**/*.yaml"))
    code = world.folder / "functions" / "code"
    code.mkdir(parents=True)
    (code / "told.py").write_text(CODE)
    for number in range(FUNCTIONS):
        source = {"framework": "function", "source": "./code", "entrypoint": "told:make"}
        made = definition(f"told-{number}", specification=source, owner={"team": "tests"})  # who shares a cell
        (code.parent / f"told-{number}.yaml").write_text(yaml.safe_dump(made))
    for framework, spelt in SPELT.items():
        made = definition(
            f"alone-{framework}",
            specification={"framework": spelt, "resources": {"cpu": "100m"}},  # requested in full: all fit on two cores
            isolation="dedicated",
            scaling={"idle_timeout": "20s", "max_instances": 2},
        )
        (code.parent / f"alone-{framework}.yaml").write_text(yaml.safe_dump(made))
    began = time.monotonic()
    await world.run("apply", str(folder), str(code.parent))
    status = await world.data("status")
    print(f"{status['agents']} agents applied in {time.monotonic() - began:.1f} s")
    assert status["agents"] == len(world.roster) + FUNCTIONS + len(FRAMEWORKS)
    assert set(status["agents_by_framework"]) == set(FRAMEWORKS)


async def test_agents_of_every_framework_answer_in_a_handful_of_cells(world: Ecosystem) -> None:
    began = time.monotonic()
    await world.until_ready()
    print(f"{len(await world.generations())} cells ready after {time.monotonic() - began:.1f} s")
    began = time.monotonic()
    first = await world.ask([(await world.some(framework, 1))[0] for framework in FRAMEWORKS], "hello")
    woken = time.monotonic() - began
    agents = await world.everywhere(CALLED)
    began = time.monotonic()
    took = sorted((await world.ask(agents, "What do you do?")).values())
    print(f"first of each framework: {woken:.1f} s ({ {name: round(seconds, 1) for name, seconds in first.items()} })")
    print(
        f"{len(agents)} agents called for the first time in {time.monotonic() - began:.1f} s, {AT_ONCE} at once: "
        f"p50 {took[len(took) // 2]:.2f} s, longest {took[-1]:.2f} s"
    )
    cells = [row for row in await world.data("get", "cells") if "alone" not in row["isolation"]]
    assert {row["framework"] for row in cells} == set(FRAMEWORKS)
    assert len(cells) <= 2 * len(FRAMEWORKS) + 1, "as many agents as there are share as few cells"


async def test_calls_and_changes_outlive_the_death_of_platform_processes(world: Ecosystem) -> None:
    agents = await world.everywhere(8)
    calling = asyncio.create_task(world.ask(agents * 3, "Are you there?"))
    await world.kill_control_plane()
    await calling
    async with asyncio.timeout(PATIENCE):
        while (await (await world.start("apply", str(world.folder / "functions"))).wait()) != 0:  # noqa: ASYNC110
            await asyncio.sleep(1)
    await world.api.delete(PODS, world.namespace, await world.pod("gateway"))
    async with asyncio.timeout(PATIENCE):
        while (await (await world.start("get", "cells")).wait()) != 0:  # noqa: ASYNC110 - another gateway comes
            await asyncio.sleep(1)
    await world.ask(agents, "And now?")


async def test_cells_fall_asleep_and_wake_with_every_framework(world: Ecosystem) -> None:
    alone = [f"alone-{framework}" for framework in FRAMEWORKS]
    await world.ask(alone, "hello")
    await together(*(world.until_hosts(agent, lambda hosts: hosts == 0) for agent in alone))
    woken = await world.ask(alone, "hello again")
    print(f"from zero to an answer, all four at once: { {name: round(took, 1) for name, took in woken.items()} }")
    if os.environ.get("CHIMERA_TEST_SLEEP"):
        shared = [(await world.some(framework, 1))[0] for framework in FRAMEWORKS]
        async with asyncio.timeout(900):
            while any([await world.hosts(agent) for agent in shared]):  # noqa: ASYNC110
                await asyncio.sleep(5)
        await world.ask(shared, "hello again")


async def test_agents_are_rolled_out_and_back_without_a_change_in_the_cluster(world: Ecosystem) -> None:
    before = await world.generations()
    changed = world.folder / "changed"
    changed.mkdir()
    chosen = world.roster[:: max(1, len(world.roster) // ROLLED)][:ROLLED]
    agents: list[str] = []
    for file in chosen:
        made: dict[str, Any] = yaml.safe_load(file.read_text())
        made["metadata"]["version"] = "9.9.9"
        agents.append(made["metadata"]["name"])
        (changed / file.name).write_text(yaml.safe_dump(made))
    await world.run("apply", str(changed))
    assert {(await world.get(f"/v1/tenants/default/agents/{agent}"))["version"] for agent in agents} == {"9.9.9"}
    await world.ask(agents, "hello")
    for agent in agents:
        async with world.session.post(
            f"{world.url}/v1/tenants/default/agents/{agent}/rollback",
            headers={"Authorization": f"Bearer {world.key}"},
        ) as answer:
            assert answer.status == 200, await answer.text()
    assert "9.9.9" not in {(await world.get(f"/v1/tenants/default/agents/{agent}"))["version"] for agent in agents}
    await world.ask(agents, "hello")
    assert await world.generations() == before, "Kubernetes sees nothing of it"


async def test_a_setting_of_cells_is_rolled_out_and_back_while_agents_answer(world: Ecosystem) -> None:
    agents = await world.everywhere(8)
    answered: list[tuple[int, Any]] = []
    done = asyncio.Event()

    async def calling(agent: str) -> None:
        while not done.is_set():
            answered.append(await world.call(agent, "hello"))
            await asyncio.sleep(0.5)

    callers = [asyncio.create_task(calling(agent)) for agent in agents]
    for threads in (9, 8):
        before, began, so_far = await world.generations(), time.monotonic(), len(answered)
        await world.install(threads=threads, start_timeout=STARTING)
        await world.until_moved(before)
        print(
            f"{len(before)} cells moved in {time.monotonic() - began:.1f} s, {len(answered) - so_far} calls meanwhile"
        )
    done.set()
    await together(*callers)
    failed = [body for status, body in answered if status != 200]
    assert answered and not failed, failed[:3]
