"""DSSE: an envelope around a statement, signed so that its kind is signed too (secure-systems-lab/dsse, version 1.0).

What is signed is not the text alone but `DSSEv1`, the kind and the text with their lengths. So a signature on a
statement is one on nothing else that the same key signs.

A key ring is a list of public keys by their ids. An envelope that one of them has signed is good; what an older key
signed stays good as long as its line is there.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta, Struct

from chimera.delivery.evidence.errors import ForgedEvidence, NoEvidence
from chimera.delivery.evidence.statement import PAYLOAD, PREDICATE, STATEMENT

LARGEST = 16 * 1024**2
_MOST_SIGNATURES = 16


class Signature(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One signature: the key's id, and the signature in base64."""

    keyid: Annotated[str, Meta(max_length=300)]
    sig: Annotated[str, Meta(max_length=200)]


class Envelope(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A signed statement; `payload` is base64."""

    payload: str
    payload_type: str = msgspec.field(name="payloadType")
    signatures: tuple[Signature, ...]


class Signing(Protocol):
    """A private key."""

    @property
    def key_id(self) -> str:
        """The name that tells its public key from others."""

    def sign(self, message: bytes) -> bytes:
        """The signature on a message."""


class Checking(Protocol):
    """Whatever can check a signature by a public key."""

    def __call__(self, key: bytes, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is `key`'s on `message`."""


def encoded(kind: str, payload: bytes) -> bytes:
    """What is signed: the pre-authentication encoding."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def seal(statement: bytes, key: Signing) -> Envelope:
    """The envelope of a statement, signed by `key`."""
    signature = key.sign(encoded(PAYLOAD, statement))
    return Envelope(
        payload=base64.b64encode(statement).decode(),
        payload_type=PAYLOAD,
        signatures=(Signature(keyid=key.key_id, sig=base64.b64encode(signature).decode()),),
    )


def read(data: bytes) -> Envelope:
    """An envelope from a file; raises `NoEvidence`."""
    if len(data) > LARGEST:
        raise _none(f"it has {len(data):,} bytes, more than {LARGEST:,}")
    try:
        return msgspec.json.decode(data, type=Envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _none(str(error)) from None


def open_envelope(envelope: Envelope, keys: Mapping[str, bytes], check: Checking) -> dict[str, Any]:
    """The statement of an envelope that one of `keys` has signed.

    Raises `ForgedEvidence` where none has, and `NoEvidence` for what is no envelope of a statement of provenance.
    """
    payload = _bytes(envelope.payload)
    if payload is None or envelope.payload_type != PAYLOAD or len(envelope.signatures) > _MOST_SIGNATURES:
        raise _none(f"its kind is {envelope.payload_type[:100]!r}")
    message = encoded(envelope.payload_type, payload)
    for one in envelope.signatures:
        key, signature = keys.get(one.keyid), _bytes(one.sig)
        if key is not None and signature is not None and check(key, signature, message):
            break
    else:
        named = ", ".join(one.keyid[:80] for one in envelope.signatures) or "nobody"
        raise ForgedEvidence(
            f"no key of the ring has signed this; it says that {named} did",
            next_step="get the platform's keys anew (`chimera provenance keys`); if it stays so, the file was altered",
        )
    try:
        statement = msgspec.json.decode(payload, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _none(str(error)) from None
    if (statement.get("_type"), statement.get("predicateType")) != (STATEMENT, PREDICATE):
        raise _none("it is signed, and no statement of provenance")
    return statement


def _bytes(text: str) -> bytes | None:
    """Base64 in its one way of writing: another text for the same bytes would be an altered file that passes."""
    try:
        found = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
    return found if base64.b64encode(found).decode() == text else None


def _none(why: str) -> NoEvidence:
    return NoEvidence(f"this is no provenance: {why}", next_step="give a file as `chimera provenance show` writes it")
