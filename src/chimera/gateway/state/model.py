"""What is kept of sessions and runs, as values."""

from typing import Literal

from msgspec import Struct

from chimera_host.contract.call import Message, SessionState

RunStatus = Literal["open", "finished"]


class SessionKey(Struct, frozen=True, kw_only=True):
    """Where a session is."""

    tenant: str
    agent: str
    session: str


class StoredSession(Struct, frozen=True, kw_only=True):
    """A session as stored.

    `version` grows by one with each save. `incarnation` tells a session from one that had its name before and was
    erased: who still holds that one's version can't write over this one. `ttl` is the session's own time to live in
    seconds, counted from its last save; None: the platform's. Times are seconds since the epoch; `expires` None: never.
    `revision` is the agent's revision that it is on: the one that answered last.
    """

    tenant: str
    agent: str
    session: str
    version: int
    state: SessionState
    updated: float
    created: float = 0.0
    incarnation: str = "0"
    subject: str | None = None
    ttl: float | None = None
    expires: float | None = None
    revision: str | None = None

    @property
    def key(self) -> SessionKey:
        """Where it is."""
        return SessionKey(tenant=self.tenant, agent=self.agent, session=self.session)


class SessionSummary(Struct, frozen=True, kw_only=True):
    """A session in a list: all but its state, which has `size` bytes."""

    tenant: str
    agent: str
    session: str
    version: int
    created: float
    updated: float
    size: int
    subject: str | None = None
    expires: float | None = None


class RunRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked, as far as it decides what is done: two requests with one key must be equal in this."""

    messages: tuple[Message, ...]
    session: str | None = None


class StoredRun(Struct, frozen=True, kw_only=True):
    """A run as stored.

    `digest` is that of its request. `keyed` runs were named by the caller (an Idempotency-Key or a task): their answer
    is kept and given again. `base` is the session's version that it began from. `attempt` is the fencing token: it
    grows whenever somebody begins to work on the run, and every write names it. `holder` is the gateway that works on
    it, empty while nobody does. `revision` is the agent's revision that it began on, and goes on with where it can.
    """

    tenant: str
    run: str
    agent: str
    session: str | None
    subject: str | None
    status: RunStatus
    keyed: bool
    digest: bytes
    request: bytes
    base: int
    attempt: int
    holder: str
    steps: int
    size: int
    created: float
    updated: float
    expires: float
    answer: bytes | None = None
    revision: str | None = None


class NewStep(Struct, frozen=True, kw_only=True):
    """A step to be committed; `digest` is that of its kind and output."""

    step: str
    kind: str
    digest: bytes
    output: bytes


class StoredStep(Struct, frozen=True, kw_only=True):
    """A committed step; `output` is JSON."""

    seq: int
    step: str
    kind: str
    output: bytes


class StoredSpace(Struct, frozen=True, kw_only=True):
    """A space of shared state without its entries; `declared` is what its owner declared, as JSON."""

    tenant: str
    space: str
    owner: str
    declared: bytes
    version: int
    entries: int
    size: int
    created: float
    updated: float
    expires: float | None = None


class SpaceEntry(Struct, frozen=True, kw_only=True):
    """One key of a space; `value` is JSON, `by` who wrote it last."""

    key: str
    version: int
    value: bytes
    by: str
    updated: float
    expires: float | None = None


class SubjectCounts(Struct, frozen=True, kw_only=True):
    """How much is kept of a person, or was erased; `copies` of what they said are replayed in staging."""

    sessions: int = 0
    runs: int = 0
    steps: int = 0
    checkpoints: int = 0
    answers: int = 0
    tasks: int = 0
    copies: int = 0
