"""`kill -9` of the control plane at every step of delivery: nothing acknowledged is lost, nothing half rolled out.

A first turn, in which nobody is killed, says which writes there are. Then a real control plane is killed at these,
before their commit and after it, and another one started: changes, rollouts, the way back and a branch come to their
ends all the same, each thing once, and no call fails meanwhile. `CHIMERA_TEST_KILLS` sets how often (20 by default,
over both databases), `CHIMERA_TEST_SEED` at which of the writes.
"""

import asyncio
import os
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest

from chimera.adapters.storage.opening import open_database

from .scenario import Asking, ControlPlanes, DeathAt, Served, Turn

KILLS = int(os.environ.get("CHIMERA_TEST_KILLS", "20"))
SEED = int(os.environ.get("CHIMERA_TEST_SEED", "7"))
A_TURN = 10
"""Kills in one turn: so many that most steps of it go on after one."""
SPARE = 8
"""Turns for what a turn did not come to, since another kill had it done in another order."""
CHANGES = ("building", "built", "approved", "staging", "rolling-out", "done", "wanted", "aborted", "superseded")
CHECKS = ("scan-secrets", "own-tests", "bill-of-materials", "staging")
ROLLOUTS = ("wave", "loading", "shifting", "baking", "waiting", "promoting", "done")
BACK = ("rolling-back", "rolled-back", "aborted")
STEPS = {
    *(f"ChangeStorage.save change.{fact}" for fact in CHANGES),
    *(f"ChangeStorage.put_verdicts {check}" for check in CHECKS),
    *(f"StoredRollouts.save {phase}" for phase in (*ROLLOUTS, *BACK)),
    *(f"SourceStorage.{write}" for write in ("put", "run", "deliver current", "put_state waiting", "record current")),
    *("ChangeStorage.create change.opened", "Catalogue.deliver", "StoredRollouts.create", "StoredRollouts.ask"),
    *("SideStorage.set_green", "SideStorage.set_weights", "SideStorage.finish rollout", "Rollbacks._back"),
}
"""What the stories come to at least, by the methods that write it."""
GROUPS = {
    "delivery": {
        "interval": 0.2,
        "rollout_steps": "20,60",
        "rollout_step_seconds": 0.1,
        "rollout_bake_seconds": 0.5,
        "rollout_waves": "0.5",
    },
    "scanning": {"scanners": "secrets,prompts"},
}
pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("git") is None, reason="needs git")]


def chosen(steps: Sequence[str], kills: int, moments: random.Random) -> list[DeathAt]:
    """As many moments to die at: each step once, then each at its other moment, then again."""
    names = sorted(steps)
    moments.shuffle(names)
    first = {name: moments.choice(("before", "after")) for name in names}
    other = {"before": "after", "after": "before"}
    order = [(name, first[name]) for name in names] + [(name, other[first[name]]) for name in names]
    return [order[number % len(order)] for number in range(kills)]


async def test_a_control_plane_killed_at_any_step_leaves_nothing_undone_and_nothing_half(
    database_name: str, dialect: str, tmp_path: Path
) -> None:
    print(f"CHIMERA_TEST_SEED={SEED} CHIMERA_TEST_KILLS={KILLS} {dialect}")
    moments, kills = random.Random(f"{SEED} {dialect}"), max(1, KILLS // 2)
    database = open_database(database_name)
    served = tmp_path / "served"
    groups = {**GROUPS, "sync": {"folders": str(served), "poll": 0.1}}
    socket = aiohttp.UnixConnector(str(tmp_path / "control.sock"), force_close=True)
    try:
        async with (
            ControlPlanes(tmp_path, database, database_name, **groups) as planes,
            Served(tmp_path, database) as world,
            aiohttp.ClientSession(connector=socket) as session,
        ):
            ask = Asking(session)
            numbers = iter(range(1_000))

            async def turn() -> None:
                number = next(numbers)
                one = Turn(number, database, ask, served)
                await one.prepare()
                await world.gateway.routes.refresh()
                calling = asyncio.create_task(world.call(one.agents("done", "also", "back", "half")), name="calls")
                try:
                    await one.go()
                finally:
                    calling.cancel()
                    await asyncio.gather(calling, return_exceptions=True)
                assert world.failed == []

            await turn()
            steps = list(dict.fromkeys(planes.wrote))
            print(*steps, sep="\n")
            assert set(steps) >= STEPS, STEPS - set(steps)
            wanted = chosen(steps, kills, moments)
            left = Counter(wanted)
            for _ in range(len(wanted) // A_TURN + SPARE):
                some = list(left.elements())[:A_TURN]
                if not some:
                    break
                planes.plan = sorted(some, key=lambda at: (steps.index(at[0]), at[1] == "after"))
                planes.kill()  # the next one knows where it is to die
                died = len(planes.died)
                await turn()
                left -= Counter(planes.died[died:])
            assert not left, f"never came to {dict(left)}"
            print(f"killed {len(planes.died)} times; {sum(world.told.values())} calls, none failed")
            assert min(world.told.values()) > 5, "too few calls for their going well to mean anything"
    finally:
        await asyncio.to_thread(database.close)
