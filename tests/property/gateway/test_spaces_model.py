"""Shared spaces against a model: branches that write at once, on a real database, lose and double nothing.

Each branch writes in turns of several keys. Whatever the order in which the turns of all branches are committed:
counters are the sums of what was acknowledged, lists hold each acknowledged item once and those of one branch in their
order, a key that merges by hand holds every branch's items, and what a turn writes to two keys is never seen apart.
"""

import asyncio
import shutil
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.state.stores import make_state
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.settings import StateSettings
from chimera.gateway.state.errors import SpaceConflict
from chimera.gateway.state.runs import Runs
from chimera.gateway.state.sessions import Sessions
from chimera.gateway.state.spaces import Spaces
from chimera.gateway.state.spaces_rules import Declared
from chimera.testing.clock import ManualClock
from chimera_host.contract.state import SharedBody, SharedWrite

DECLARED = Declared(access={"*": "write"}, rules={"n/*": "counter", "l/*": "append", "plan": "custom"})

turns = st.lists(
    st.tuples(st.sampled_from(["n/a", "n/b"]), st.integers(-3, 3), st.sampled_from(["l/a", "l/b"]), st.booleans()),
    min_size=1,
    max_size=3,
)
branches = st.lists(turns, min_size=1, max_size=4)


class Seen:
    """What the branches were told is done."""

    def __init__(self) -> None:
        self.sums: dict[str, int] = {}
        self.items: dict[str, list[str]] = {}
        self.merged: set[str] = set()
        self.conflicts = 0


async def branch(spaces: Spaces, number: int, todo: list[tuple[str, int, str, bool]], seen: Seen) -> None:
    agent = f"agent-{number}"

    async def ask(*writes: SharedWrite, read: tuple[str, ...] = ()) -> dict[str, tuple[int, object]]:
        body = SharedBody(write=writes, read=read)
        answer = await spaces.apply_as("t", agent, "board", body, opened=None, key=None)
        return {entry.key: (entry.version, entry.value) for entry in answer.entries}

    for turn, (counter, amount, log, merges) in enumerate(todo):
        item = f"{number}.{turn}"
        pair = [SharedWrite(key=key, value=item) for key in ("left", "right")]
        found = await ask(
            SharedWrite(key=counter, op="add", value=amount), SharedWrite(key=log, op="append", value=[item]), *pair
        )
        assert found["left"] == found["right"]
        seen.sums[counter] = seen.sums.get(counter, 0) + amount
        seen.items.setdefault(log, []).append(item)
        if not merges:
            continue
        while True:
            version, value = (await ask(read=("plan",)))["plan"]
            before = value if isinstance(value, list) else []
            try:
                # The mark beside it is written only where the merge is.
                mark = SharedWrite(key="n/merges", op="add", value=1)
                await ask(mark, SharedWrite(key="plan", value=[*before, item], version=version))
                seen.merged.add(item)
                break
            except SpaceConflict:
                seen.conflicts += 1


async def play(file: Path, plan: list[list[tuple[str, int, str, bool]]]) -> None:
    database = open_database(file)
    try:
        clock, chosen = ManualClock(), StateSettings()
        stores = make_state(database, chosen, clock)
        sessions = Sessions(stores.sessions, clock, most_bytes=1, settings=chosen)
        runs = Runs(stores.runs, sessions, clock, gateway="g", settings=chosen, metrics=GatewayMetrics())
        spaces = Spaces(stores.spaces, runs, clock, settings=chosen)
        await spaces.put("t", "board", DECLARED, version=0, by="key:one")
        seen = Seen()
        await asyncio.gather(*(branch(spaces, number, todo, seen) for number, todo in enumerate(plan)))
        stored = {entry.key: entry for entry in await spaces.entries("t", "board", "", 100)}
        answer = await spaces.apply("t", "board", SharedBody(read=tuple(stored)), by="key:one")
        values = {entry.key: entry.value for entry in answer.entries}
        for counter, total in seen.sums.items():
            assert values[counter] == total
        for log, items in seen.items.items():
            assert sorted(values[log]) == sorted(items)
            for number in range(len(plan)):
                mine = [item for item in values[log] if item.startswith(f"{number}.")]
                assert mine == sorted(mine)
        assert sorted(values.get("plan", [])) == sorted(seen.merged)
        assert values.get("n/merges", 0) == len(seen.merged)
        assert values["left"] == values["right"]
        found, _ = await spaces.get("t", "board")
        assert found.entries == len(stored)
        assert found.version == 1 + sum(map(len, plan)) + len(seen.merged)
    finally:
        await asyncio.to_thread(database.close)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(branches)
def test_branches_that_write_at_once_lose_and_double_nothing(
    migrated_file: Path, tmp_path: Path, plan: list[list[tuple[str, int, str, bool]]]
) -> None:
    file = tmp_path / "chimera.db"
    for left in tmp_path.glob("chimera.db*"):
        left.unlink()
    shutil.copy(migrated_file, file)
    asyncio.run(play(file, plan))
