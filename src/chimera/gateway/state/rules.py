"""The rules of sessions and runs, pure: what a version looks like outside, when something ends, who goes on with a run.

A run is taken by whoever asks for it while nobody works on it. Whether somebody does is not a matter of time but of
life: the gateway that holds it says so, for all its runs at once, by one row that it renews (`run_holder`). A gateway
that was silent for too long holds nothing; if it only slept, what it writes afterwards carries an older attempt and is
refused.
"""

import hashlib
import re
from typing import assert_never

import msgspec
from msgspec import Struct

from chimera.gateway.errors import InvalidRequest
from chimera.gateway.state.model import RunRequest, StoredRun, StoredSession
from chimera_host.contract.call import Message, SessionState

SESSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
RUN_KEY = re.compile(r"[\x21-\x7e]{1,255}")
MAX_SUBJECT = 200
MESSAGE = "message"
"""The kind of a step whose output is a message of the conversation."""

_DETERMINISTIC = msgspec.json.Encoder(order="deterministic")


# -- sessions --------------------------------------------------------------------------------------------------------


def check_session_id(session: str) -> None:
    """Raise `InvalidRequest` for what can't name a session."""
    if SESSION_ID.fullmatch(session) is None:
        raise InvalidRequest(
            f"{session[:200]!r} is no session id",
            next_step="use 1 to 128 letters, digits and . _ : - and begin with a letter or digit",
        )


def check_subject(subject: str | None) -> None:
    """Raise `InvalidRequest` for what can't name a person."""
    if subject is not None and not (0 < len(subject) <= MAX_SUBJECT and subject.isprintable()):
        raise InvalidRequest(
            "`subject` names a person by 1 to 200 printable characters", next_step="use the person's id in your system"
        )


def expiry(updated: float, ttl: float | None, default: float) -> float | None:
    """When what was saved at `updated` ends; None: never. A `ttl` or default of 0 means never."""
    life = default if ttl is None else ttl
    return updated + life if life > 0 else None


def is_over(expires: float | None, now: float) -> bool:
    """Whether it has ended."""
    return expires is not None and expires <= now


def etag(session: StoredSession) -> str:
    """The session's entity tag (RFC 9110, 8.8.3): its version, and which of those that had its name it is."""
    return f'"{session.version}-{session.incarnation}"'


def matches(header: str, session: StoredSession | None) -> bool:
    """Whether `If-Match` or `If-None-Match` with this value matches (RFC 9110, 13.1.1; weak tags never do)."""
    if session is None:
        return False
    tags = [tag.strip() for tag in header.split(",")]
    return "*" in tags or etag(session) in tags


def merged(target: object, patch: object) -> object:
    """JSON Merge Patch (RFC 7396): objects are merged, None removes, all else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


# -- runs ------------------------------------------------------------------------------------------------------------


def run_id(tenant: str, agent: str, actor: str, key: str) -> str:
    """The run that `actor` means by an Idempotency-Key: one caller's keys say nothing about another's.

    It is a digest, so that a key, which may hold anything, is kept nowhere.
    """
    if RUN_KEY.fullmatch(key) is None:
        raise InvalidRequest(
            "the Idempotency-Key is not valid", next_step="use 1 to 255 visible ASCII characters, such as a UUID"
        )
    text = "\0".join((tenant, agent, actor, key))
    return "run_" + hashlib.sha256(b"chimera-run\0" + text.encode()).hexdigest()[:40]


def request_digest(request: RunRequest) -> bytes:
    """What two requests with one key must have in common."""
    return hashlib.sha256(_DETERMINISTIC.encode(request)).digest()


def content_digest(*parts: bytes) -> bytes:
    """The digest of `parts`, each with its length, so that no two lists of parts have the same."""
    made = hashlib.sha256()
    for part in parts:
        made.update(len(part).to_bytes(8, "big") + part)
    return made.digest()


class Begin(Struct, frozen=True, kw_only=True):
    """There is no such run yet, or no more: begin it."""


class GoOn(Struct, frozen=True, kw_only=True):
    """Go on with it as its `attempt`; with `afresh` its steps are dropped first."""

    attempt: int
    afresh: bool = False


class Replay(Struct, frozen=True, kw_only=True):
    """It is finished: give its answer again."""


class Busy(Struct, frozen=True, kw_only=True):
    """Somebody works on it."""


class Reused(Struct, frozen=True, kw_only=True):
    """It was asked for with another request."""


Verdict = Begin | GoOn | Replay | Busy | Reused


def decide(found: StoredRun | None, *, digest: bytes, base: int, held: bool, now: float) -> Verdict:
    """What becomes of a request for a run.

    Args:
        found: The run as stored.
        digest: Of the request that asks for it.
        base: The session's version now. Steps that were made on another version don't fit to it and are dropped.
        held: Whether a gateway that lives works on it.
        now: Seconds since the epoch.
    """
    if found is None or found.expires <= now:
        return Begin()
    if found.digest != digest:
        return Reused()
    if found.status == "finished":
        return Replay()
    if held:
        return Busy()
    return GoOn(attempt=found.attempt + 1, afresh=found.base != base)


def folded(state: SessionState, request: RunRequest, steps: list[tuple[str, bytes]]) -> SessionState | None:
    """The conversation with what an unfinished run had finished of it, where the caller goes on with something else.

    `steps` are kinds and outputs in their order. What was asked comes first, so that the finished messages have what
    they answer. None where no message was finished: then nothing has been said.
    """
    said = [msgspec.json.decode(output, type=Message) for kind, output in steps if kind == MESSAGE]
    if not said:
        return None
    return SessionState(messages=(*state.messages, *request.messages, *said), values=state.values)


def outcome_of(verdict: Verdict) -> str:
    """A verdict's name in metrics."""
    match verdict:
        case Begin():
            return "begun"
        case GoOn(afresh=afresh):
            return "afresh" if afresh else "resumed"
        case Replay():
            return "replayed"
        case Busy():
            return "busy"
        case Reused():
            return "reused"
        case _:
            assert_never(verdict)
