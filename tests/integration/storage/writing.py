"""Processes that write until they are killed, and say on their standard output what was acknowledged.

For each line of its standard input (database, day, number of the last batch, as a JSON array) this program forks one
such process, says its id, and says when it has ended; forking saves a second of imports for each.

Sessions are saved version by version, batches move a set of agents from one number to the next. Each line is written
to a pipe in one call, after the acknowledgement and before the next write.
"""

import asyncio
import os
import sys

import msgspec

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.gateway import GatewayStorage
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.quota import QuotaStorage
from chimera.gateway.ports import Usage
from chimera.gateway.quota.model import Settlement
from chimera.gateway.state.model import StoredSession
from chimera.testing.definitions import compiled, staged
from chimera_host.contract.call import Message, SessionState

SESSIONS = 8
AGENTS = 60
CHUNK = 25
TENANT = "default"


def say(*what: object) -> None:
    os.write(1, msgspec.json.encode(what) + b"\n")


async def save_sessions(store: GatewayStorage, name: str) -> None:
    stored = await store.load_session(TENANT, "agent", name)
    version = stored.version if stored else 0
    while True:
        version += 1
        state = SessionState(messages=(Message(role="user", content=f"{name} {version}"),))
        await store.save_session(
            StoredSession(tenant=TENANT, agent="agent", session=name, version=version, state=state, updated=0.0)
        )
        say("session", name, version)


async def add_usage(store: QuotaStorage, day: str) -> None:
    row = Usage(tenant=TENANT, agent="a", model="m", day=day, calls=1, prompt_tokens=2, completion_tokens=3, usd=None)
    count = 0
    while True:
        await store.settle("gw", Settlement(usage=(row,)))
        count += 1
        say("usage", day, count)


async def apply_batches(catalogue: Catalogue, number: int) -> None:
    while True:
        number += 1
        agents = [compiled(f"agent-{index:03d}", metadata={"version": f"{number}.0.0"}) for index in range(AGENTS)]
        items = staged(*agents)
        batch = await catalogue.open_batch(TENANT, f"key {number}")
        for first in range(0, AGENTS, CHUNK):
            await catalogue.stage(TENANT, batch, items[first : first + CHUNK])
        await catalogue.commit(TENANT, batch)
        say("batch", number)


async def main(database: str, day: str, batches_done: int) -> None:
    opened = open_database(database)
    await migrate(opened)
    store, catalogue = GatewayStorage(opened), Catalogue(opened, max_hosts=2)
    say("ready")
    async with asyncio.TaskGroup() as group:
        for index in range(SESSIONS):
            group.create_task(save_sessions(store, f"session-{index}"))
        group.create_task(add_usage(QuotaStorage(opened), day))
        group.create_task(apply_batches(catalogue, batches_done))


if __name__ == "__main__":
    for line in sys.stdin.buffer:
        database, day, batches_done = msgspec.json.decode(line)
        child = os.fork()
        if child == 0:
            asyncio.run(main(database, day, batches_done))
        say("started", child)
        os.waitpid(child, 0)
        say("ended")
