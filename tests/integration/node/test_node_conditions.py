"""Conditions of one machine: from the node agent's hosts over its socket to the keeper, in the words of both homes."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from chimera.adapters.substrates import node_observer
from chimera.adapters.substrates.node_client import NodeClient
from chimera.adapters.substrates.node_observer import NodeObserver
from chimera.kernel.clock import SystemClock
from chimera.kernel.leases import Lease
from chimera.platform import condition_keeper
from chimera.platform.condition_keeper import ConditionKeeper, Judged
from chimera.platform.conditions import HOME, Condition
from chimera.platform.errors import HostStartFailed, RuntimeMissing
from chimera.platform.reasons import Aspect, Reason
from chimera.testing.storage import cell_spec
from chimera_host.contract.problem import RemoteProblem
from chimera_host.testing import builders
from chimera_host.testing.doubles import until

CELL = cell_spec("cell-1", builders.document())
PATIENCE = 10.0


class Store:
    """A `ConditionStore` in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[Condition, ...]] = {}

    async def load(self) -> Mapping[str, tuple[Condition, ...]]:
        return self.kept

    async def put(self, changed: Sequence[Judged], gone: Sequence[str], lease: Lease | None) -> None:
        self.kept.update({one.subject: one.conditions for one in changed})

    def told(self, aspect: Aspect) -> tuple[str, Reason] | None:
        found = self.kept.get(HOME if aspect is Aspect.CONNECTED else "cells/cell-1", ())
        return next(((one.status, one.reason) for one in found if one.type is aspect), None)


@pytest.fixture
async def store(node, monkeypatch):
    """What is kept of the machine's conditions, while somebody keeps them."""
    monkeypatch.setattr(condition_keeper, "LEAST_PAUSE", 0.02)
    monkeypatch.setattr(node_observer, "AWAY", 0.2)
    monkeypatch.setattr(node_observer, "RETRY", 0.1)
    observer, kept = NodeObserver(node.socket), Store()
    keeping = asyncio.create_task(ConditionKeeper(observer, kept, SystemClock()).run())
    yield kept
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await observer.aclose()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeMissing("no environment for crewai", next_step="install it"), Reason.RUNTIME_MISSING),
        (HostStartFailed("no process to be had", retry_after=5), Reason.HOST_NOT_STARTED),
    ],
)
async def test_who_waits_and_who_looks_hear_the_same_reason_and_both_of_its_end(node, store, error, reason) -> None:
    pool = NodeClient(node.socket, SystemClock())
    node.launcher.refuses = error
    with pytest.raises(RemoteProblem) as refused:
        await pool.wake(CELL, PATIENCE)
    assert refused.value.problem().reason == reason.value
    await until(lambda: store.told(Aspect.READY) == ("False", reason), PATIENCE)
    node.launcher.refuses = None
    async with asyncio.timeout(PATIENCE):
        while True:  # it waits longer after each failure
            try:
                await pool.wake(CELL, PATIENCE)
                break
            except RemoteProblem:
                await asyncio.sleep(0.1)
    await until(lambda: store.told(Aspect.READY) == ("True", Reason.AS_WANTED), PATIENCE)
    await pool.aclose()


async def test_a_host_that_dies_is_told_of_while_calls_go_on(node, store) -> None:
    pool = NodeClient(node.socket, SystemClock())
    (endpoint,) = await pool.wake(CELL, PATIENCE)
    await until(lambda: store.told(Aspect.HEALTHY) == ("True", Reason.AS_WANTED), PATIENCE)
    await node.launcher._end(endpoint.host, "ended with exit code 3", expected=False)
    await until(lambda: store.told(Aspect.HEALTHY) == ("False", Reason.HOST_DIED), PATIENCE)
    await until(lambda: store.told(Aspect.READY) == ("True", Reason.AS_WANTED), PATIENCE)
    await pool.aclose()


async def test_a_node_agent_that_is_away_is_the_homes_condition(node, store) -> None:
    await until(lambda: store.told(Aspect.CONNECTED) == ("True", Reason.AS_WANTED), PATIENCE)
    await node.silence()
    await until(lambda: store.told(Aspect.CONNECTED) == ("False", Reason.HOME_AWAY), PATIENCE)
