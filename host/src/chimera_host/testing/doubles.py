"""Stand-ins for a framework and a server, and two helpers to wait for things and to expect refusals."""

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable

from chimera_host.contract.agent import FrameworkName
from chimera_host.contract.problem import RemoteProblem
from chimera_host.ports import AgentBuild, CallContext, LoadedAgent, RunResult

PATIENCE = 60.0

Run = Callable[[CallContext], Awaitable[RunResult]]


class ScriptedAdapter:
    """An adapter all of whose agents run one coroutine function. Counts loads, and notes who was closed."""

    name: FrameworkName = "function"

    def __init__(self, run: Run, on_load: Callable[[AgentBuild], object] | None = None) -> None:
        """Agents do `run`; `on_load` may raise."""
        self.run = run
        self.on_load = on_load
        self.loads = 0
        self.closed: list[str] = []

    def preload(self) -> None:
        """Nothing to import."""

    def load(self, build: AgentBuild) -> LoadedAgent:
        """One more agent."""
        self.loads += 1
        if self.on_load is not None:
            self.on_load(build)
        return _ScriptedAgent(self, build.document.name)


class _ScriptedAgent:
    def __init__(self, adapter: ScriptedAdapter, name: str) -> None:
        self._adapter = adapter
        self._name = name

    async def run(self, call: CallContext) -> RunResult:
        return await self._adapter.run(call)

    def close(self) -> None:
        self._adapter.closed.append(self._name)


def saying(text: str) -> Run:
    """A run that says `text` at once."""

    async def run(_: CallContext) -> RunResult:
        return RunResult(output=text)

    return run


class Gate:
    """Its `run` waits until `open` is set; `inside` counts who waits."""

    def __init__(self) -> None:
        """Start closed."""
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.inside = 0

    async def run(self, _: CallContext) -> RunResult:
        """Wait, then say "late"."""
        self.inside += 1
        self.entered.set()
        try:
            await self.open.wait()
        finally:
            self.inside -= 1
        return RunResult(output="late")


class BreaksOnce:
    """A server of one connection after another, to be given to `asyncio.start_server`.

    It keeps connections open and answers `ok`; the second request of all is read, and its connection ended without an
    answer, as a process does that is killed. `heard` are the methods of the requests that were read.
    """

    def __init__(self) -> None:
        """Nothing heard yet."""
        self.heard: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heard.append(head.split(b" ", 1)[0].decode())
                if len(self.heard) == 2:
                    break
                writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"ok"')
        writer.close()


async def refused(awaitable: Awaitable[object]) -> RemoteProblem:
    """The problem that `awaitable` raises; an error if it raises none."""
    try:
        answer = await awaitable
    except RemoteProblem as problem:
        return problem
    raise AssertionError(f"it was not refused but answered {answer!r}")


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until `condition` holds; it may be asynchronous. `seconds` is patience with a busy machine, no bound."""
    async with asyncio.timeout(seconds):
        while True:
            held = condition()
            if await held if inspect.isawaitable(held) else held:
                return
            await asyncio.sleep(0.005)
