"""Processes that back up, restore or move until they are killed.

For each line of its standard input (what, from, to, as a JSON array) this program forks one such process, says its id,
that it has begun, and how it ended; forking saves a second of imports for each.
"""

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from chimera.adapters.storage.backup import moving
from chimera.adapters.storage.backup.archive import reading
from chimera.adapters.storage.backup.creating import create_backup
from chimera.adapters.storage.backup.restoring import restore_file, restore_server
from chimera.adapters.storage.backup.tables import layouts_at
from chimera.adapters.storage.naming import MAINTENANCE
from chimera.adapters.storage.opening import is_url, open_database

moving.BATCH_ROWS = 60


def say(*what: object) -> None:
    os.write(1, msgspec.json.encode(what) + b"\n")


async def work(what: str, source: str, target: str) -> None:
    if what == "restore" and not is_url(target):
        with reading(Path(source)) as reader:
            await restore_file(reader, Path(target), replace=True, progress=lambda table, rows: None)
        return
    opened = open_database(source if what == "backup" else target, application=MAINTENANCE)
    try:
        if what == "backup":
            await create_backup(opened, Path(target), release="0.1.0")
        elif what == "move":
            await moving.move_to_server(Path(source), opened)
        else:
            with reading(Path(source)) as reader:
                await restore_server(opened, reader, replace=True, progress=lambda table, rows: None)
    finally:
        await asyncio.to_thread(opened.close)


if __name__ == "__main__":
    layouts_at("head")  # once, for all that are forked
    for line in sys.stdin.buffer:
        what, source, target = msgspec.json.decode(line)
        child = os.fork()
        if child == 0:
            say("begun")
            asyncio.run(work(what, source, target))
            os._exit(0)
        say("started", child)
        _, status = os.waitpid(child, 0)
        say("ended", os.waitstatus_to_exitcode(status))
