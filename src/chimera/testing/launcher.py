"""Hosts in memory: the shipped fake of `HostLauncher`, which passes the same conformance suite as local processes.

A host here is a note of when it began and of the calls that it runs. By default its address leads nowhere and all
waiting is `asyncio.sleep`, so that a fleet lives through hours of virtual time in milliseconds; with `answer` each host
is a real server on 127.0.0.1 that speaks the host's contract.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from chimera.platform.errors import HostStartFailed
from chimera.platform.model import CellSpec, Endpoint
from chimera.platform.ports import HostExit, RunningCall
from chimera.testing.hosts import KEY, FakeHost
from chimera_host.contract.call import InvokeRequest

MIB = 1024**2


@dataclass(kw_only=True, slots=True)
class FakeRunning:
    """A host that runs. A test may make it `deaf` (no probe is answered) or change its `memory`."""

    cell: str
    endpoint: Endpoint
    born: float
    memory: int = 100 * MIB
    deaf: bool = False
    calls: dict[str, tuple[str, float]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    server: FakeHost | None = None


class FakeLauncher:
    """A `HostLauncher`. `start_seconds` is how long a start takes, `boot_seconds` how long until a host is ready.

    `probe_seconds` is how long a host takes to say that it is alive. While `refuses` is set, starts raise it. `started`
    counts what was ever started, by cell.
    """

    def __init__(
        self,
        *,
        start_seconds: float = 0.0,
        boot_seconds: float = 0.0,
        answer: Callable[[InvokeRequest], Awaitable[str]] | None = None,
    ) -> None:
        """No host runs."""
        self.start_seconds = start_seconds
        self.boot_seconds = boot_seconds
        self.probe_seconds = 0.0
        self.refuses: HostStartFailed | None = None
        self.running: dict[str, FakeRunning] = {}
        self.started: dict[str, int] = {}
        self.closed = False
        self._answer = answer
        self._callback: Callable[[HostExit], None] = lambda _: None

    # -- HostLauncher -------------------------------------------------------------------------------------------------

    def on_exit(self, callback: Callable[[HostExit], None]) -> None:
        """See `HostLauncher`."""
        self._callback = callback

    async def start(self, cell: CellSpec, host: str) -> Endpoint:
        """See `HostLauncher`."""
        await asyncio.sleep(self.start_seconds)
        if self.refuses is not None:
            raise self.refuses
        endpoint = Endpoint(host=host, cell=cell.cell, url="http://127.0.0.1:9", key=KEY)
        server = None
        if self._answer is not None:
            server = await FakeHost(host, cell.cell, lambda request: self._serve(host, request)).__aenter__()
            endpoint = server.endpoint
        self.running[host] = FakeRunning(cell=cell.cell, endpoint=endpoint, born=self._now(), server=server)
        self.started[cell.cell] = self.started.get(cell.cell, 0) + 1
        return endpoint

    async def ready(self, host: str) -> bool:
        """See `HostLauncher`."""
        found = self.running.get(host)
        return found is not None and not found.deaf and self._now() >= found.born + self.boot_seconds

    async def alive(self, host: str) -> bool:
        """See `HostLauncher`."""
        if self.probe_seconds:
            await asyncio.sleep(self.probe_seconds)
        return await self.ready(host)

    async def stop(self, host: str, grace: float) -> None:
        """See `HostLauncher`."""
        found = self.running.get(host)
        if found is None:
            return
        try:
            async with asyncio.timeout(grace):
                while found.calls:
                    found.changed.clear()
                    await found.changed.wait()
        except TimeoutError:
            pass
        await self._end(host, "ended with exit code 0" if not found.calls else "killed by SIGKILL", expected=True)

    def memory(self) -> dict[str, int]:
        """See `HostLauncher`."""
        return {host: found.memory for host, found in self.running.items()}

    async def close(self) -> None:
        """See `HostLauncher`."""
        self.closed = True
        await asyncio.gather(*(self.stop(host, 0.5) for host in tuple(self.running)))

    # -- what a test does ---------------------------------------------------------------------------------------------

    def hosts(self, cell: str) -> list[str]:
        """The hosts of a cell that run, the oldest first."""
        return [host for host, found in self.running.items() if found.cell == cell]

    def begin(self, host: str, agent: str, call: str) -> None:
        """`host` runs a call; `agent` is written `tenant/name`."""
        self.running[host].calls[call] = (agent, self._now())

    def finish(self, host: str, call: str) -> None:
        """A call ended; nothing happens where its host is gone."""
        if (found := self.running.get(host)) is not None:
            found.calls.pop(call, None)
            found.changed.set()

    async def kill(self, host: str) -> None:
        """End a host as `kill -9` does."""
        await self._end(host, "killed by SIGKILL", expected=False)

    async def _serve(self, host: str, request: InvokeRequest) -> str:
        assert self._answer is not None
        self.begin(host, f"{request.tenant}/{request.agent}", request.call)
        try:
            return await self._answer(request)
        finally:
            self.finish(host, request.call)

    async def _end(self, host: str, cause: str, *, expected: bool) -> None:
        found = self.running.pop(host, None)
        if found is None:
            return
        now = self._now()
        calls = tuple(
            RunningCall(agent=agent, call=call, seconds=now - at) for call, (agent, at) in found.calls.items()
        )
        if found.server is not None:
            await found.server.stop()
        self._callback(HostExit(host=host, cell=found.cell, cause=cause, expected=expected, calls=calls))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
