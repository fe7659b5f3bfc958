"""Staging over a database, with calls and earlier traffic that a test makes up."""

from typing import Any

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.trials.environments import StoredEnvironments
from chimera.delivery.model import Change, ChangeItem, content_of
from chimera.delivery.ports import Progress, Revision
from chimera.delivery.staging.sampling import Earlier
from chimera.delivery.staging.service import ChangeStaging
from chimera.delivery.trials.environment import name_of
from chimera.delivery.trials.environments import Environments
from chimera.delivery.trials.settings import TrialSettings
from chimera.kernel.clock import SystemClock
from chimera.testing.trials import FakeCalls, FakeTraffic
from chimera_host.contract.call import Message
from chimera_host.testing.doubles import until

NEW, LIVE = name_of("default", "staging", "chg_1"), name_of("default", "staging-live", "chg_1")
REPLAY, REPLAY_LIVE = name_of("default", "staging-replay", "chg_1"), name_of("default", "staging-replay-live", "chg_1")


def case(name: str = "t", **changes: Any) -> dict[str, Any]:
    return {"name": name, "input": "hi", "expect": {"contains": ["hi"]}, **changes}


def earlier(count: int, *, agent: str = "a", **fields: Any) -> list[Earlier]:
    return [
        Earlier(
            agent=agent,
            kind="session",
            name=f"s{number}",
            messages=(
                Message(role="user", content="before"),
                Message(role="assistant", content="then"),
                Message(role="user", content=f"earlier {number}"),
            ),
            place=2,
            **fields,
        )
        for number in range(count)
    ]


class World:
    def __init__(self, database: Database, **settings: Any) -> None:
        self.database, self.clock = database, SystemClock()
        self.catalogue = Catalogue(database, max_hosts=2)
        self.settings = TrialSettings(**settings)
        self.calls = FakeCalls()
        self.traffic = FakeTraffic()
        self.staging = self.process(self.calls)

    def process(self, calls: FakeCalls) -> ChangeStaging:
        environments = Environments(self.catalogue, StoredEnvironments(self.database), self.clock, self.settings)
        return ChangeStaging(environments, calls, self.traffic, self.clock, self.settings)

    async def over(self, change: Change, revisions: list[Revision]) -> Progress:
        how = Progress(state="running")

        async def ended() -> bool:
            nonlocal how
            how = await self.staging.advance(change, revisions)
            return how.state != "running"

        await until(ended)
        return how

    async def open(self) -> list[str]:
        found = await StoredEnvironments(self.database).all()
        return [one.name for one in found if one.closed is None]


def change(*pairs: tuple[Any, Any]) -> tuple[Change, list[Revision]]:
    """A change of agents, each from what is live (or None) to what it becomes (or None)."""
    items = tuple(
        ChangeItem(
            agent=(new or live).value.agent.name,
            revision=None if new is None else new.digest,
            before=None if live is None else live.digest,
        )
        for live, new in pairs
    )
    rest: dict[str, Any] = dict.fromkeys(("created", "updated", "since"), 0.0)
    made = Change(
        id="chg_1",
        tenant="default",
        title="t",
        author="user:u",
        author_person="user:u",
        items=items,
        content=content_of(items),
        risk="low",
        state="staging",
        **rest,
    )
    revisions = [
        Revision(item=item, compiled=new, before=None if live is None else live.value)
        for item, (live, new) in zip(items, pairs, strict=True)
    ]
    return made, revisions
