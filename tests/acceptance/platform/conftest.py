"""A real platform as `chimera up` starts it, with the scripted model; one for all tests of this folder."""

import asyncio
import datetime
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from .homes import NEEDED, PATIENCE, Cluster, Home, Machine

# Importing three frameworks costs a start ten seconds of the processor; hosts fork from the same parents on demand.
COLD = {"CHIMERA_NODE__WARM_PARENTS": "false"}
# Nobody calls most agents of these tests, so there is nothing to watch them by.
AT_ONCE = {
    "CHIMERA_DELIVERY__ROLLOUT_STEPS": "100",
    "CHIMERA_DELIVERY__ROLLOUT_BAKE_SECONDS": "0",
    "CHIMERA_DELIVERY__ROLLOUT_WAVES": "1",
}
CHIMERA = str(Path(sys.executable).with_name("chimera"))
SCRIPT = """
- {when: {agent: "^rubric-judge", last: impossible}, reply: '{"passed": false, "reasons": "nobody can"}'}
- {when: {agent: "^rubric-judge"}, reply: '{"passed": true, "reasons": "it greets"}'}
- {when: {agent: "^replayed", last: "^Briefly(?!.*order 7)"}, reply: It was shipped.}
- {when: {agent: "^replayed", last: "order"}, reply: "It was shipped. Thank you!"}
- {when: {last: slow}, reply: late, delay: 1.5}
- {when: {last: remember}, reply: noted}
- {when: {agent: "^steps-", last: "second done"}, reply: all done}
- {when: {agent: "^steps-crewai", last: "first done"}, reply: halfway}
- {when: {agent: "^steps-", last: "first done|begin, the rest"}, tool_calls: [{name: act, arguments: {what: second}}]}
- {when: {agent: "^steps-", last: "begin"}, tool_calls: [{name: act, arguments: {what: first}}]}
- {when: {agent: "^talk-", last: "Sent to talk-"}, reply: told}
- {when: {agent: "^talk-", last: "answers your message"}, reply: understood}
- {when: {agent: "^talk-autogen", last: "A message from agent"}, reply: autogen listens}
- {when: {agent: "^talk-crewai", last: "A message from agent"}, reply: crewai listens}
- {when: {agent: "^talk-langgraph", last: "A message from agent"}, reply: langgraph listens}
- {when: {agent: "^talk-", last: "tell autogen"}, tool_calls: [{name: tell_autogen, arguments: {message: hear}}]}
- {when: {agent: "^talk-", last: "tell crewai"}, tool_calls: [{name: tell_crewai, arguments: {message: hear}}]}
- {when: {agent: "^talk-", last: "tell langgraph"}, tool_calls: [{name: tell_langgraph, arguments: {message: hear}}]}
"""


class Platform:
    """One home and what runs in it."""

    def __init__(
        self, home: Path, *options: str, prepare: Callable[[Path], None] = lambda _: None, **environ: str
    ) -> None:
        self.home = home
        self.environ = {**os.environ, **COLD, "CHIMERA_HOME": str(home), **environ}
        home.mkdir(exist_ok=True)
        prepare(home)
        (home / "script.yaml").write_text(SCRIPT)
        command = [CHIMERA, "up", "--port", "0", "--model", "scripted", "--script", str(home / "script.yaml")]
        self.process = subprocess.Popen(
            [*command, "--output", "json", *options], env=self.environ, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if line.rstrip() == "}":
                break
        assert said, f"`chimera up` ended with {self.process.wait()}; what it said is above"
        self.where: dict[str, Any] = json.loads(said)
        self.url: str = self.where["public"]
        self.key = (home / "chimera.key").read_text().strip()

    def run(self, *arguments: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        """One command of the command line."""
        return subprocess.run(
            [CHIMERA, *arguments],
            env=self.environ,
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def ok(self, *arguments: str, text: str | None = None) -> str:
        """The same, which must succeed; what it printed."""
        done = self.run(*arguments, text=text)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def data(self, *arguments: str) -> Any:
        """What a command prints as JSON."""
        return json.loads(self.ok(*arguments, "--output", "json"))

    def pids(self) -> dict[str, int]:
        """Process ids by name."""
        return {row["process"]: row["pid"] for row in self.data("top", "--once")["processes"]}

    def kill(self, name: str) -> int:
        """Kill -9 the first process whose name begins with `name`."""
        pid = next(pid for process, pid in self.pids().items() if process.startswith(name))
        os.kill(pid, signal.SIGKILL)
        return pid

    def stop(self) -> int:
        """End it as Ctrl-C does; the exit code."""
        with self.process:
            self.process.send_signal(signal.SIGTERM)
            return self.process.wait(60)


def keep_advisories(folder: Path) -> Path:
    """A folder of advisories of today, about a package that nobody has: without one, no scan of dependencies passes."""
    package = {"ecosystem": "PyPI", "name": "no-such-package"}
    record = {"id": "OSV-1", "modified": datetime.datetime.now(datetime.UTC).isoformat()}
    (folder / "one.json").write_text(json.dumps({**record, "affected": [{"package": package, "versions": ["1"]}]}))
    return folder


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    advisories = keep_advisories(tmp_path_factory.mktemp("advisories"))
    running = Platform(
        tmp_path_factory.mktemp("platform") / "home",
        CHIMERA_NODE__WARM_PARENTS="true",
        CHIMERA_SCANNING__ADVISORIES=str(advisories),
        **AT_ONCE,
    )
    yield running
    assert running.stop() == 0


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Any]:
    """`another(*options)`: a platform of the test's own."""
    made: list[Platform] = []

    def start(*options: str) -> Platform:
        made.append(Platform(tmp_path / f"home{len(made)}", *options))
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture(scope="session")
def new_platform() -> Callable[..., Platform]:
    """Starts a platform of the caller's own: a home that isn't there yet, options of `up`, variables."""
    return Platform


# A session's, so that all tests of both homes share one installation; they come home by home.
@pytest_asyncio.fixture(scope="session", loop_scope="session", params=["machine", "knative"])
async def home(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_platform: Callable[..., Any]
) -> AsyncIterator[Home]:
    """Where agents run."""
    folder = tmp_path_factory.mktemp(request.param)
    made: Home
    if request.param == "machine":
        platform = await asyncio.to_thread(new_platform, folder / "home")
        made = Machine(folder, platform)
    else:
        if missing := [name for name in NEEDED if not os.environ.get(name)]:
            pytest.skip(f"no cluster: {', '.join(missing)} not set")
        made = Cluster(folder, os.environ["CHIMERA_TEST_KUBECONFIG"])
        await made.install()
        await made.connect()
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as session:
        made.session = session
        yield made
    if isinstance(made, Machine):
        assert await asyncio.to_thread(made.platform.stop) == 0
    elif isinstance(made, Cluster):
        await made.remove()
