"""What JAEGIS says decides an automatic approval, and what was decided is signed, on both databases."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, select

from chimera.adapters.signing.ed25519 import check_signature
from chimera.adapters.signing.ring import KEY, PUBLIC_KEYS, FileRing, SecretRing
from chimera.adapters.storage.schema.catalogue import revision
from chimera.adapters.storage.schema.evidence import evidence as table
from chimera.agents.archive import ArchivedFile
from chimera.agents.bundle import pack_files
from chimera.agents.compile import CompiledAgent, compile_definition
from chimera.agents.validate import check_data
from chimera.bootstrap.evidence_parts import make_evidence
from chimera.delivery.evidence.envelope import open_envelope
from chimera.delivery.evidence.errors import EvidenceKeyUnusable, EvidenceMissing
from chimera.delivery.evidence.service import BillCheck, Evidence
from chimera.jaegis.reviewing import EcosystemCheck, EcosystemReviewer, QualityReviewer
from chimera.jaegis.service import Jaegis
from chimera.testing.definitions import compiled, definition
from tests.contract.changes.conftest import TENANT, Delivery, better
from tests.unit.jaegis.conftest import GOOD


@pytest.fixture
def evidence(delivery: Delivery, tmp_path: Path) -> Evidence:
    models = {"default": {"provider": "openai", "model": "gpt-x"}}
    made = make_evidence(delivery.database, delivery.catalogue, home=str(tmp_path), models=models, clock=delivery.clock)
    jaegis = Jaegis(delivery.catalogue, delivery.clock)
    delivery.parts.checks = [BillCheck(made, delivery.clock), EcosystemCheck(jaegis, delivery.clock)]
    delivery.parts.reviewers = [QualityReviewer(jaegis, delivery.clock), EcosystemReviewer(jaegis, delivery.clock)]
    return made


async def said(evidence: Evidence, agent: CompiledAgent, ring: FileRing) -> dict[str, Any]:
    envelope = await evidence.provenance(TENANT, agent.digest)
    return open_envelope(envelope, ring.public(), check_signature)


def products(statement: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one for one in statement["predicate"]["runDetails"]["byproducts"]}


async def test_a_good_change_of_low_risk_goes_without_a_person_and_its_reasons_are_signed(
    delivery: Delivery, evidence: Evidence, tmp_path: Path
) -> None:
    old = compiled("invoice-auditor", **{**GOOD, "metadata": {**GOOD["metadata"], "tags": ["domain:finance"]}})
    await delivery.apply(old)
    new = compiled("invoice-auditor", **GOOD)
    change = await delivery.open(new)
    assert change.risk == "low"
    await delivery.settle()
    done = await delivery.now(change)
    assert done.state == "done", done.reason
    assert await delivery.live("invoice-auditor") == new.digest
    assert {(one.check, one.outcome) for one in done.verdicts} >= {
        ("bill-of-materials", "passed"),
        ("ecosystem", "passed"),
        ("quality", "passed"),
    }
    await evidence.look()
    statement = await said(evidence, new, FileRing(tmp_path))
    found = products(statement)
    assert found["verdict/approval/quality"]["annotations"]["evidence"]["score"] == 100.0
    assert statement["predicate"]["runDetails"]["metadata"]["invocationId"] == f"{change.id}#{done.version}"
    bill = await evidence.bill(new)
    assert found["sbom"]["digest"]["sha256"] == hashlib.sha256(bill).hexdigest()
    assert next(one for one in json.loads(bill)["components"] if one["bom-ref"] == "model")["name"] == "gpt-x"


async def test_what_is_not_good_enough_waits_for_a_person_whose_word_is_signed_anew(
    delivery: Delivery, evidence: Evidence, tmp_path: Path
) -> None:
    await delivery.apply(compiled("anna", budget={"tokens_per_day": 1_000}))
    new = better("anna")
    change = await delivery.open(new)
    await delivery.settle()
    waiting = await delivery.now(change)
    assert waiting.state == "awaiting-approval"
    assert [one.outcome for one in waiting.verdicts if one.check == "quality" and one.agent == "anna"] == ["failed"]
    await evidence.look()
    ring = FileRing(tmp_path)
    assert not [name for name in products(await said(evidence, new, ring)) if name.startswith("approval/")]
    await delivery.approve(waiting)
    await delivery.settle()
    await evidence.look()
    assert [name for name in products(await said(evidence, new, ring)) if name.startswith("approval/")] == [
        "approval/user:https://idp.example|ben"
    ]


async def test_what_can_not_work_fails_the_build(delivery: Delivery, evidence: Evidence) -> None:
    change = await delivery.open(compiled("leader", tools=[{"type": "agent", "name": "ask", "agent": "nobody"}]))
    await delivery.settle()
    failed = await delivery.now(change)
    assert failed.state == "failed"
    assert any("nobody" in one.detail for one in failed.verdicts if one.check == "ecosystem" and one.agent == "leader")
    await evidence.look()
    with pytest.raises(EvidenceMissing):
        await evidence.provenance(TENANT, str(change.items[0].revision))


async def test_looks_that_find_nothing_new_sign_nothing(delivery: Delivery, evidence: Evidence, tmp_path: Path) -> None:
    change = await delivery.open(better("anna"))
    await delivery.settle()
    await evidence.look()
    first = await evidence.provenance(TENANT, str(change.items[0].revision))
    delivery.clock.advance(100)
    assert not await evidence.look()
    assert await evidence.provenance(TENANT, str(change.items[0].revision)) == first


async def test_more_changes_than_one_look_takes_are_signed_by_the_next(
    delivery: Delivery, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chimera.delivery.evidence.service.AT_ONCE", 2)
    changes = [await delivery.open(better(f"agent-{number}")) for number in range(3)]
    await delivery.settle()
    assert await evidence.look()
    while await evidence.look():
        pass
    for change in changes:
        assert await evidence.provenance(TENANT, str(change.items[0].revision))


async def test_a_revision_takes_what_is_said_of_it_along(delivery: Delivery, evidence: Evidence) -> None:
    change = await delivery.open(better("anna"))
    await delivery.settle()
    await evidence.look()
    digest = str(change.items[0].revision)
    rows = select(func.count()).select_from(table).where(table.c.revision == digest)
    assert await delivery.database.read(lambda connection: connection.execute(rows).scalar()) == 2
    gone = delete(revision).where(revision.c.digest == digest)
    await delivery.database.write(lambda connection: connection.execute(gone))
    assert await delivery.database.read(lambda connection: connection.execute(rows).scalar()) == 0
    delivery.clock.advance(1)
    evidence._since = 0.0
    assert not await evidence.look(), "a change whose revisions are gone is passed over"


async def test_the_requirements_of_a_bundle_are_in_the_bill(delivery: Delivery, evidence: Evidence) -> None:
    lock = b"own-package==1.0 --hash=sha256:" + b"a" * 64 + b"\n"
    files = {"requirements.txt": lock, "agent.py": b"def make(context): ...\n"}
    packed = pack_files({name: ArchivedFile(data=data, executable=False) for name, data in files.items()}, name="code")
    await delivery.catalogue.put_bundle(TENANT, packed.digest, packed.data, packed.requirements)
    source = {"framework": "function", "source": "code", "entrypoint": "agent:make"}
    agent = compile_definition(
        check_data(definition("coder", specification=source)), tenant=TENANT, bundle=packed.bundle
    )
    names = {one["name"] for one in json.loads(await evidence.bill(agent))["components"]}
    assert {"own-package", "requirements.txt", "source folder", "function.lock", "aiohttp"} <= names


async def test_keys_are_turned_and_older_statements_stay_good(
    delivery: Delivery, evidence: Evidence, tmp_path: Path
) -> None:
    ring = FileRing(tmp_path)
    first, second = better("anna"), better("bert")
    await delivery.open(first)
    await delivery.settle()
    await evidence.look()
    made = await asyncio.to_thread(ring.rotate)
    await delivery.open(second)
    await delivery.settle()
    await evidence.look()
    assert (await said(evidence, first, ring))["subject"] and (await said(evidence, second, ring))["subject"]
    signed = [(await evidence.provenance(TENANT, one.digest)).signatures[0].keyid for one in (first, second)]
    assert signed[1] == made and evidence.keys() == signed
    assert (tmp_path / KEY).stat().st_mode & 0o777 == 0o600


async def test_a_home_that_lost_its_key_makes_no_other_by_itself(
    delivery: Delivery, evidence: Evidence, tmp_path: Path
) -> None:
    await evidence.look()
    assert (tmp_path / PUBLIC_KEYS).exists()
    (tmp_path / KEY).unlink()
    with pytest.raises(EvidenceKeyUnusable):
        await evidence.look()


async def test_control_planes_that_share_a_secret_sign_by_one_key(delivery: Delivery, tmp_path: Path) -> None:
    secret = tmp_path / "provenance.key"
    secret.write_text("k" * 44 + "\n")
    change = await delivery.open(better("anna"))
    await delivery.settle()
    one, other = (
        make_evidence(delivery.database, delivery.catalogue, key_file=str(secret), clock=delivery.clock)
        for _ in range(2)
    )
    await one.look()
    envelope = await other.provenance(TENANT, str(change.items[0].revision))
    assert open_envelope(envelope, SecretRing(secret).public(), check_signature)
    assert other.keys() == [envelope.signatures[0].keyid]
    secret.write_text("other" * 10)
    assert other.keys() != [envelope.signatures[0].keyid]
    secret.write_text("short")
    with pytest.raises(EvidenceKeyUnusable):
        await one.look()
    with pytest.raises(EvidenceKeyUnusable):
        SecretRing(tmp_path / "absent").signer()


async def test_without_a_home_nothing_is_signed(delivery: Delivery) -> None:
    nowhere = make_evidence(delivery.database, delivery.catalogue, clock=delivery.clock)
    await delivery.open(better("anna"))
    await delivery.settle()
    assert not await nowhere.look() and nowhere.keys() == []
