"""What an entry of the audit log says, and the bytes that its hash covers.

An entry's canonical bytes are stored as they were hashed and never encoded again, so a later release that would write
them otherwise still verifies them. Their field `v` is the format's version. Fields with their default are left out:
most entries are decisions on calls, and a fleet makes thousands of them a second.

An entry must never be lost because of what somebody put in it: texts that are too long are cut, and what JSON or a
database can't hold is replaced, rather than refused.
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct

Decision = Literal["allow", "deny", "none"]

EXPIRE = "audit:expire"
"""The action of an entry that says that entries were removed; its detail has `through`, the last of them."""

LONGEST_NAME = 128
"""Most characters of a tenant, an action, an outcome or an id."""
LONGEST_TEXT = 512
"""Most characters of an actor or a resource."""
LARGEST_DETAIL = 4096
"""Most bytes of a detail as JSON; a larger one is replaced by its size."""


class AuditRecord(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="v", tag=1):
    """One entry before it has its place in the chain (`seq` and hash, given when its transaction commits).

    A decision on a call is one entry, what came of it another: they share `call`. A decision without an outcome, after
    a crash or while the call goes on, means that nobody knows what came of it.

    Attributes:
        at: Seconds since the epoch.
        tenant: Whose it is; empty for what concerns the whole platform.
        actor: Who did it: `key:<id>`, `user:<iss>|<sub>`, `agent:<name>`, `host:<id>`, `system:<part>`.
        action: What an operation is called in policies (`agent:invoke`).
        resource: What it was done to, as facts name it (`agents/anna/sessions/s1`).
        decision: That of the policy; `none` where none was asked, as for an outcome.
        outcome: What came of it: `done`, or an error's code; empty for a decision.
        request: Id of the request to the API, where there was one.
        call: Id of the call that it belongs to.
        traceparent: The W3C trace context of the request.
        detail: A few facts; no secrets, nothing of what people and agents said to each other.
    """

    at: float
    tenant: str
    actor: str
    action: str
    resource: str
    decision: Decision = "none"
    outcome: str = ""
    request: str = ""
    call: str = ""
    traceparent: str = ""
    detail: dict[str, Any] = {}


class ChainedEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry in its place: as it is stored, listed, and exported (one JSON object a line).

    `entry` are its canonical bytes, passed on as they are: JSON inside JSON, so that whoever reads an export can hash
    them again. `hash` is its link. `columns` are what the database keeps beside them to search by (tenant, time, actor,
    action), where it is the database that is verified.
    """

    seq: int
    hash: bytes
    entry: msgspec.Raw
    columns: tuple[str, float, str, str] | None = None


class Head(Struct, frozen=True, kw_only=True):
    """The end of the log: how many entries it has had, and the link of the last."""

    seq: int
    hash: bytes


_LIMITS = {
    "tenant": 63,
    "actor": LONGEST_TEXT,
    "action": LONGEST_NAME,
    "resource": LONGEST_TEXT,
    "outcome": LONGEST_NAME,
    "request": LONGEST_NAME,
    "call": LONGEST_NAME,
    "traceparent": LONGEST_NAME,
}
_SMALL = 512
"""An entry of at most so many bytes can hold nothing that is too long, but for a tenant, an action or an id."""

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(AuditRecord)


def canonical(record: AuditRecord) -> tuple[AuditRecord, bytes]:
    """The record as it is kept, and the bytes that are stored and hashed.

    It is the same record unless something of it is too long or can't be stored.
    """
    try:
        encoded = _ENCODER.encode(record)
    except (TypeError, ValueError, OverflowError, RecursionError):  # not JSON: an odd type, half a character
        record = _mended(record)
        encoded = _ENCODER.encode(record)
    if len(encoded) <= _SMALL and _names_fit(record) and b"\\u0000" not in encoded:
        return record, encoded
    mended = _mended(record)
    return mended, _ENCODER.encode(mended)


def decode(entry: bytes | msgspec.Raw) -> AuditRecord:
    """The record of canonical bytes; `msgspec.MsgspecError` for what is none of a known format."""
    return _DECODER.decode(entry)


def _names_fit(record: AuditRecord) -> bool:
    return len(record.tenant) <= 63 and len(record.action) <= LONGEST_NAME and len(record.outcome) <= LONGEST_NAME


def _mended(record: AuditRecord) -> AuditRecord:
    texts = {name: _text(getattr(record, name), limit) for name, limit in _LIMITS.items()}
    return msgspec.structs.replace(record, **texts, detail=_detail(record.detail))


def _text(value: str, limit: int) -> str:
    """At most `limit` characters that UTF-8 and every database can hold."""
    clean = value.replace("\0", "�").encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def _detail(detail: dict[str, Any]) -> dict[str, Any]:
    try:
        encoded = _ENCODER.encode(detail)
        if len(encoded) <= LARGEST_DETAIL and b"\\u0000" not in encoded:
            return detail
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return {"left_out": _text(str(error), LONGEST_NAME)}
    return {"left_out": f"{len(encoded)} bytes"}
