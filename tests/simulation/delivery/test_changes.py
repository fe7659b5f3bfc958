"""People, applies and kills at random: nothing becomes live that was not approved as it is, and all of it or none.

Each definition is used once, so the history of the catalogue tells by which change, or apply, it became live. What must
hold is worked out here anew from what people did, not from what the rules say. `CHIMERA_TEST_SEED` sets the moments.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.changes.people import StoredPeople
from chimera.adapters.storage.changes.store import ChangeStorage
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.catalogue import history
from chimera.delivery.model import IN_FLIGHT, Change
from chimera.delivery.pipeline import Parts, Pipeline
from chimera.delivery.policy import DAYS, Freeze
from chimera.delivery.service import Asker, Changes, Draft
from chimera.delivery.settings import DeliverySettings
from chimera.testing.clock import ManualClock
from chimera.testing.definitions import compiled, staged
from chimera.testing.delivery import FakeCheck
from chimera_host.contract.problem import ProblemError

SEED = int(os.environ.get("CHIMERA_TEST_SEED", "7"))
STEPS = 160
TENANT = "default"
AGENTS = tuple("abcdefgh")
PEOPLE = ("anna", "ben", "cara", "dora")
ALWAYS = Freeze(name="always", days=DAYS, starts="00:00", ends="00:00")
NEEDED = {"low": 1, "medium": 1, "high": 2}


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Mortal:
    """The store of a process that may be killed at any write, before or after it."""

    store: ChangeStorage
    dies_at: int
    after: bool
    writes: int = 0
    dead: bool = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.store, name)

        async def asked(*given: Any, **named: Any) -> Any:
            self._live()
            if name in ("save", "put_verdicts", "produce"):
                self.writes += 1
                self.dead = self.writes == self.dies_at
                if not self.after:
                    self._live()
            done = await method(*given, **named)
            self._live()
            return done

        return asked

    def _live(self) -> None:
        if self.dead:
            raise Killed


@dataclass
class World:
    """Everybody, and what they did."""

    chance: random.Random
    database: Database
    clock: ManualClock
    catalogue: Catalogue
    store: ChangeStorage
    changes: Changes
    check: FakeCheck = field(default_factory=lambda: FakeCheck(name="tests"))
    numbers: int = 0
    opened: dict[str, set[str]] = field(default_factory=dict)
    """Who made a change, by its id."""
    words: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """Who approved a content of a change."""
    emergencies: set[tuple[str, str]] = field(default_factory=set)
    applied: set[str] = field(default_factory=set)
    frozen: bool = False
    refused: Counter[str] = field(default_factory=Counter)

    def who(self) -> str:
        return self.chance.choice(PEOPLE)

    def asker(self, name: str) -> Asker:
        return Asker(actor=f"user:i|{name}", roles=frozenset({"operator", "approver"}))

    def definitions(self) -> list[Any]:
        made = []
        for name in self.chance.sample(AGENTS, self.chance.randint(1, 2)):
            self.numbers += 1
            more = {"data_class": "personal"} if self.chance.random() < 0.3 else {}
            tags = {"tags": [f"domain:n{self.numbers}"]}
            made.append(compiled(name, metadata=tags, budget={"tokens_per_day": 1_000}, **more))
        return made

    async def batch(self) -> str:
        batch = await self.catalogue.open_batch(TENANT)
        await self.catalogue.stage(TENANT, batch, staged(*self.definitions()))
        return batch

    async def some(self) -> Change | None:
        state = "in-flight" if self.chance.random() < 0.8 else None
        rows = await self.changes.page(TENANT, state=state, agent=None, after=None, limit=6)
        return await self.changes.change(TENANT, self.chance.choice(rows).id) if rows else None

    # -- what happens ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        author = self.who()
        draft = Draft(title="t", batch=await self.batch(), supersede=self.chance.random() < 0.3)
        made = await self.changes.open(TENANT, self.asker(author), draft)
        self.opened[made.id] = {author}

    async def amend(self) -> None:
        change, author = await self.some(), self.who()
        if change is not None:
            batch = await self.batch()
            await self.changes.amend(TENANT, self.asker(author), change.id, batch=batch, remove=())
            self.opened[change.id].add(author)

    async def approve(self) -> None:
        change, person = await self.some(), self.who()
        if change is not None:
            await self.changes.decide(
                TENANT, self.asker(person), change.id, "approved", content=change.content, comment=""
            )
            assert person not in self.opened[change.id], "nobody approves their own"
            self.words.setdefault((change.id, change.content), set()).add(person)

    async def reject(self) -> None:
        change = await self.some()
        if change is not None:
            await self.changes.decide(
                TENANT, self.asker(self.who()), change.id, "rejected", content=change.content, comment=""
            )

    async def abort(self) -> None:
        change = await self.some()
        if change is not None:
            await self.changes.abort(TENANT, self.asker(self.who()), change.id, "")

    async def emergency(self) -> None:
        change = await self.some()
        if change is not None:
            chief = Asker(actor="user:i|chief", roles=frozenset({"admin"}))
            await self.changes.declare_emergency(TENANT, chief, change.id, "all of it is broken")
            self.emergencies.add((change.id, change.content))

    async def freeze(self) -> None:
        chief = Asker(actor="user:i|chief", roles=frozenset({"admin"}))
        self.frozen = not self.frozen and self.chance.random() < 0.2
        if self.frozen:
            await self.changes.put_freeze(TENANT, chief, ALWAYS)
        else:
            await self.changes.drop_freeze(TENANT, chief, ALWAYS.name)

    async def apply(self) -> None:
        made = self.definitions()
        await self.catalogue.apply(TENANT, staged(*made), keep_going=False, expect=None, by="user:i|direct")
        self.applied |= {one.digest for one in made}

    async def break_check(self) -> None:
        self.check.outcome = self.chance.choice(["passed", "passed", "passed", "failed"])

    async def work(self) -> None:
        mortal = Mortal(self.store, self.chance.randint(1, 12), self.chance.random() < 0.5)
        pipeline = Pipeline(mortal, Parts(checks=[self.check]), self.clock, DeliverySettings())
        task = asyncio.create_task(pipeline.settle())
        await asyncio.gather(task, return_exceptions=True)
        self.clock.advance(self.chance.randint(1, 3_600))

    # -- what must hold ----------------------------------------------------------------------------------------------

    async def hold(self) -> int:
        """Check all of it; how many changes are done."""
        query = select(history.c.revision).where(history.c.revision.is_not(None))
        were_live = set(await self.database.read(lambda connection: connection.execute(query).scalars().all()))
        done, busy, explained = 0, Counter[str](), set(self.applied)
        for id_ in self.opened:
            change = await self.changes.change(TENANT, id_)
            revisions = {item.revision for item in change.items if item.revision is not None}
            if change.state in IN_FLIGHT:
                busy.update(change.names)
            if change.state == "done":
                done += 1
                explained |= revisions
                assert revisions <= were_live, "all of it became live"
                key = (id_, change.content)
                voices = self.words.get(key, set()) - self.opened[id_]
                assert key in self.emergencies or len(voices) >= NEEDED[change.risk], "it was approved as it is"
            else:
                assert not revisions & were_live, f"nothing of it is live: {change.state}"
        assert max(busy.values(), default=0) <= 1, "no two changes in flight touch the same agent"
        assert were_live <= explained, "nothing became live by itself"
        return done


@pytest.fixture
async def world(tmp_path: Path, seed: int) -> Any:
    database = open_database(tmp_path / "chimera.db")
    await migrate(database)
    clock = ManualClock()
    catalogue = Catalogue(database, max_hosts=4, clock=clock)
    store = ChangeStorage(database, catalogue, clock)
    changes = Changes(store, StoredPeople(database), clock, lambda: None)
    yield World(random.Random(seed), database, clock, catalogue, store, changes)
    database.close()


@pytest.mark.parametrize("seed", range(SEED, SEED + 2))
async def test_only_what_was_approved_becomes_live_and_all_of_it_or_none(world: World) -> None:
    happenings: list[tuple[Callable[[], Awaitable[None]], int]] = [
        *((world.work, 10), (world.approve, 12), (world.open, 4), (world.amend, 1), (world.apply, 1)),
        *((world.reject, 1), (world.abort, 1), (world.emergency, 1), (world.freeze, 2), (world.break_check, 1)),
    ]
    actions, weights = zip(*happenings, strict=True)
    for number in range(STEPS):
        (action,) = world.chance.choices(actions, weights)
        try:
            await action()
        except ProblemError as error:
            assert error.status < 500 and error.next_step, error
            world.refused[error.code] += 1
        if number % 10 == 0:
            await world.hold()
    done = await world.hold()
    assert done >= 3, "enough came through to mean something"
    assert {"change-conflicts", "approval-refused", "wrong-state"} <= set(world.refused)
