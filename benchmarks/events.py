"""`python -m benchmarks.events`: events delivered a second, to 1 and to 100 subscriptions.

Facts are in the journal already; counted is the time until the receiver has had all of them. The receiver is a process
of its own on this machine that answers 204 at once, so what is measured is what the sender costs: reading, matching,
signing, HTTP, writing progress. Beside it stands the obvious way with the same client: a loop for each subscription
that asks the database for its next batch, sends the events that pass one after the other, and writes its cursor down.

How it grows: with deliveries, not with subscriptions that want nothing of what happens; the journal is read once.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import msgspec
from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, update

from benchmarks import machine
from benchmarks.stats import median, spread
from chimera.adapters.push.addresses import networks
from chimera.adapters.push.pusher import Pusher
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.deliveries import DeliveryStorage
from chimera.adapters.storage.events.reading import JournalStorage
from chimera.adapters.storage.events.subscriptions import SubscriptionStorage
from chimera.adapters.storage.journal import journal
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.subscriptions import subscription
from chimera.events import signing
from chimera.events.delivery.deliverer import Deliverer
from chimera.events.delivery.entries import Entry
from chimera.events.delivery.feed import Feed
from chimera.events.delivery.model import Subscription
from chimera.events.filters import Filter, passes
from chimera.events.model import Fact
from chimera.events.settings import EventSettings
from chimera.kernel.clock import SystemClock
from chimera.kernel.ids import new_id
from chimera.testing.events import FixedSecrets

MANY = 100
SUBJECTS = 100
KEY = "bench"
SETTINGS = EventSettings(poll=0.02, outstanding=500)

Way = Callable[[Database, Pusher], Awaitable[None]]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """How many subscriptions want how many events: all of them, or one subject each."""

    name: str
    subscriptions: int
    events: int
    own_subject: bool = False

    @property
    def deliveries(self) -> int:
        """How many requests that makes."""
        return self.events if self.own_subject else self.events * self.subscriptions


def cases(deliveries: int) -> list[Case]:
    """What is measured, each with so many deliveries."""
    return [
        Case(name="1 subscription to all", subscriptions=1, events=deliveries),
        Case(name=f"{MANY} subscriptions to all", subscriptions=MANY, events=max(1, deliveries // MANY)),
        Case(name=f"{MANY} subscriptions to a subject each", subscriptions=MANY, events=deliveries, own_subject=True),
    ]


async def _receive() -> None:
    """The receiver: answers at once, and says at /count how many it had."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    said = b"%d" % count
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
                    continue
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                count += 1
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


@asynccontextmanager
async def receiver() -> AsyncIterator[str]:
    """The receiver as a process, by its URL."""
    command = [sys.executable, "-m", "benchmarks.events", "--receiver"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.kill()
        await process.wait()


async def prepare(database: Database, case: Case, url: str) -> None:
    """Subscriptions that begin before the first event, and the events."""
    store = SubscriptionStorage(database)
    for number in range(case.subscriptions):
        own: list[Filter] = [{"exact": {"subject": f"s{number}"}}] if case.own_subject else []
        filters: list[Filter] = [{"exact": {"type": "chimera.tenant.resumed"}}, *own]
        made = Subscription(
            id=new_id("sub"),
            tenant="t",
            name=f"n{number}",
            url=url + "/in",
            key=KEY,
            cursor=0,
            created=0.0,
            created_by="b",
            updated=0.0,
            filters=filters,
        )
        await store.create(made, "now", "b", most=MANY)

    def job(connection: Connection, numbers: range) -> None:
        for number in numbers:
            data = {"name": "t", "by": "b"}
            subject = f"s{number % SUBJECTS}"
            fact = Fact(id=new_id("evt"), type="tenant.resumed", tenant="t", subject=subject, at=0.0, data=data)
            journal(connection).fact(fact)

    for start in range(0, case.events, 1_000):
        numbers = range(start, min(case.events, start + 1_000))
        await database.write(lambda connection, numbers=numbers: job(connection, numbers))  # type: ignore[misc]


async def ours(database: Database, push: Pusher) -> None:
    """The platform's deliverer."""
    reader = JournalStorage(database)
    feed = Feed(reader, source="", poll=SETTINGS.poll, batch=SETTINGS.batch)
    store = DeliveryStorage(database, letters=SETTINGS.letters, letter_keep=SETTINGS.letter_keep)
    made = Deliverer(
        store,
        reader,
        feed,
        push,
        FixedSecrets(),
        SystemClock(),
        key=KEY,
        settings=SETTINGS,
        chance=random.random,
    )
    lease = await StoredLeases(database).acquire("delivery-bench", "me", 3_600.0)
    assert lease is not None
    following = asyncio.create_task(feed.run())
    try:
        await made.run(lease)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def naive(database: Database, push: Pusher) -> None:
    """A loop for each subscription."""
    store = DeliveryStorage(database, letters=1, letter_keep=1.0)
    await asyncio.gather(*(_naive(database, push, one) for one in await store.subscriptions(KEY)))


async def _naive(database: Database, push: Pusher, one: Subscription) -> None:
    reader, cursor = JournalStorage(database), one.cursor
    while True:
        facts = await reader.facts_of(one.tenant, after=cursor, limit=SETTINGS.batch)
        for fact in facts:
            entry = Entry(fact, "")
            if passes(one.filters, entry.attributes):
                headers, body = entry.written(one.mode)
                signed = signing.signed((FixedSecrets.secret,), fact.id, time.time(), body)
                outcome = await push.post(one.url, {**headers, **signed}, body)
                assert outcome.result == "delivered", outcome.reason
            cursor = fact.seq
        if not facts:
            await asyncio.sleep(SETTINGS.poll)
            continue
        moved = update(subscription).where(subscription.c.id == one.id).values(cursor=cursor)
        await database.write(lambda connection, moved=moved: connection.execute(moved).rowcount)  # type: ignore[misc]


async def measure(way: Way, case: Case) -> float:
    """Deliveries a second."""
    with tempfile.TemporaryDirectory(prefix="chimera-bench-") as scratch:
        database = open_database(Path(scratch) / "chimera.db")
        push = Pusher(allow=networks(["127.0.0.0/8"]), connections=SETTINGS.concurrency, connect_timeout=5, timeout=30)
        try:
            await migrate(database)
            async with receiver() as url, aiohttp.ClientSession() as http:
                await prepare(database, case, url)
                began = time.perf_counter()
                running = asyncio.create_task(way(database, push))  # type: ignore[arg-type]
                try:
                    while not running.done():
                        async with http.get(url + "/count") as answer:
                            if int(await answer.read()) >= case.deliveries:
                                return case.deliveries / (time.perf_counter() - began)
                        await asyncio.sleep(0.02)
                    await running
                finally:
                    running.cancel()
                    await asyncio.gather(running, return_exceptions=True)
            raise AssertionError("a way ended by itself")
        finally:
            await push.aclose()
            await asyncio.to_thread(database.close)


WAYS: dict[str, Way] = {"Chimera": ours, "a loop for each subscription": naive}


def one_run(deliveries: int) -> dict[str, dict[str, float]]:
    """Every case by every way."""
    return {
        case.name: {name: asyncio.run(measure(way, case)) for name, way in WAYS.items()} for case in cases(deliveries)
    }


def show(runs: list[dict[str, dict[str, float]]], console: Console) -> None:
    """Print the table: medians of the runs and their spread."""
    told = machine.describe()
    console.print(f"{told['cores']} cores, {told['processor']}, {told['memory_mib']} MiB; {len(runs)} runs; SQLite")
    table = Table(box=None, pad_edge=False)
    for name in ("events delivered a second", *WAYS):
        table.add_column(name, justify="left" if name not in WAYS else "right")
    for case in runs[0]:
        values = [[run[case][way] for run in runs] for way in WAYS]
        table.add_row(case, *(f"{median(some):,.0f} ±{spread(some) / 2:,.0f}" for some in values))
    console.print(table)


def main() -> None:
    """Measure and print; keep the JSON where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.events", description=main.__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--deliveries", type=int, default=5_000, help="requests of each case (default 5,000)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--receiver", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.receiver:
        asyncio.run(_receive())
        return
    runs = [one_run(options.deliveries) for _ in range(options.runs)]
    show(runs, Console(width=110))
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=2) + b"\n")


if __name__ == "__main__":
    main()
