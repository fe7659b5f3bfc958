"""Statements and envelopes are what others' readers take them for, and say what was decided about a change."""

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope as OtherEnvelope
from securesystemslib.signer import SSlibKey

from chimera.delivery.evidence.envelope import Envelope, open_envelope, read, seal
from chimera.delivery.evidence.errors import ForgedEvidence, NoEvidence
from chimera.delivery.evidence.statement import statement
from chimera.delivery.model import Approval, Change, ChangeItem, Emergency, Verdict, content_of
from chimera.testing.definitions import compiled

AGENT = compiled("anna", specification={"framework": "function", "runtime": "team/agent@sha256:" + "d" * 64})
ITEM = ChangeItem(agent="anna", revision=AGENT.digest, before="sha256:" + "0" * 64, file="anna.yaml", source="e" * 64)
CONTENT = content_of([ITEM])


class Key:
    """An Ed25519 key in memory."""

    def __init__(self, key_id: str = "one") -> None:
        self.key_id = key_id
        self._key = Ed25519PrivateKey.generate()
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def check(key: bytes, signature: bytes, message: bytes) -> bool:
    from chimera.adapters.signing.ed25519 import check_signature

    return check_signature(key, signature, message)


def change(**more: Any) -> Change:
    verdicts = (
        Verdict(stage="build", check="secrets", outcome="passed", detail="none", at=5.0),
        Verdict(stage="build", check="tests", outcome="passed", agent="anna", evidence={"cases": 3}, at=6.0),
        Verdict(stage="build", check="tests", outcome="passed", agent="bert", at=6.0),
    )
    approvals = (
        Approval(by="user:b", person="user:b", decision="approved", content=CONTENT, at=7.0, roles=("approver",)),
        Approval(by="user:c", person="user:c", decision="approved", content="sha256:old", at=6.5),
    )
    kept: dict[str, Any] = {
        **{"id": "chg-1", "tenant": "default", "title": "Anna", "author": "key:a", "author_person": "user:a"},
        **{"items": (ITEM,), "content": CONTENT, "risk": "low", "state": "staging", "verdicts": verdicts},
        **{"created": 1.0, "updated": 2.0, "since": 2.0, "approvals": approvals, "origin": "git"},
        **{"commit": "a" * 40, "repository": "https://git.example/agents", **more},
    }
    return Change(**kept)


def made(**more: Any) -> bytes:
    return statement(change(**more), ITEM, AGENT, bom="f" * 64, release="0.1.0", at=9.0)


def test_in_totos_own_types_take_the_statement_and_the_predicate() -> None:
    found = json.loads(made())
    predicate = found["predicate"]
    parsed = json_format.ParseDict(predicate, provenance_pb2.Provenance())
    assert parsed.build_definition.resolved_dependencies[0].digest["gitCommit"] == "a" * 40
    other = json_format.ParseDict(found, Statement([], found["predicateType"], predicate).pb)
    assert other.subject[-1].digest["sha256"] == AGENT.digest.removeprefix("sha256:")
    taken = Statement([], found["predicateType"], predicate)
    taken.pb.CopyFrom(other)
    taken.validate()


def test_every_resource_has_an_address_or_a_digest() -> None:
    """In-toto: a ResourceDescriptor must specify one of `uri`, `digest` and `content`; a name alone is none."""
    found = json.loads(made(emergency=Emergency(by="user:d", person="user:d", reason="now", at=8.0, review_due=9.0)))
    predicate = found["predicate"]
    products = predicate["runDetails"]["byproducts"]
    resources = [*found["subject"], *predicate["buildDefinition"]["resolvedDependencies"], *products]
    assert len(products) >= 5 and all(one.get("uri") or one.get("digest") for one in resources)
    for one in products[1:]:
        said = json.dumps(one["annotations"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert one["digest"] == {"sha256": hashlib.sha256(said.encode()).hexdigest()}


def test_it_says_what_went_in_what_was_found_and_who_said_yes_to_this_content() -> None:
    predicate = json.loads(made())["predicate"]
    dependencies = {one["name"]: one["digest"] for one in predicate["buildDefinition"]["resolvedDependencies"]}
    assert dependencies == {
        "commit": {"gitCommit": "a" * 40},
        "definition": {"sha256": "e" * 64},
        "image": {"sha256": "d" * 64},
    }
    products = {one["name"]: one for one in predicate["runDetails"]["byproducts"]}
    assert set(products) == {"sbom", "verdict/build/secrets", "verdict/build/tests", "approval/user:b"}
    assert products["sbom"]["digest"] == {"sha256": "f" * 64}
    assert products["verdict/build/tests"]["annotations"]["evidence"] == {"cases": 3}, "another agent's is left out"
    assert predicate["runDetails"]["metadata"]["startedOn"] == "1970-01-01T00:00:01Z"
    pushed = Emergency(by="user:d", person="user:d", reason="outage", at=3.0, review_due=9.0)
    products = json.loads(made(emergency=pushed))["predicate"]["runDetails"]["byproducts"]
    assert products[-1]["name"] == "emergency/user:d"


def test_another_reader_of_dsse_takes_the_signature() -> None:
    key = Key()
    envelope = seal(made(), key)
    shown = {
        "payload": envelope.payload,
        "payloadType": envelope.payload_type,
        "signatures": [{"keyid": one.keyid, "sig": one.sig} for one in envelope.signatures],
    }
    public = SSlibKey("one", "ed25519", "ed25519", {"public": key.public.hex()})
    assert OtherEnvelope.from_dict(shown).verify([public], 1)
    assert open_envelope(envelope, {"one": key.public}, check)["subject"][0]["name"] == "default/anna"


def test_a_ring_of_keys_opens_what_any_of_them_signed_and_nothing_else() -> None:
    old, new, stranger = Key("old"), Key("new"), Key("new")
    ring = {"old": old.public, "new": new.public}
    for key in (old, new):
        assert open_envelope(seal(made(), key), ring, check)
    with pytest.raises(ForgedEvidence):
        open_envelope(seal(made(), stranger), ring, check)
    with pytest.raises(ForgedEvidence):
        open_envelope(seal(made(), old), {"new": new.public}, check)
    with pytest.raises(ForgedEvidence):
        unsigned = seal(made(), old)
        open_envelope(
            Envelope(payload=unsigned.payload, payload_type=unsigned.payload_type, signatures=()), ring, check
        )


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"\xff", b'{"payload": 1}', b"[" * 100_000])
def test_what_is_no_envelope_says_so(text: bytes) -> None:
    with pytest.raises(NoEvidence):
        read(text)


def test_something_else_that_is_signed_is_no_provenance() -> None:
    key = Key()
    with pytest.raises(NoEvidence):
        open_envelope(seal(b'{"_type": "other"}', key), {"one": key.public}, check)
    with pytest.raises(NoEvidence):
        open_envelope(seal(b"no JSON", key), {"one": key.public}, check)
    other = seal(made(), key)
    renamed = Envelope(payload=other.payload, payload_type="text/plain", signatures=other.signatures)
    with pytest.raises(NoEvidence):
        open_envelope(renamed, {"one": key.public}, check)
    with pytest.raises(NoEvidence):
        spaced = Envelope(payload=other.payload + "\n", payload_type=other.payload_type, signatures=other.signatures)
        open_envelope(spaced, {"one": key.public}, check)
    assert base64.b64decode(other.payload) == made()
