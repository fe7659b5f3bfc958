"""What only hosts that are processes can suffer: ends told too early, parents that hang, starts that fail half-way."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from chimera.adapters.runtimes import Runtimes
from chimera.adapters.substrates.local import launcher, limits, zygote
from chimera.adapters.substrates.local.launcher import LauncherOptions, LocalLauncher
from chimera.platform.errors import HostStartFailed
from chimera.platform.model import CellSpec, ResourceClass, RuntimeClass
from chimera.platform.ports import HostExit
from chimera_host.testing.doubles import until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="hosts are forked on Linux")

PARENT = f"""#!{sys.executable}
import json, socket, sys, time
control = socket.socket(fileno=int(sys.argv[-1].partition("=")[2]))
def say(*replies):
    control.sendall(b"".join(json.dumps(one).encode() + b"\\n" for one in replies))
"""
ENDS_AT_ONCE = """
say({"op": "ready", "pid": 1})
while data := control.recv(65536):
    host = json.loads(data)["id"]
    say({"op": "forked", "id": host, "pid": 2**22 + 1}, {"op": "exited", "id": host, "pid": 2**22 + 1, "status": 768})
"""
NEVER_WARM = "time.sleep(60)"


async def no_requirements(_: str) -> bytes:
    raise RuntimeError("the requirements are lost")


def spec(*, requirements: str | None = None) -> CellSpec:
    runtime = RuntimeClass(
        tenant="default",
        framework="function",
        runtime="python",
        isolation="tenant:default",
        resources=ResourceClass(name="standard", cpu_millicores=1000, memory_bytes=1024**3),
        requirements=requirements,
    )
    return CellSpec(cell="cell-1", runtime_class=runtime)


class Rig:
    """Launchers whose runtime a test chooses, and the ends that they told."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.exits: list[HostExit] = []
        self.made: list[LocalLauncher] = []

    def launcher(self, python: Path | str = sys.executable) -> LocalLauncher:
        options = LauncherOptions(
            home=self.home,
            platform_url="http://127.0.0.1:9",
            mint=lambda host, cell: "token",
            requirements=no_requirements,
        )
        made = LocalLauncher(options, Runtimes(self.home / "runtimes", {"function": Path(python)}), limits.NONE)
        made.on_exit(self.exits.append)
        self.made.append(made)
        return made

    def parent(self, code: str) -> Path:
        """A program that plays a warm parent."""
        program = self.home / "python"
        program.write_text(PARENT + code)
        program.chmod(0o700)
        return program


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    await asyncio.gather(*(one.close() for one in rig.made))


def is_ready(launcher: LocalLauncher, host: str) -> Callable[[], Awaitable[bool]]:
    return lambda: launcher.ready(host)


def descriptors() -> set[str]:
    gc.collect()  # what earlier tests left to the collector must not be closed between two looks
    return {one.name for one in Path("/proc/self/fd").iterdir()}


async def test_a_host_that_ends_as_it_is_forked_did_not_start(rig: Rig) -> None:
    made = rig.launcher(rig.parent(ENDS_AT_ONCE))
    await made.warm("function")
    before = descriptors()
    for number in range(3):
        with pytest.raises(HostStartFailed, match="ended at its start: ended with exit code 3"):
            await made.start(spec(), f"host-{number}")
    assert made.memory() == {} and rig.exits == []
    assert descriptors() == before


async def test_a_start_that_fails_half_way_keeps_nothing_open(rig: Rig) -> None:
    made = rig.launcher()
    before = descriptors()
    with pytest.raises(RuntimeError, match="lost"):
        await made.start(spec(requirements="sha256:0"), "host-1")
    assert descriptors() == before


async def test_a_parent_that_never_gets_warm_is_replaced(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    program = rig.parent(NEVER_WARM)
    made = rig.launcher(program)
    monkeypatch.setattr(zygote, "PRELOAD_TIMEOUT", 0.3)
    with pytest.raises(HostStartFailed, match="was not warm"):
        await made.start(spec(), "host-1")
    rig.parent(ENDS_AT_ONCE)
    monkeypatch.undo()
    with pytest.raises(HostStartFailed, match="ended at its start"):
        await made.start(spec(), "host-2")


async def test_a_parent_that_hangs_is_replaced_and_its_hosts_go_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rig.launcher()
    await made.start(spec(), "host-1")
    await until(is_ready(made, "host-1"), 30)
    stuck = made.processes()["zygote-function"]
    monkeypatch.setattr(zygote, "FORK_TIMEOUT", 0.3)
    monkeypatch.setattr(launcher, "TELL_TIMEOUT", 0.3)
    os.kill(stuck, signal.SIGSTOP)
    try:
        with pytest.raises(HostStartFailed, match="did not fork"):
            await made.start(spec(), "host-2")
        monkeypatch.setattr(zygote, "FORK_TIMEOUT", 20.0)
        await made.start(spec(), "host-3")
        await until(is_ready(made, "host-3"), 30)
        assert await made.alive("host-1")
        assert made.processes()["zygote-function"] != stuck
        await made.stop("host-1", 0.3)
        assert [one.host for one in rig.exits] == ["host-1"], "its parent can't tell"
    finally:
        os.kill(stuck, signal.SIGCONT)
    await until(lambda: set(made.memory()) == {"host-3"}, 5)


async def test_a_parent_that_can_not_be_started_keeps_nothing_open(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rig.launcher(rig.home / "no-such-program")
    before = descriptors()
    with pytest.raises(HostStartFailed, match="could not be started"):
        await made.start(spec(), "host-1")
    assert descriptors() == before

    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "create_subprocess_exec", never)
    starting = asyncio.create_task(made.start(spec(), "host-2"))
    await until(lambda: descriptors() != before)
    starting.cancel()
    await asyncio.wait([starting])
    assert descriptors() == before


async def test_a_log_that_can_not_be_written_keeps_nothing_open(rig: Rig) -> None:
    made = rig.launcher()
    (rig.home / "logs" / "host-1.jsonl").mkdir(parents=True)
    before = descriptors()
    with pytest.raises(HostStartFailed, match="Is a directory"):
        await made.start(spec(), "host-1")
    assert descriptors() == before
