"""One host as a process: from its configuration and descriptors to its exit code.

The same code runs in a process of its own (`serve`) and in the child of a zygote. The event loop is uvloop's where it
is installed. The process ends with `os._exit`: threads of agents can't be joined and must not hold up the end.
"""

import asyncio
import ctypes
import faulthandler
import gc
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path

from aiohttp import web

from chimera_host.blackbox import BlackBox
from chimera_host.config import HostConfig, checked
from chimera_host.contract.agent import FrameworkName
from chimera_host.frameworks import adapter as find_adapter
from chimera_host.host import SPARE_SLOTS, Host
from chimera_host.logs import CapturedStream, capture_prints, configure
from chimera_host.ports import FrameworkAdapter
from chimera_host.renewal import introduced
from chimera_host.server import Server
from chimera_host.watchdog import ExitCode, Limits, Watchdog

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_GC_THRESHOLD = (20_000, 20, 50)
"""Loaded agents are many and live long: collecting less often saves a tenth of a busy host's time."""


def run(config: HostConfig, adapter: FrameworkAdapter, listener: socket.socket, lifeline: int | None) -> int:
    """Run a host until it ends; its exit code. The adapter is preloaded."""
    configure("host", host=checked(config).host, cell=config.cell)
    captured = capture_prints()
    faulthandler.enable(file=2)
    gc.set_threshold(*_GC_THRESHOLD)
    _limit(config)
    listener.setblocking(False)
    listener.set_inheritable(False)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(config, adapter, listener, lifeline, captured))
    except BaseException:  # also SystemExit, which a task of an agent may raise through the loop
        log.exception("host failed")
        return ExitCode.FAILED


async def _serve(
    config: HostConfig,
    adapter: FrameworkAdapter,
    listener: socket.socket,
    lifeline: int | None,
    captured: tuple[CapturedStream, CapturedStream],
) -> int:
    loop = asyncio.get_running_loop()
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told_to_stop.set)
    if config.identity_file is not None:
        # Until it has its key it answers nothing, so that its readiness probe fails and nobody calls it.
        introducing = loop.create_task(introduced(config), name="introduce")
        stopping = loop.create_task(told_to_stop.wait(), name="stop")
        await asyncio.wait((introducing, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not introducing.done():
            os._exit(ExitCode.DRAINED)
        config = introducing.result()
        stopping.cancel()
        configure("host", host=config.host, cell=config.cell)
    black_box = BlackBox(Path(config.black_box), config.concurrency + SPARE_SLOTS) if config.black_box else None
    host = Host(config, adapter, black_box=black_box, captured=captured)
    loop.set_default_executor(host.executor)
    watchdog = Watchdog(
        host,
        Limits(grace=config.grace, memory_bytes=config.memory_bytes),
        loop=loop,
        black_box=black_box,
        lifeline=lifeline,
    )
    watchdog.start()
    runner = web.ServerRunner(Server(host).make(), handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, listener, backlog=1024).start()
    log.info("host ready", extra={"framework": config.framework, "pid": os.getpid()})
    await told_to_stop.wait()
    await host.drain()
    await runner.cleanup()
    await host.aclose()
    log.info("host ended")
    # From here on nothing may block: agents' threads are left behind.
    os._exit(ExitCode.DRAINED)


def preload(framework: FrameworkName) -> FrameworkAdapter:
    """Import the framework, and put what it made where the garbage collector and a fork leave it alone.

    Nothing of what is imported is garbage until all of it is, and looking for some takes up to a quarter of the time.
    """
    gc.disable()
    try:
        _loop_factory()  # imports uvloop
        adapter = find_adapter(framework)
        adapter.preload()
        gc.collect()
        gc.freeze()
    finally:
        gc.enable()
    return adapter


def die_with_parent(parent: int) -> None:
    """Have the kernel end this process when its parent ends; only Linux can."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before this took effect
        os._exit(ExitCode.LIFELINE)


def _limit(config: HostConfig) -> None:
    """Apply what the process itself can: the number of open files, and no core dumps with prompts in them."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if config.open_files is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = config.open_files if hard == resource.RLIM_INFINITY else min(config.open_files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))


def _loop_factory() -> "type[asyncio.AbstractEventLoop] | None":
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.Loop
