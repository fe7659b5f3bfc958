"""Whatever is done to the log behind its back, a verification finds it and says where; one test for each kind."""

import pytest

from chimera.adapters.signing.ed25519 import Ed25519Signer
from chimera.immune.audit.errors import AuditAltered, UntrustedCheckpoint
from chimera.testing.audit import AuditLog, record

REPLACE = "UPDATE audit_entry SET entry = (SELECT entry FROM audit_entry WHERE seq = :other) WHERE seq = :seq"


async def test_a_log_that_nobody_touched_holds(signed: AuditLog) -> None:
    report = await signed.verify()
    assert report.ok
    assert (report.first, report.last, report.checked) == (1, 40, 40)
    assert (report.signed_through, report.checkpoints, report.removed_through) == (30, 3, 0)


async def test_a_log_without_entries_holds(audit_log: AuditLog) -> None:
    report = await audit_log.verify()
    assert (report.ok, report.checked, report.signed_through) == (True, 0, 0)


async def test_an_edited_entry(signed: AuditLog) -> None:
    await signed.sql(REPLACE, seq=17, other=18)
    assert ("altered", 17, None) in await signed.findings()


async def test_an_edited_column_by_which_an_entry_is_found(signed: AuditLog) -> None:
    await signed.sql("UPDATE audit_entry SET tenant = 'elsewhere' WHERE seq = 5")
    assert await signed.findings() == [("altered", 5, None)]


async def test_an_edited_hash(signed: AuditLog) -> None:
    await signed.sql("UPDATE audit_entry SET hash = (SELECT hash FROM audit_entry WHERE seq = 8) WHERE seq = 7")
    assert ("altered", 7, None) in await signed.findings()


async def test_an_edited_entry_whose_link_was_made_anew(signed: AuditLog) -> None:
    await signed.sql(REPLACE, seq=17, other=20)
    await signed.sql(
        "UPDATE audit_entry SET (tenant, at, actor, action) = "
        "(SELECT tenant, at, actor, action FROM audit_entry WHERE seq = 20) WHERE seq = 17"
    )
    await signed.rewrite(17)
    assert await signed.findings() == [("rewritten", 11, 20)]


async def test_a_deleted_entry(signed: AuditLog) -> None:
    await signed.sql("DELETE FROM audit_entry WHERE seq = 13")
    assert await signed.findings() == [("missing", 13, None)]


async def test_entries_deleted_at_the_beginning(signed: AuditLog) -> None:
    await signed.sql("DELETE FROM audit_entry WHERE seq <= 10")
    assert await signed.findings() == [("missing", 1, 10)]


async def test_a_deleted_entry_whose_place_the_next_ones_took(signed: AuditLog) -> None:
    await signed.sql("DELETE FROM audit_entry WHERE seq = 13")
    for seq in range(14, 41):
        await signed.sql("UPDATE audit_entry SET seq = seq - 1 WHERE seq = :seq", seq=seq)
    assert ("altered", 13, None) in await signed.findings()
    await signed.rewrite(13)
    assert await signed.findings() == [("rewritten", 11, 20)]


async def test_exchanged_entries(signed: AuditLog) -> None:
    for old, new in ((21, 1000), (22, 21), (1000, 22)):
        await signed.sql("UPDATE audit_entry SET seq = :new WHERE seq = :old", old=old, new=new)
    assert ("altered", 21, None) in await signed.findings()
    await signed.rewrite(21)
    assert await signed.findings() == [("rewritten", 21, 30)]


async def test_entries_cut_off_at_the_end(signed: AuditLog) -> None:
    await signed.sql("DELETE FROM audit_entry WHERE seq > 36")
    assert await signed.findings() == [("truncated", 37, 40)]


async def test_entries_cut_off_with_their_checkpoints_and_the_head_set_back(signed: AuditLog) -> None:
    await signed.sql("DELETE FROM audit_entry WHERE seq > 25")
    await signed.sql("DELETE FROM audit_checkpoint WHERE size > 25")
    await signed.rewrite(26)
    assert await signed.findings() == [("truncated", 26, 30)]
    # The database alone can't tell: that is what the file is for.
    assert await signed.findings(file=False) == []
    with pytest.raises(AuditAltered, match="30 entries, the database has 25"):
        await signed.sign()


async def test_an_emptied_log(signed: AuditLog) -> None:
    await signed.empty()
    assert await signed.findings() == [("truncated", 1, 30)]


async def test_a_fork(signed: AuditLog) -> None:
    # The database goes back to what it was at 20 entries, and goes on differently, signed by the same key.
    await signed.sql("DELETE FROM audit_entry WHERE seq > 20")
    await signed.sql("DELETE FROM audit_checkpoint WHERE size > 20")
    await signed.rewrite(21)
    forked = AuditLog(signed.database, signed.folder / "elsewhere", written=500)
    await forked.write(10)
    await forked.sign()
    assert await signed.findings(file=False) == []
    assert ("forked", 21, 30) in await signed.findings()


async def test_a_whole_replacement(signed: AuditLog) -> None:
    await signed.empty()
    await signed.store.record([record(number, actor="key:somebody-else") for number in range(1, 41)])
    assert await signed.findings() == [("replaced", 1, 10)]


async def test_a_whole_replacement_signed_by_another_key(signed: AuditLog) -> None:
    await signed.empty()
    forged = AuditLog(signed.database, signed.folder / "elsewhere", written=500)
    forged.signer = Ed25519Signer("log.example/audit", bytes(32))
    forged.checkpointer = forged.signed_by(forged.signer)
    await forged.write(40)
    await forged.sign()
    found = await signed.findings()
    assert ("untrusted", 40, None) in found
    assert ("replaced", 1, 10) in found
    # Without the file, nothing that the log's key has signed is left.
    assert {kind for kind, _, _ in await signed.findings(file=False)} == {"untrusted", "unsigned"}


async def test_a_forged_checkpoint_in_the_database(signed: AuditLog) -> None:
    await signed.sql(
        "UPDATE audit_checkpoint SET document = "
        "(SELECT document FROM audit_checkpoint WHERE size = 10), size = 15 WHERE size = 20"
    )
    report = await signed.verify()
    assert report.ok, "it is the checkpoint of 10 that stands there twice, and the file has that of 20"
    forged = Ed25519Signer("log.example/audit", bytes(32))
    await signed.write(1)
    with pytest.raises(UntrustedCheckpoint, match="not signed by"):
        await signed.signed_by(forged).step(None, now_at_once=True)
        await signed.write(1)
        await signed.signed_by(forged).step(None, now_at_once=True)


async def test_an_altered_head(signed: AuditLog) -> None:
    await signed.set_head(40, bytes(32))
    assert await signed.findings() == [("altered", 40, None)]


async def test_nothing_is_signed_that_was_altered_since_the_last_checkpoint(signed: AuditLog) -> None:
    await signed.sql(REPLACE, seq=35, other=36)
    with pytest.raises(AuditAltered, match="entry 35 of the audit log is not what was linked"):
        await signed.sign()
    assert await signed.store.last_checkpoint() == await signed.store.last_checkpoint(30)


async def test_entries_that_no_checkpoint_vouches_for(audit_log: AuditLog) -> None:
    await audit_log.write(3)
    assert await audit_log.findings() == [("unsigned", 1, 3)]


async def test_a_verification_goes_on_from_a_trusted_checkpoint(signed: AuditLog) -> None:
    await signed.sql(REPLACE, seq=7, other=8)
    report = await signed.verify(trusted=25)
    assert report.ok
    assert (report.first, report.removed_through, report.checked, report.signed_through) == (21, 20, 20, 30)
    await signed.sql(REPLACE, seq=27, other=28)
    assert ("altered", 27, None) in await signed.findings(trusted=25)
    with pytest.raises(UntrustedCheckpoint, match="no signed checkpoint of at most 5"):
        await signed.verify(trusted=5)
