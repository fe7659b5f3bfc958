"""State that outlives a call, as hosts read and write it: steps of a run, LangGraph's checkpoints, shared spaces.

A **run** is one piece of work that may take several hosts: a call with a session, with an Idempotency-Key, or of a
task. A **step** of it is finished once its save is committed here; a run that goes on begins after its last one. The
step in flight when a host died runs again, and what it asks of tools and models carries the same idempotency key.

All requests name the call in the header `Chimera-Call`; the platform knows its agent, session and run, and whether it
still is the one that the run is worked on by (another is answered 409 `run-taken`). What is asked twice with the same
content is done once. Bodies are JSON, those of checkpoints MessagePack, since they are mostly bytes.

    POST /internal/v1/state/steps            StepBody         -> StepSaved
    GET  /internal/v1/state/steps?after=N    (none)           -> StepPage
    POST /internal/v1/state/checkpoints      CheckpointAsk    -> CheckpointAnswer
    POST /internal/v1/state/shared/{space}   SharedBody       -> SharedAnswer
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

HEADER_IDEMPOTENCY = "Idempotency-Key"

StepName = Annotated[str, Meta(min_length=1, max_length=200)]
Name = Annotated[str, Meta(max_length=400)]
CheckpointId = Annotated[str, Meta(min_length=1, max_length=64)]
Key = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]


class RunState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run has behind it when a host is given it: how many steps are `finished`, and which `attempt` this is.

    It is sent only where there is something to go on from: steps, or checkpoints of a graph.
    """

    attempt: int = 1
    finished: int = 0
    checkpoints: bool = False


# -- steps ---------------------------------------------------------------------------------------------------------


class StepBody(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A step is finished: `step` names it within its run, `kind` says what it is, `output` is any JSON.

    A step of kind `message` has a `chimera_host.contract.call.Message` as its output: where its run is never finished,
    such messages become part of the session's conversation.
    """

    step: StepName
    kind: Annotated[str, Meta(min_length=1, max_length=32)]
    output: Any
    run: str | None = None


class StepSaved(Struct, frozen=True, kw_only=True):
    """It is committed, as the run's step number `version` (from 1)."""

    version: int


class FinishedStep(Struct, frozen=True, kw_only=True):
    """A step as it was saved."""

    version: int
    step: str
    kind: str
    output: Any


class StepPage(Struct, frozen=True, kw_only=True):
    """Steps in their order. `next` is the version to ask for the rest `after`; None: these are the last."""

    steps: tuple[FinishedStep, ...]
    next: int | None = None


# -- checkpoints ---------------------------------------------------------------------------------------------------


class Typed(Struct, frozen=True, kw_only=True, array_like=True):
    """A value as LangGraph's serializer dumps it: `kind` (`msgpack`, `json`, `bytes` …) and its bytes."""

    kind: Annotated[str, Meta(max_length=32)]
    data: bytes


class StoredWrite(Struct, frozen=True, kw_only=True, array_like=True):
    """One pending write of a task; `idx` is below 0 for LangGraph's own channels."""

    task: CheckpointId
    idx: int
    channel: Annotated[str, Meta(max_length=200)]
    value: Typed
    path: Name = ""


class StoredCheckpoint(Struct, frozen=True, kw_only=True):
    """A checkpoint with the writes that are pending on it."""

    namespace: str
    checkpoint: str
    value: Typed
    metadata: Typed
    parent: str | None = None
    writes: tuple[StoredWrite, ...] = ()


class _Ask(Struct, frozen=True, kw_only=True, tag_field="op"):
    """`thread` is the graph's own thread id; the platform keeps it within the call's session (without one, its run)."""

    thread: Annotated[str, Meta(max_length=128)]


class PutCheckpoint(_Ask, frozen=True, kw_only=True, tag="put"):
    """Keep a checkpoint; one with this id is replaced."""

    checkpoint: CheckpointId
    value: Typed
    metadata: Typed
    namespace: Name = ""
    parent: CheckpointId | None = None


class PutWrites(_Ask, frozen=True, kw_only=True, tag="put_writes"):
    """Keep writes of a task: one that is there stays, unless its `idx` is below 0."""

    checkpoint: CheckpointId
    writes: tuple[StoredWrite, ...]
    namespace: Name = ""


class Several(Struct, frozen=True, kw_only=True, tag_field="op", tag="several"):
    """Several of the two above, in this order and in one transaction."""

    asks: Annotated[tuple[PutCheckpoint | PutWrites, ...], Meta(min_length=1, max_length=200)]


class GetCheckpoint(_Ask, frozen=True, kw_only=True, tag="get"):
    """One checkpoint; without an id the newest of the namespace."""

    namespace: Name = ""
    checkpoint: CheckpointId | None = None


class ListCheckpoints(_Ask, frozen=True, kw_only=True, tag="list"):
    """Checkpoints by namespace, newest first in each; of all namespaces where none is named.

    `before` leaves out ids that aren't smaller. `after` is (namespace, id) of the last one of the page before.
    """

    namespace: Name | None = None
    checkpoint: CheckpointId | None = None
    before: CheckpointId | None = None
    after: tuple[str, str] | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


class ListThreads(Struct, frozen=True, kw_only=True, tag_field="op", tag="threads"):
    """The threads that have checkpoints, by name."""

    after: str = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000


class DeleteCheckpoints(_Ask, frozen=True, kw_only=True, tag="delete"):
    """Remove a thread's checkpoints: all, those named, or all but the newest `keep` of each namespace."""

    checkpoints: tuple[CheckpointId, ...] | None = None
    keep: Annotated[int, Meta(ge=1)] | None = None


class CopyThread(_Ask, frozen=True, kw_only=True, tag="copy"):
    """Copy a thread's checkpoints and writes to the thread `target`, where they replace those of the same id."""

    target: Annotated[str, Meta(max_length=128)]


CheckpointAsk = (
    PutCheckpoint | PutWrites | Several | GetCheckpoint | ListCheckpoints | ListThreads | DeleteCheckpoints | CopyThread
)


class CheckpointAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked for: checkpoints for `get` (one or none) and `list`, names for `threads`, else nothing."""

    checkpoints: tuple[StoredCheckpoint, ...] = ()
    threads: tuple[str, ...] = ()


# -- shared spaces -------------------------------------------------------------------------------------------------


class SharedWrite(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One key's part of a write.

    `set` puts a value, `append` adds `value`'s items to a list, `add` adds a number, `delete` removes the key. The
    space's rules say which a key takes. `version` is the key's expected one; 0 says that it isn't there.
    """

    key: Key
    op: Literal["set", "append", "add", "delete"] = "set"
    value: Any = None
    version: Annotated[int, Meta(ge=0)] | None = None


class SharedBody(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """All writes happen, or none; then the keys of `read` are read, and those written, in the same transaction.

    With an Idempotency-Key the writes of a run's step happen once, however often the step runs.
    """

    write: Annotated[tuple[SharedWrite, ...], Meta(max_length=100)] = ()
    read: Annotated[tuple[Key, ...], Meta(max_length=1000)] = ()


class SharedEntry(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key as it stands; `version` 0: it isn't there."""

    key: str
    version: int
    value: Any = None


class SharedAnswer(Struct, frozen=True, kw_only=True):
    """The space's version (it grows with each write), and the keys asked for or written, by key."""

    version: int
    entries: tuple[SharedEntry, ...]


CHECKPOINT_ASKS = msgspec.msgpack.Decoder(CheckpointAsk)
CHECKPOINT_ANSWERS = msgspec.msgpack.Decoder(CheckpointAnswer)
CHECKPOINT_ENCODER = msgspec.msgpack.Encoder()
