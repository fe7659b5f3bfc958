"""When checkpoints are made and copied, and what two processes that make them do to each other; on both databases."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from chimera.adapters.signing.ed25519 import Ed25519Signer, check_signature
from chimera.adapters.signing.files import FileOfCheckpoints
from chimera.adapters.storage.leases import LeaseLost, StoredLeases
from chimera.immune.audit.checkpointer import Checkpointer, sign_while_held
from chimera.immune.audit.errors import UntrustedCheckpoint
from chimera.immune.audit.settings import AuditSettings
from chimera.testing.audit import AuditLog


def checkpointer(log: AuditLog, *files: Path, **settings: object) -> Checkpointer:
    return Checkpointer(
        log.store,
        files=[FileOfCheckpoints(file) for file in files] or [log.file],
        keys=(log.signer.public,),
        checker=check_signature,
        signer=log.signer,
        archive=log.archive,
        clock=log.clock,
        settings=AuditSettings(**settings),  # type: ignore[arg-type]
    )


async def sizes(log: AuditLog) -> list[int]:
    return [one.size for one in await log.store.checkpoints(0, 100)]


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(2_000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that in twenty seconds")


async def test_a_checkpoint_is_due_after_so_many_entries_or_so_long(audit_log: AuditLog) -> None:
    making = checkpointer(audit_log, checkpoint_entries=20, checkpoint_seconds=60.0)
    await making.step(None)
    assert await sizes(audit_log) == [], "there is nothing to sign"
    await audit_log.write(5)
    await making.step(None)
    audit_log.clock.advance(59.0)
    await making.step(None)
    assert await sizes(audit_log) == []
    audit_log.clock.advance(1.0)
    await making.step(None)
    assert await sizes(audit_log) == [5]
    audit_log.clock.advance(3600.0)
    await making.step(None)
    assert await sizes(audit_log) == [5], "nothing was added"
    await audit_log.write(20)
    await making.step(None)
    assert await sizes(audit_log) == [5, 25]


async def test_a_file_that_lacks_checkpoints_gets_them(audit_log: AuditLog, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    await audit_log.write(5)
    await checkpointer(audit_log, first).step(None, now_at_once=True)
    await audit_log.write(5)
    both = checkpointer(audit_log, first, second)
    await both.load()
    await both.step(None, now_at_once=True)
    for file in (first, second):
        assert {one.size for one in FileOfCheckpoints(file).read()} == {5, 10}
    await both.step(None, now_at_once=True)
    assert len(list(FileOfCheckpoints(second).read())) == 2, "what is there is not written again"


async def test_two_that_make_checkpoints_at_once_make_one_log(audit_log: AuditLog, tmp_path: Path) -> None:
    makers = [checkpointer(audit_log, tmp_path / str(number)) for number in range(2)]
    for _ in range(5):
        await audit_log.write(3)
        await asyncio.gather(*(one.step(None, now_at_once=True) for one in makers))
    assert await sizes(audit_log) == [3, 6, 9, 12, 15]
    report = await audit_log.verify(file=False)
    assert (report.ok, report.signed_through) == (True, 15)


async def test_who_has_lost_the_lease_keeps_no_checkpoint(audit_log: AuditLog) -> None:
    leases = StoredLeases(audit_log.database)
    lease = await leases.acquire("audit-checkpoints", "me", 60.0)
    assert lease is not None
    await leases.release(lease)
    assert await leases.acquire("audit-checkpoints", "another", 60.0) is not None
    await audit_log.write(3)
    with pytest.raises(LeaseLost):
        await checkpointer(audit_log).step(lease, now_at_once=True)
    assert await sizes(audit_log) == []


async def test_who_has_another_key_leaves_the_log_to_who_has_its_own(audit_log: AuditLog) -> None:
    await audit_log.write(5)
    await audit_log.sign()
    other = Ed25519Signer("other.example/audit", bytes(32))
    stranger = Checkpointer(
        audit_log.store,
        files=(),
        keys=(other.public,),
        checker=check_signature,
        signer=other,
        archive=audit_log.archive,
        clock=audit_log.clock,
        settings=AuditSettings(checkpoint_entries=1),
    )
    leases = StoredLeases(audit_log.database)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(sign_while_held(stranger, leases, "stranger", 0.3))
        await until(lambda: stranger.progress.problem is not None)
        await audit_log.write(5)
        own = checkpointer(audit_log, checkpoint_entries=1)
        second = group.create_task(sign_while_held(own, leases, "own", 0.3))
        await until(lambda: own.progress.made > 0)
        first.cancel()
        second.cancel()
    assert await sizes(audit_log) == [5, 10]
    assert stranger.progress.made == 0


async def test_who_signs_with_another_key_signs_nothing_over_the_logs(signed: AuditLog) -> None:
    stranger = Ed25519Signer("log.example/audit", bytes(32))
    making = Checkpointer(
        signed.store,
        files=(),
        keys=(stranger.public,),
        checker=check_signature,
        signer=stranger,
        archive=signed.archive,
        clock=signed.clock,
        settings=AuditSettings(),
    )
    with pytest.raises(UntrustedCheckpoint):
        await making.step(None, now_at_once=True)
    assert await sizes(signed) == [10, 20, 30]
