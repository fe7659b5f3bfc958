"""Where state is kept, as the gateway needs it. Every method is one transaction, and may raise `StorageError` too.

`by` names who does it (`chimera.gateway.identity.principal.Principal.actor`); changes are told as facts in the same
transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from chimera.gateway.state.model import (
    NewStep,
    SessionKey,
    SessionSummary,
    SpaceEntry,
    StoredRun,
    StoredSession,
    StoredSpace,
    StoredStep,
    SubjectCounts,
)
from chimera.gateway.state.rules import Verdict
from chimera_host.contract.state import CheckpointAnswer, CheckpointAsk, SharedWrite

Record: TypeAlias = dict[str, Any]
"""A thing as JSON can hold it; `record` says of which kind it is."""


class SessionFilter(Struct, frozen=True, kw_only=True):
    """Which sessions to list; `after` is (agent, session) of the last one before."""

    tenant: str
    agent: str | None = None
    subject: str | None = None
    updated_before: float | None = None
    after: tuple[str, str] = ("", "")
    limit: int = 100


class SessionStore(Protocol):
    """Conversation state, versioned."""

    async def load_session(self, tenant: str, agent: str, session: str) -> StoredSession | None:
        """The newest committed version, or None; also one that has expired."""

    async def save_session(self, session: StoredSession, by: str = "") -> None:
        """Commit `session` if the stored one is a version before it (or none, or an expired one, for version 1).

        Raises `SessionConflict`, which names the current version.
        """

    async def delete_session(
        self, tenant: str, agent: str, session: str, *, expected: StoredSession | None = None, by: str = ""
    ) -> bool:
        """Erase it with its runs and checkpoints; False where there was none.

        With `expected`, only if that is still the stored version; else `SessionConflict`.
        """

    async def sessions(self, wanted: SessionFilter, now: float) -> Sequence[SessionSummary]:
        """Sessions that haven't ended at `now`, by agent and session."""


class RunStore(Protocol):
    """Runs and their steps."""

    async def claim(self, run: StoredRun, *, life: float, now: float) -> tuple[Verdict, StoredRun]:
        """Begin `run`, go on with the stored one of its name for `run.holder`, or learn why not.

        The holder counts as alive for `life` seconds more. Returns the run as it stands then.
        """

    async def unfinished(self, tenant: str, agent: str, session: str) -> StoredRun | None:
        """The newest open run of a session."""

    async def save_step(self, run: StoredRun, step: NewStep, *, limits: "RunLimits", now: float, life: float) -> int:
        """Commit a step of `run`, which is stored too where it isn't yet; its place.

        The same step with the same content is not saved again. Raises `RunTaken`, `StepConflict`, `PayloadTooLarge`.
        """

    async def steps(self, tenant: str, run: str, after: int, limit: int) -> Sequence[StoredStep]:
        """Steps behind place `after`, in order."""

    async def finish(
        self,
        run: StoredRun,
        *,
        stored: bool,
        session: StoredSession | None,
        keep: "Kept",
        now: float,
        by: str,
        hops: int = 0,
    ) -> None:
        """The run is done: save `session`, and keep `run.answer` until `run.expires` where it has one.

        Its steps and stored answers go, and its checkpoints, or those of its session, but what `keep` says. `stored`
        says that the run may have a row, `hops` how many agents events have started down to it. Raises `RunTaken` or
        `SessionConflict`; then nothing happens.
        """

    async def again(self, run: StoredRun) -> StoredRun:
        """The run as its next attempt, for the same holder; as it is where it has no row yet. Raises `RunTaken`."""

    async def fold(self, run: StoredRun, session: StoredSession | None, by: str) -> None:
        """The unfinished run is given up; `session` is the conversation with what it had said."""

    async def release(self, run: StoredRun) -> None:
        """`run.holder` doesn't work on the run any more, whatever attempt it had begun."""

    async def beat(self, holder: str, life: float) -> None:
        """`holder` lives for `life` seconds more."""


class RunLimits(Struct, frozen=True, kw_only=True):
    """How much a run may hold, and how long it is kept while it isn't finished (seconds)."""

    size: int
    steps: int
    open_for: float


class Kept(Struct, frozen=True, kw_only=True):
    """What a session keeps of its checkpoints: the `newest` of each of `threads`; None: of every thread."""

    newest: int
    threads: tuple[str, ...] | None = None


class AnswerStore(Protocol):
    """What was answered under an idempotency key of a run, to be given again instead of paid again."""

    async def find(self, tenant: str, run: str, key: str, digest: bytes, now: float) -> bytes | None:
        """The stored answer."""

    async def keep(self, run: StoredRun, key: str, digest: bytes, answer: bytes, *, now: float, life: float) -> None:
        """Store an answer of a run that is still worked on as this attempt, and `life` seconds long."""


class CheckpointStore(Protocol):
    """LangGraph's checkpoints."""

    async def ask(
        self, run: StoredRun, ask: CheckpointAsk, *, limits: RunLimits, now: float, life: float
    ) -> CheckpointAnswer:
        """One request of a host's checkpointer, within the scope of `run`."""


class SpaceStore(Protocol):
    """State that agents share."""

    async def space(self, tenant: str, space: str) -> StoredSpace | None:
        """A space without its entries."""

    async def spaces(self, tenant: str, after: str, limit: int, now: float) -> Sequence[StoredSpace]:
        """Spaces by name."""

    async def put_space(self, space: StoredSpace, by: str) -> StoredSpace:
        """Declare it: anew for version 1, else as the version after the stored one (`SpaceConflict`)."""

    async def delete_space(self, tenant: str, space: str, by: str) -> bool:
        """Erase it with its entries; False where there was none."""

    async def entries(self, tenant: str, space: str, after: str, limit: int, now: float) -> Sequence[SpaceEntry]:
        """Keys in order."""

    async def apply(
        self,
        tenant: str,
        space: str,
        *,
        writes: Sequence[SharedWrite],
        read: Sequence[str],
        agent: str | None,
        by: str,
        now: float,
        once: tuple[StoredRun, str, bytes, float] | None = None,
        hops: int = 0,
    ) -> tuple[int, Sequence[SpaceEntry]]:
        """All `writes`, or none; then what the keys written and `read` hold, and the space's version.

        `agent` asks and must be on the access list; None: the API asks, for somebody who was authorised. `once` names a
        run, a key, a digest and a life in seconds: then the writes of one key of a run happen once, and a second time
        answers what the first did.
        """


class SubjectStore(Protocol):
    """All that is kept of a person, and of one session of a person's."""

    async def count(self, tenant: str, subject: str) -> SubjectCounts:
        """How much there is of a person."""

    async def session_records(self, key: SessionKey) -> Sequence[Record]:
        """A session with its runs, steps, stored answers and checkpoints, as records that JSON can hold."""

    async def runs(self, tenant: str, subject: str, after: str, limit: int) -> Sequence[str]:
        """Runs of a person that belong to no session that is stored, by name."""

    async def run_records(self, tenant: str, run: str) -> Sequence[Record]:
        """A run with its steps, stored answers and checkpoints."""

    async def told_session(self, key: SessionKey, by: str) -> None:
        """Record in the audit log, and as a fact, that a session was exported."""

    async def told(self, what: str, tenant: str, subject: str, by: str, counts: SubjectCounts) -> None:
        """Record in the audit log, and as a fact, what was done to all that is kept of a person."""

    async def erase(self, tenant: str, subject: str, limit: int) -> SubjectCounts:
        """Remove up to `limit` sessions and as many runs, with all that belongs to them; what that was."""


class SubjectPart(Protocol):
    """Another part of the platform that keeps something of people, such as tasks."""

    async def count(self, tenant: str, subject: str) -> int:
        """How much it keeps of a person."""

    async def records(self, tenant: str, subject: str, after: str, limit: int) -> Sequence[Record]:
        """What it keeps, in pages: behind the record whose `id` is `after`."""

    async def erase(self, tenant: str, subject: str, limit: int) -> int:
        """Remove up to `limit`; how many that were."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StateStores:
    """All of them, on one database."""

    sessions: SessionStore
    runs: RunStore
    answers: AnswerStore
    checkpoints: CheckpointStore
    spaces: SpaceStore
    subjects: SubjectStore
