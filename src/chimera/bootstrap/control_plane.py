"""The control plane process: `python -m chimera.bootstrap.control_plane --config PATH [--lifeline-fd N]`.

The configuration is `ControlPlaneConfig` as JSON. The process owns the catalogue: it migrates the database at its
start, serves the catalogue on its socket, and tells the node agent which cells must keep hosts (at its start, after
each change, and every half minute, so that a lost message costs that long and no more).
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import aiohttp
import msgspec
import uvloop
from aiohttp import web
from msgspec import Struct

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.naming import open_named
from chimera.adapters.storage.opening import shown
from chimera.bootstrap.database import when_there
from chimera.bootstrap.lifeline import end_with
from chimera.bootstrap.startup import listen_unix
from chimera.entrypoints.control_plane.app import ControlPlaneApp
from chimera.kernel.settings import SettingsError
from chimera_host.contract.problem import ProblemError
from chimera_host.logs import configure

log = logging.getLogger("chimera.bootstrap.control_plane")  # as a program this module is called __main__

TELL_INTERVAL = 30.0
EXIT_SETTINGS = 78


class ControlPlaneConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control plane's start; paths are absolute. `max_hosts` bounds every shared cell.

    `database` is a SQLite file or a server's URL, `database_password` a reference (`env:NAME`, `file:PATH`).
    """

    database: str
    socket: str
    node_socket: str
    max_hosts: int = 1000
    database_password: str | None = None


async def serve(config: ControlPlaneConfig) -> None:
    """Serve until SIGTERM."""
    database = open_named(config.database, config.database_password, os.environ)
    await when_there(lambda: migrate(database))
    catalogue = Catalogue(database, max_hosts=config.max_hosts)
    changed = asyncio.Event()
    changed.set()
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    runner = web.AppRunner(ControlPlaneApp(catalogue, changed.set).make(), access_log=None, shutdown_timeout=10.0)
    await runner.setup()
    await listen_unix(runner, Path(config.socket))
    log.info("control plane ready", extra={"database": shown(config.database)})
    telling = asyncio.create_task(tell_node(catalogue, config.node_socket, changed), name="tell-node")
    stopping = asyncio.create_task(told_to_stop.wait(), name="stop")
    try:
        # Telling ends by a fault alone; then the process ends too, and its supervisor starts it again.
        await asyncio.wait((telling, stopping), return_when=asyncio.FIRST_COMPLETED)
        if telling.done():
            await telling
    finally:
        for task in (telling, stopping):
            task.cancel()
        await asyncio.gather(telling, stopping, return_exceptions=True)
        await runner.cleanup()
        await asyncio.to_thread(database.close)
        with contextlib.suppress(FileNotFoundError):
            Path(config.socket).unlink()  # noqa: ASYNC240 - once, after everything is served
        log.info("control plane ended")


async def tell_node(catalogue: Catalogue, socket: str, changed: asyncio.Event) -> None:
    """Tell the node agent which cells must keep hosts: all of them, each time."""
    connector = aiohttp.UnixConnector(socket)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10)) as session:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL_INTERVAL):
                    await changed.wait()
            changed.clear()
            try:
                body = msgspec.json.encode(await catalogue.kept_cells())
                async with session.put("http://node/v1/cells", data=body) as answer:
                    answer.raise_for_status()
            except (aiohttp.ClientError, TimeoutError, ProblemError) as error:
                log.warning("the node agent was not told of kept cells", extra={"error": str(error)})


def main() -> int:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="python -m chimera.bootstrap.control_plane", description=main.__doc__)
    parser.add_argument("--config", required=True, type=Path, help="a file with ControlPlaneConfig as JSON")
    parser.add_argument("--lifeline-fd", type=int, help="end when this pipe closes")
    options = parser.parse_args()
    configure("control-plane")
    if options.lifeline_fd is not None:
        end_with(options.lifeline_fd)
    try:
        config = msgspec.json.decode(options.config.read_bytes(), type=ControlPlaneConfig)
        uvloop.run(serve(config))
    except SettingsError as error:
        log.error("control plane did not start", extra={"problems": error.problems})
        return EXIT_SETTINGS
    except ProblemError as error:
        log.error("control plane failed", extra={"error": error.detail, "next_step": error.next_step})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
