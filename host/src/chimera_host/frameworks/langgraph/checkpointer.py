"""LangGraph's checkpoints, kept by the platform: a `BaseCheckpointSaver` over the internal API.

One object serves all agents and calls of a host, since a checkpoint belongs to the call that saves it, which
`current_call` finds. What a call may see is decided by the platform: the checkpoints of its session or, without one,
of its run. A host opens no database.

A checkpoint is kept whole. LangGraph orders checkpoints by their ids, and channels' versions are numbers.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_serializable_checkpoint_metadata,
)

from chimera_host.checkpoints import Checkpoints
from chimera_host.contract.state import (
    CopyThread,
    DeleteCheckpoints,
    GetCheckpoint,
    ListCheckpoints,
    ListThreads,
    PutCheckpoint,
    PutWrites,
    StoredCheckpoint,
    StoredWrite,
    Typed,
)
from chimera_host.errors import AgentFailed
from chimera_host.frameworks.langgraph.serializer import Serializer
from chimera_host.ports import current_call

PAGE = 20
THREADS = 1000


class Checkpointer(BaseCheckpointSaver[int]):  # type: ignore[misc]  # the environment of types has no langgraph
    """Saves through the running call."""

    def __init__(self) -> None:
        """For all calls."""
        super().__init__(serde=Serializer())

    # -- on the event loop ---------------------------------------------------------------------------------------------

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """One checkpoint; without an id the newest of the namespace."""
        thread, namespace = _place(config)
        kept = _checkpoints()
        if kept.is_empty(thread, namespace):
            return None
        ask = GetCheckpoint(thread=thread, namespace=namespace, checkpoint=get_checkpoint_id(config))
        found = (await kept.ask(ask)).checkpoints
        return self._tuple(thread, found[0]) if found else None

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Checkpoints by thread and namespace, the newest first; `filter` is compared with their metadata."""
        threads = await self._threads() if config is None else (_place(config)[0],)
        left = limit
        for thread in threads:
            async for stored in self._stored(thread, config, before):
                if left is not None and left <= 0:
                    return
                metadata = self._loaded(stored.metadata)
                if filter and any(metadata.get(key) != value for key, value in filter.items()):
                    continue
                left = None if left is None else left - 1
                yield self._tuple(thread, stored, metadata)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint; returns once it is committed.

        That of an input is no step: it travels with the one that follows, before any node is run.
        """
        thread, namespace = _place(config)
        ask = PutCheckpoint(
            thread=thread,
            namespace=namespace,
            checkpoint=checkpoint["id"],
            parent=get_checkpoint_id(config) or None,
            value=self._dumped(checkpoint),
            metadata=self._dumped(get_serializable_checkpoint_metadata(config, metadata)),
        )
        if metadata.get("source") == "input":
            _checkpoints().hold(ask)
        else:
            await _checkpoints().save(ask)
        return _config(thread, namespace, checkpoint["id"])

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a task has written; returns once it is committed."""
        thread, namespace = _place(config)
        stored = tuple(
            StoredWrite(
                task=task_id,
                idx=WRITES_IDX_MAP.get(channel, number),
                channel=channel,
                value=self._dumped(value),
                path=task_path,
            )
            for number, (channel, value) in enumerate(writes)
        )
        ask = PutWrites(thread=thread, namespace=namespace, checkpoint=str(get_checkpoint_id(config)), writes=stored)
        await _checkpoints().save(ask)

    async def adelete_thread(self, thread_id: str) -> None:
        """Remove a thread."""
        await _checkpoints().ask(DeleteCheckpoints(thread=str(thread_id)))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove what was saved with one of these ids of runs, which are LangGraph's, in its metadata."""
        wanted = frozenset(run_ids)
        if not wanted:
            return
        for thread in await self._threads():
            doomed = [
                stored.checkpoint
                async for stored in self._stored(thread, None, None)
                if self._loaded(stored.metadata).get("run_id") in wanted
            ]
            if doomed:
                await _checkpoints().ask(DeleteCheckpoints(thread=thread, checkpoints=tuple(doomed)))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread with all its checkpoints and writes."""
        await _checkpoints().ask(CopyThread(thread=str(source_thread_id), target=str(target_thread_id)))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep the newest checkpoint of each namespace, or none (`delete`).

        A thread with a `DeltaChannel` that needs older checkpoints is left as it is.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"strategy is {strategy!r}; there are `keep_latest` and `delete`")
        for thread in map(str, thread_ids):
            if strategy == "delete":
                await self.adelete_thread(thread)
            elif not await self._has_deltas(thread):
                await _checkpoints().ask(DeleteCheckpoints(thread=thread, keep=1))

    # -- from a framework's thread -------------------------------------------------------------------------------------

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`aget_tuple`."""
        return _checkpoints().blocking(self.aget_tuple, config)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """`alist`."""

        async def listed() -> Sequence[CheckpointTuple]:
            return [one async for one in self.alist(config, filter=filter, before=before, limit=limit)]

        return iter(_checkpoints().blocking(listed))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`aput`."""
        return _checkpoints().blocking(self.aput, config, checkpoint, metadata, new_versions)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """`aput_writes`."""
        _checkpoints().blocking(self.aput_writes, config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        """`adelete_thread`."""
        _checkpoints().blocking(self.adelete_thread, thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`adelete_for_runs`."""
        _checkpoints().blocking(self.adelete_for_runs, run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`acopy_thread`."""
        _checkpoints().blocking(self.acopy_thread, source_thread_id, target_thread_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`aprune`."""

        async def prune() -> None:
            await self.aprune(thread_ids, strategy=strategy)

        _checkpoints().blocking(prune)

    # -- helpers -------------------------------------------------------------------------------------------------------

    async def _threads(self) -> Sequence[str]:
        found: list_[str] = []
        while True:
            page = (await _checkpoints().ask(ListThreads(after=found[-1] if found else "", limit=THREADS))).threads
            found += page
            if len(page) < THREADS:
                return found

    async def _stored(
        self, thread: str, config: RunnableConfig | None, before: RunnableConfig | None
    ) -> AsyncIterator[StoredCheckpoint]:
        namespace = None if config is None else config["configurable"].get("checkpoint_ns")
        only = None if config is None else get_checkpoint_id(config)
        earlier = None if before is None else get_checkpoint_id(before)
        after: tuple[str, str] | None = None
        while True:
            ask = ListCheckpoints(
                thread=thread,
                namespace=namespace,
                checkpoint=only or None,
                before=earlier or None,
                after=after,
                limit=PAGE,
            )
            page = (await _checkpoints().ask(ask)).checkpoints
            for stored in page:
                yield stored
            if len(page) < PAGE:
                return
            after = (page[-1].namespace, page[-1].checkpoint)

    async def _has_deltas(self, thread: str) -> bool:
        seen: set[str] = set()
        async for stored in self._stored(thread, None, None):
            if stored.namespace not in seen:
                seen.add(stored.namespace)
                if self._loaded(stored.metadata).get("counters_since_delta_snapshot"):
                    return True
        return False

    def _tuple(self, thread: str, stored: StoredCheckpoint, metadata: Any = None) -> CheckpointTuple:
        parent = None if stored.parent is None else _config(thread, stored.namespace, stored.parent)
        return CheckpointTuple(
            config=_config(thread, stored.namespace, stored.checkpoint),
            checkpoint=self._loaded(stored.value),
            metadata=self._loaded(stored.metadata) if metadata is None else metadata,
            parent_config=parent,
            pending_writes=[(write.task, write.channel, self._loaded(write.value)) for write in stored.writes],
        )

    def _dumped(self, value: Any) -> Typed:
        kind, data = self.serde.dumps_typed(value)
        return Typed(kind=kind, data=bytes(data))

    def _loaded(self, value: Typed) -> Any:
        return self.serde.loads_typed((value.kind, value.data))


list_ = list  # the class above has a method of that name


def _place(config: RunnableConfig) -> tuple[str, str]:
    configurable = config["configurable"]
    return str(configurable["thread_id"]), configurable.get("checkpoint_ns", "")


def _config(thread: str, namespace: str, checkpoint: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": checkpoint}}


def _checkpoints() -> Checkpoints:
    call = current_call.get(None)
    if call is None or call.checkpoints is None:
        raise AgentFailed(
            "a graph's state was to be kept for a call that nobody goes on with",
            next_step="call the agent with a session or an Idempotency-Key",
        )
    return call.checkpoints
