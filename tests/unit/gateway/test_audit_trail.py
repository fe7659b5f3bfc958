"""Batches of the audit log: what is durable when, and what happens while the log can't be written."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from chimera.gateway import audit
from chimera.gateway.audit import AuditTrail
from chimera.gateway.metrics import GatewayMetrics
from chimera.immune.audit.errors import AuditUnavailable
from chimera.immune.audit.model import AuditRecord
from chimera.immune.audit.settings import AuditSettings
from chimera.testing.clock import ManualClock


class Log:
    """A log whose writes end when the test says so."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.begun = asyncio.Event()
        self.written = asyncio.Event()
        self.error: Exception | None = None

    async def record(self, records: Sequence[AuditRecord]) -> None:
        self.begun.set()
        await self.open.wait()
        if self.error is not None:
            raise self.error
        self.batches.append([one.action if one.action != "agent:invoke" else one.call for one in records])
        self.written.set()


def entry(call: str) -> AuditRecord:
    return AuditRecord(at=0.0, tenant="default", actor="key:k", action="agent:invoke", resource="agent/a", call=call)


@asynccontextmanager
async def running(log: Log, **settings: object) -> AsyncIterator[AuditTrail]:
    trail = AuditTrail(log, AuditSettings(**settings), ManualClock(), GatewayMetrics())  # type: ignore[arg-type]
    task = asyncio.create_task(trail.run())
    try:
        yield trail
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_decision_is_durable_before_the_answer_and_what_comes_meanwhile_shares_the_next_write() -> None:
    log = Log()
    log.open.clear()
    async with running(log) as trail:
        first = trail.decided(entry("1"))
        await log.begun.wait()
        tickets = [trail.decided(entry(str(number))) for number in range(2, 50)]
        waiting = asyncio.create_task(trail.durable(first))
        await asyncio.sleep(0)
        assert not waiting.done()
        log.open.set()
        await waiting
        for ticket in tickets:
            await trail.durable(ticket)
    assert log.batches == [["1"], [str(number) for number in range(2, 50)]]
    assert trail.waiting == 0


async def test_outcomes_are_written_within_the_flush_and_at_the_end() -> None:
    log = Log()
    async with running(log, flush=0.01) as trail:
        trail.outcome(entry("1"))
        async with asyncio.timeout(60):
            await log.written.wait()
    trail.outcome(entry("2"))
    await trail.flush()
    assert log.batches == [["1"], ["2"]]


async def test_a_write_that_was_begun_is_finished_when_the_loop_is_stopped_and_written_once() -> None:
    log = Log()
    log.open.clear()
    async with running(log) as trail:
        trail.decided(entry("1"))
        await log.begun.wait()
    flushing = asyncio.create_task(trail.flush())
    await asyncio.sleep(0)
    log.open.set()
    await flushing
    assert log.batches == [["1"]]


async def test_calls_go_on_while_the_log_fails_and_nothing_is_lost_within_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "RETRY", 0.01)
    monkeypatch.setattr(audit, "MOST_WAITING", 3)
    log = Log()
    log.error = OSError("no space left on device")
    async with running(log, flush=0.01) as trail:
        await trail.durable(trail.decided(entry("1")))
        await trail.refused(entry("2"))
        trail.outcome(entry("3"))
        trail.outcome(entry("4"))
        trail.outcome(entry("5"))
        assert trail.waiting == 3
        log.error = None
        async with asyncio.timeout(60):
            await log.written.wait()
    await trail.flush()
    assert sorted(call for batch in log.batches for call in batch) == ["1", "2", "3", "audit:lose"]


async def test_nobody_waits_for_a_log_that_is_known_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    # With these times a call that waited would wait without end.
    monkeypatch.setattr(audit, "PATIENCE", 1e6)
    monkeypatch.setattr(audit, "RETRY", 1e6)
    log = Log()
    async with running(log) as trail, asyncio.timeout(10):
        log.error = OSError("no space left on device")
        log.open.clear()
        first = trail.decided(entry("1"))
        await log.begun.wait()
        second = asyncio.create_task(trail.durable(trail.decided(entry("2"))))
        await asyncio.sleep(0)
        log.open.set()
        await trail.durable(first)
        await second
        await trail.durable(trail.decided(entry("3")))
        await trail.refused(entry("4"))
        assert trail.waiting == 4
        log.error = None
    await trail.flush()
    assert [call for batch in log.batches for call in batch] == ["1", "2", "3", "4"]


async def test_a_strict_log_refuses_what_it_cant_record() -> None:
    log = Log()
    log.error = OSError("no space left on device")
    async with running(log, strict=True) as trail:
        with pytest.raises(AuditUnavailable):
            await trail.durable(trail.decided(entry("1")))


async def test_a_log_that_hangs_holds_an_answer_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PATIENCE", 0.01)
    log = Log()
    log.open.clear()
    async with running(log) as trail:
        await trail.durable(trail.decided(entry("1")))
        await trail.refused(entry("2"))
    log.open.set()
    await trail.flush()
    assert log.batches == [["1"], ["2"]]
