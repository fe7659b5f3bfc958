"""Checkpoints in memory, as the platform keeps them: one scope, which stands for one session or run."""

from msgspec.structs import replace

from chimera_host.contract.problem import Problem, RemoteProblem
from chimera_host.contract.state import (
    CheckpointAnswer,
    CheckpointAsk,
    CopyThread,
    DeleteCheckpoints,
    GetCheckpoint,
    ListCheckpoints,
    ListThreads,
    PutCheckpoint,
    PutWrites,
    Several,
    StoredCheckpoint,
    StoredWrite,
)

Place = tuple[str, str, str]
"""Thread, namespace and id."""


class MemoryCheckpoints:
    """Answers what `chimera_host.contract.state` lets a host ask; `asked` records it.

    `refusals` are problems by the number of the request (from 1) that is answered with one.
    """

    def __init__(self) -> None:
        """Empty."""
        self.asked: list[CheckpointAsk] = []
        self.refusals: dict[int, Problem] = {}
        self._kept: dict[Place, StoredCheckpoint] = {}
        self._writes: dict[Place, dict[tuple[str, int], StoredWrite]] = {}

    def clear(self) -> None:
        """Forget everything."""
        self.asked.clear()
        self.refusals.clear()
        self._kept.clear()
        self._writes.clear()

    @property
    def threads(self) -> tuple[str, ...]:
        """The threads that have checkpoints."""
        return tuple(sorted({thread for thread, _, _ in self._kept}))

    def ask(self, ask: CheckpointAsk) -> CheckpointAnswer:
        """Do it."""
        self.asked.append(ask)
        if (refusal := self.refusals.get(len(self.asked))) is not None:
            raise RemoteProblem(refusal)
        match ask:
            case GetCheckpoint() | ListCheckpoints():
                return CheckpointAnswer(checkpoints=self._found(ask))
            case ListThreads():
                later = [thread for thread in self.threads if thread > ask.after]
                return CheckpointAnswer(threads=tuple(later[: ask.limit]))
            case Several():
                for one in ask.asks:
                    self._do(one)
            case _:
                self._do(ask)
        return CheckpointAnswer()

    def _do(self, ask: PutCheckpoint | PutWrites | DeleteCheckpoints | CopyThread) -> None:
        match ask:
            case PutCheckpoint():
                self._kept[ask.thread, ask.namespace, ask.checkpoint] = StoredCheckpoint(
                    namespace=ask.namespace,
                    checkpoint=ask.checkpoint,
                    value=ask.value,
                    metadata=ask.metadata,
                    parent=ask.parent,
                )
            case PutWrites():
                there = self._writes.setdefault((ask.thread, ask.namespace, ask.checkpoint), {})
                for write in ask.writes:
                    if write.idx < 0 or (write.task, write.idx) not in there:
                        there[write.task, write.idx] = write
            case DeleteCheckpoints():
                for place in self._doomed(ask):
                    self._kept.pop(place, None)
                    self._writes.pop(place, None)
            case CopyThread():
                for place, kept in list(self._kept.items()):
                    if place[0] == ask.thread:
                        self._kept[(ask.target, *place[1:])] = kept
                for place, writes in list(self._writes.items()):
                    if place[0] == ask.thread:
                        self._writes[(ask.target, *place[1:])] = dict(writes)

    def _doomed(self, ask: DeleteCheckpoints) -> list[Place]:
        its = [place for place in {**self._kept, **self._writes} if place[0] == ask.thread]
        if ask.checkpoints is not None:
            return [place for place in its if place[2] in ask.checkpoints]
        if ask.keep is None:
            return its
        newest: dict[str, int] = {}
        doomed = []
        for place in sorted(its, reverse=True):
            newest[place[1]] = newest.get(place[1], 0) + 1
            if newest[place[1]] > ask.keep:
                doomed.append(place)
        return doomed

    def _found(self, ask: GetCheckpoint | ListCheckpoints) -> tuple[StoredCheckpoint, ...]:
        found = [kept for place, kept in self._kept.items() if place[0] == ask.thread]
        if ask.namespace is not None:
            found = [kept for kept in found if kept.namespace == ask.namespace]
        if ask.checkpoint is not None:
            found = [kept for kept in found if kept.checkpoint == ask.checkpoint]
        limit = 1
        found.sort(key=lambda kept: kept.checkpoint, reverse=True)
        found.sort(key=lambda kept: kept.namespace)
        if isinstance(ask, ListCheckpoints):
            limit = ask.limit
            if ask.before is not None:
                found = [kept for kept in found if kept.checkpoint < ask.before]
            if ask.after is not None:
                namespace, last = ask.after
                found = [
                    kept
                    for kept in found
                    if kept.namespace > namespace or (kept.namespace == namespace and kept.checkpoint < last)
                ]
        return tuple(replace(kept, writes=self._of(ask.thread, kept)) for kept in found[:limit])

    def _of(self, thread: str, kept: StoredCheckpoint) -> tuple[StoredWrite, ...]:
        writes = self._writes.get((thread, kept.namespace, kept.checkpoint), {}).values()
        return tuple(sorted(writes, key=lambda write: (write.path, write.task, write.idx)))
