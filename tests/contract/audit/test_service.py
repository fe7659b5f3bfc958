"""Lists, exports, proofs and checkpoints signed elsewhere, on both databases."""

import msgspec
import pytest

from chimera.adapters.signing.ed25519 import Ed25519Signer, check_signature
from chimera.immune.audit import checkpoint as checkpoints
from chimera.immune.audit import service as services
from chimera.immune.audit.chain import link
from chimera.immune.audit.checkpoint import Checkpoint, head_of, parse_text
from chimera.immune.audit.errors import AuditEntryNotFound, UntrustedCheckpoint
from chimera.immune.audit.merkle import Frontier, is_consistent, root_of_inclusion
from chimera.immune.audit.model import decode
from chimera.immune.audit.note import sign
from chimera.immune.audit.service import AuditService, Wanted
from chimera.testing.audit import AuditLog


@pytest.fixture
def service(signed: AuditLog) -> AuditService:
    return AuditService(signed.store, (signed.signer.public,), check_signature)


async def listed(service: AuditService, tenant: str | None, wanted: Wanted, limit: int = 7) -> list[int]:
    found, before = [], None
    while True:
        page = await service.page(tenant, wanted, before, limit)
        assert len(page.entries) <= limit
        found += [one.seq for one in page.entries]
        if page.next is None:
            return found
        before = page.next


async def test_a_list_is_narrowed_and_paged(service: AuditService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "SCAN", 9)
    assert await listed(service, None, Wanted()) == list(range(40, 0, -1))
    assert await listed(service, "other", Wanted()) == list(range(39, 0, -3))
    assert await listed(service, None, Wanted(actor="key:2")) == list(range(37, 0, -5))
    assert await listed(service, None, Wanted(resource="agents/a1", since=1_000_010.0)) == [36, 29, 22, 15]
    assert await listed(service, None, Wanted(resource="agents")) == list(range(40, 0, -1))
    assert await listed(service, None, Wanted(resource="agent")) == []
    assert await listed(service, None, Wanted(call="call_5", decision="allow")) == [5]
    assert await listed(service, "nobody", Wanted()) == []


async def test_an_export_has_every_entry_of_a_tenant_in_order(service: AuditService) -> None:
    pages = [page async for page in service.export("other", 3, None)]
    entries = [one for page in pages for one in page]
    assert [one.seq for one in entries] == list(range(6, 40, 3))
    assert all(one.columns is None and decode(one.entry).tenant == "other" for one in entries)
    assert [one.seq async for page in service.export(None, 0, 5) for one in page] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("seq", [1, 2, 10, 11, 19, 25, 30])
async def test_an_entry_is_proved_against_a_signed_root(service: AuditService, signed: AuditLog, seq: int) -> None:
    proof = await service.proof(None, seq)
    head = checkpoints.check(proof.checkpoint, (signed.signer.public,), check_signature)
    made = link(proof.previous, proof.entry.seq, bytes(proof.entry.entry))
    assert made == proof.entry.hash
    assert root_of_inclusion(seq - 1, head.size, made, proof.hashes) == head.root


async def test_what_is_not_there_or_of_another_tenant_is_not_proved(service: AuditService) -> None:
    for tenant, seq in ((None, 35), (None, 41), (None, 0), ("other", 1)):
        with pytest.raises(AuditEntryNotFound):
            await service.proof(tenant, seq)
    assert (await service.proof("other", 3)).entry.seq == 3


def signed_elsewhere(signer: Ed25519Signer, proposal: services.Proposal) -> Checkpoint:
    return Checkpoint(
        size=proposal.size,
        at=1.0,
        last=proposal.last,
        frontier=proposal.frontier,
        note=sign(proposal.text, signer),
    )


async def test_a_checkpoint_is_signed_on_another_machine(service: AuditService, signed: AuditLog) -> None:
    proposal = await service.proposal(None)
    assert proposal is not None
    assert (proposal.since, proposal.size) == (30, 40)
    old = await signed.store.last_checkpoint()
    assert old is not None
    new_root = parse_text(proposal.text).root
    assert is_consistent(30, 40, head_of(old).root, new_root, proposal.proof)
    assert Frontier(40, proposal.frontier).root() == new_root
    await service.add(signed_elsewhere(signed.signer, proposal))
    assert (await signed.verify()).signed_through == 40
    assert await service.proposal(None) is None
    again = await service.proposal(20)
    assert again is not None
    assert (again.since, again.size) == (20, 40)
    with pytest.raises(AuditEntryNotFound, match="no checkpoint of 15 entries"):
        await service.proposal(15)


async def test_a_checkpoint_of_another_key_or_another_log_is_refused(service: AuditService, signed: AuditLog) -> None:
    proposal = await service.proposal(None)
    assert proposal is not None
    with pytest.raises(UntrustedCheckpoint, match="not signed by"):
        await service.add(signed_elsewhere(Ed25519Signer("log.example/audit", bytes(32)), proposal))
    other = Frontier()
    for number in range(40):
        other.append(bytes([number]))
    text = checkpoints.text_of(checkpoints.TreeHead(origin="log.example/audit", size=40, root=other.root()))
    forged = msgspec.structs.replace(proposal, text=text, frontier=tuple(other.hashes))
    with pytest.raises(UntrustedCheckpoint, match="of another log"):
        await service.add(signed_elsewhere(signed.signer, forged))
    assert await signed.store.checkpoints(30, 10) == []
