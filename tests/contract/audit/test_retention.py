"""Entries may go behind a signed checkpoint once they are in the archive, and the rest still holds."""

import pytest
from sqlalchemy import Connection

from chimera.adapters.signing.ed25519 import check_signature
from chimera.adapters.signing.files import read_export
from chimera.adapters.storage.audit import expire
from chimera.adapters.storage.leases import StoredLeases
from chimera.immune.audit.checkpoint import Checkpoint
from chimera.immune.audit.model import ChainedEntry
from chimera.immune.audit.verify import Anchors, Verifier
from chimera.kernel.leases import Lease
from chimera.testing.audit import KEEP_DAYS, AuditLog

DAY = 86_400.0
KEEP = KEEP_DAYS * DAY


async def held(log: AuditLog) -> Lease:
    lease = await StoredLeases(log.database).acquire("audit-checkpoints", "me", 60.0)
    assert lease is not None
    return lease


async def removed(log: AuditLog, limit: int) -> int:
    def job(connection: Connection) -> int:
        return expire(connection, log.clock.wall(), limit, keep=KEEP)

    return await log.database.write(job)


async def test_old_entries_go_behind_a_checkpoint_and_the_rest_holds(signed: AuditLog) -> None:
    lease = await held(signed)
    signed.clock.advance(KEEP + DAY)
    await signed.sign()  # forty entries, signed today
    assert await removed(signed, 1000) == 0, "nothing is in the archive yet"
    await signed.checkpointer.archive(lease)
    assert await removed(signed, 7) == 7
    report = await signed.verify()
    assert report.ok
    assert (report.removed_through, report.first) == (10, 11), "what is half removed begins at the next checkpoint"
    assert await removed(signed, 1000) == 23
    assert await removed(signed, 1000) == 0
    report = await signed.verify()
    assert report.ok
    assert (report.removed_through, report.first, report.last) == (30, 31, 42)
    await signed.sign()
    assert (await signed.verify()).signed_through == 42


async def test_the_archive_is_verified_by_itself(signed: AuditLog) -> None:
    signed.clock.advance(KEEP + DAY)
    await signed.checkpointer.archive(await held(signed))
    await signed.checkpointer.archive(await held(signed))
    (segment,) = signed.archive.folder.iterdir()
    assert segment.name == "000000000001-000000000030.jsonl"
    lines = list(read_export(segment))
    entries = [one for one in lines if isinstance(one, ChainedEntry)]
    (checkpoint,) = [one for one in lines if isinstance(one, Checkpoint)]
    anchors = Anchors((signed.signer.public,), check_signature)
    anchors.add(checkpoint, "the archive")
    verifier = Verifier(anchors)
    verifier.feed(entries)
    report = verifier.finish(None)
    assert (report.ok, report.signed_through) == (True, 30)


async def test_entries_removed_without_a_word_are_missed(signed: AuditLog) -> None:
    signed.clock.advance(KEEP + DAY)
    await signed.checkpointer.archive(await held(signed))
    await removed(signed, 1000)
    through = (await signed.verify()).removed_through
    await signed.sign()
    await signed.sql("DELETE FROM audit_entry WHERE seq <= 35")
    assert through == 30
    assert await signed.findings() == [("missing", 1, 41)]


async def test_an_archive_that_lacks_entries_is_not_finished(signed: AuditLog) -> None:
    signed.clock.advance(KEEP + DAY)
    await signed.sql("DELETE FROM audit_entry WHERE seq = 12")
    with pytest.raises(Exception, match="is missing"):
        await signed.checkpointer.archive(await held(signed))
    assert list(signed.archive.folder.iterdir()) == []
    assert await removed(signed, 1000) == 0
