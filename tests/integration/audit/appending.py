"""Processes that append to the audit log until they are killed, and say on standard output what was acknowledged.

For each line of standard input (the database, a name for the run) this program forks one such process; forking saves a
second of imports for each. A line of output is written in one call, after the acknowledgement.
"""

import asyncio
import os
import sys

import msgspec

from chimera.adapters.storage.audit import AuditStorage
from chimera.adapters.storage.opening import open_database
from chimera.immune.audit.model import AuditRecord

WRITERS = 8


def say(*what: object) -> None:
    os.write(1, msgspec.json.encode(what) + b"\n")


async def append(store: AuditStorage, name: str) -> None:
    number = 0
    while True:
        number += 1
        batch = [
            AuditRecord(
                at=0.0, tenant="default", actor=name, action="agent:invoke", resource="agents/a", call=f"{part}"
            )
            for part in range(number * 10, number * 10 + 10)
        ]
        await store.record(batch)
        say("kept", name, number)


async def main(database: str, run: str) -> None:
    store = AuditStorage(open_database(database))
    await store.head()
    say("ready")
    await asyncio.gather(*(append(store, f"{run}-{number}") for number in range(WRITERS)))


if __name__ == "__main__":
    for line in sys.stdin.buffer:
        database, run = msgspec.json.decode(line)
        child = os.fork()
        if child == 0:
            asyncio.run(main(database, run))
        say("started", child)
        os.waitpid(child, 0)
        say("ended")
