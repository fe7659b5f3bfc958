"""LangGraph's checkpoints on both databases: order, pages, pending writes, copies, and what ends with what."""

from typing import Any

import pytest
from sqlalchemy import func, select

from chimera.adapters.storage.schema.state import checkpoint, checkpoint_write
from chimera.adapters.storage.state.runs import expire_runs
from chimera.gateway.errors import PayloadTooLarge
from chimera.gateway.state.errors import RunTaken
from chimera.gateway.state.runs import OpenRun, Wanted
from chimera_host.contract.call import InvokeResponse, SessionState
from chimera_host.contract.state import (
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
    Typed,
)

from .conftest import State, said


class Graph:
    """A run and its checkpoints."""

    def __init__(self, state: State, opened: OpenRun) -> None:
        self.state = state
        self.opened = opened

    async def ask(self, ask: CheckpointAsk) -> tuple[StoredCheckpoint, ...]:
        runs = self.state.runs
        answer = await self.state.stores.checkpoints.ask(
            self.opened.run, ask, limits=runs.limits, now=self.state.clock.wall(), life=runs.life
        )
        if not isinstance(ask, GetCheckpoint | ListCheckpoints):
            runs.touched(self.opened, checkpoints=True)
        return answer.checkpoints

    async def threads(self, **fields: Any) -> tuple[str, ...]:
        runs = self.state.runs
        answer = await self.state.stores.checkpoints.ask(
            self.opened.run, ListThreads(**fields), limits=runs.limits, now=self.state.clock.wall(), life=runs.life
        )
        return answer.threads

    async def put(self, name: str, *, thread: str = "t", namespace: str = "", parent: str | None = None) -> None:
        value, metadata = Typed(kind="msgpack", data=name.encode()), Typed(kind="json", data=b'{"a":"\0"}')
        ask = PutCheckpoint(
            thread=thread, namespace=namespace, checkpoint=name, parent=parent, value=value, metadata=metadata
        )
        await self.ask(ask)

    async def names(self, **fields: Any) -> list[str]:
        return [one.checkpoint for one in await self.ask(ListCheckpoints(thread="t", **fields))]


_held: list[Any] = []


async def begin(state: State, wanted: Wanted, call: str = "call_1") -> Graph:
    context = state.runs.opened("default", "anna", call, said("x"), wanted)
    opened = await context.__aenter__()
    assert opened is not None
    _held.append(context)
    return Graph(state, opened)


@pytest.fixture
async def graph(state: State) -> Any:
    yield await begin(state, Wanted(actor="a", key="k"))
    while _held:
        await _held.pop().__aexit__(None, None, None)


def write(idx: int, text: str, task: str = "task", path: str = "") -> StoredWrite:
    return StoredWrite(task=task, idx=idx, channel=f"c{idx}", value=Typed(kind="json", data=text.encode()), path=path)


async def test_the_newest_is_found_without_its_name(graph: Graph) -> None:
    assert await graph.ask(GetCheckpoint(thread="t")) == ()
    for number in (2, 1, 3):
        await graph.put(f"1ef-{number}", parent="1ef-0")
    (newest,) = await graph.ask(GetCheckpoint(thread="t"))
    assert (newest.checkpoint, newest.parent) == ("1ef-3", "1ef-0")
    assert newest.value == Typed(kind="msgpack", data=b"1ef-3")
    assert newest.metadata == Typed(kind="json", data=b'{"a":"\0"}')
    (named,) = await graph.ask(GetCheckpoint(thread="t", checkpoint="1ef-1"))
    assert named.checkpoint == "1ef-1"
    assert await graph.ask(GetCheckpoint(thread="t", namespace="inner")) == ()
    assert await graph.ask(GetCheckpoint(thread="other")) == ()


async def test_lists_come_newest_first_and_in_pages(graph: Graph) -> None:
    for namespace in ("", "inner"):
        for number in range(4):
            await graph.put(f"{number}", namespace=namespace)
    assert await graph.names() == ["3", "2", "1", "0"] * 2
    assert await graph.names(namespace="inner", before="2") == ["1", "0"]
    assert await graph.names(checkpoint="2") == ["2", "2"]
    first = await graph.ask(ListCheckpoints(thread="t", limit=3))
    last = first[-1]
    rest = await graph.ask(ListCheckpoints(thread="t", after=(last.namespace, last.checkpoint)))
    assert [(one.namespace, one.checkpoint) for one in rest] == [
        ("", "0"),
        *(("inner", number) for number in ("3", "2", "1", "0")),
    ]


async def test_writes_stay_unless_they_are_langgraphs_own(graph: Graph) -> None:
    await graph.put("1")
    ask = PutWrites(thread="t", checkpoint="1", writes=(write(0, "a"), write(-1, "b"), write(1, "c", path="p")))
    await graph.ask(ask)
    await graph.ask(PutWrites(thread="t", checkpoint="1", writes=(write(0, "A"), write(-1, "B"))))
    (found,) = await graph.ask(GetCheckpoint(thread="t"))
    assert [(one.idx, one.value.data) for one in found.writes] == [(-1, b"B"), (0, b"a"), (1, b"c")]


async def test_several_are_kept_together_or_not_at_all(graph: Graph) -> None:
    value, metadata = Typed(kind="bytes", data=b"v"), Typed(kind="json", data=b"{}")
    writes = PutWrites(thread="t", checkpoint="1", writes=(write(0, "a"),))
    first = PutCheckpoint(thread="t", checkpoint="1", value=value, metadata=metadata)
    second = PutCheckpoint(thread="t", checkpoint="2", parent="1", value=value, metadata=metadata)
    await graph.ask(Several(asks=(first, writes, second)))
    assert [(one.checkpoint, len(one.writes)) for one in await graph.ask(ListCheckpoints(thread="t"))] == [
        ("2", 0),
        ("1", 1),
    ]
    big = PutCheckpoint(thread="u", checkpoint="3", value=Typed(kind="bytes", data=b"x" * 99_998), metadata=metadata)
    with pytest.raises(PayloadTooLarge):
        await graph.ask(Several(asks=(PutCheckpoint(thread="u", checkpoint="1", value=value, metadata=metadata), big)))
    assert await graph.threads() == ("t",)


async def test_threads_are_listed_in_pages(graph: Graph) -> None:
    assert await graph.threads() == ()
    for name in ("c", "a", "b"):
        for number in range(2):
            await graph.put(str(number), thread=name)
    assert await graph.threads() == ("a", "b", "c")
    assert await graph.threads(after="a", limit=1) == ("b",)


async def test_threads_are_copied_and_deleted(graph: Graph) -> None:
    for number in range(3):
        await graph.put(str(number))
        await graph.ask(PutWrites(thread="t", checkpoint=str(number), writes=(write(0, "w"),)))
    await graph.ask(CopyThread(thread="t", target="u"))
    await graph.ask(DeleteCheckpoints(thread="t", checkpoints=("1",)))
    assert await graph.names() == ["2", "0"]
    await graph.ask(DeleteCheckpoints(thread="t", keep=1))
    assert await graph.names() == ["2"]
    await graph.ask(DeleteCheckpoints(thread="t"))
    assert await graph.names() == []
    copied = await graph.ask(ListCheckpoints(thread="u"))
    assert [(one.checkpoint, len(one.writes)) for one in copied] == [("2", 1), ("1", 1), ("0", 1)]


async def rows(state: State) -> list[int]:
    def read(connection: Any) -> list[int]:
        return [
            connection.execute(select(func.count()).select_from(table)).scalar()
            for table in (checkpoint, checkpoint_write)
        ]

    return await state.database.read(read)


def done(session: SessionState | None = None, **fields: Any) -> InvokeResponse:
    return InvokeResponse(output="o", call="c", agent="anna", revision="r", host="h", session=session, **fields)


async def test_a_session_keeps_the_newest_once_its_work_is_finished(state: State, graph: Graph) -> None:
    mine = await begin(state, Wanted(session="s1"))
    for number in range(14):
        await mine.put(f"{number:02}")
        await mine.ask(PutWrites(thread="t", checkpoint=f"{number:02}", writes=(write(0, "w"),)))
    await state.runs.finish(mine.opened, done(SessionState()), "x")
    following = await begin(state, Wanted(session="s1"), "call_2")
    assert await following.names() == [f"{number:02}" for number in range(13, 3, -1)]
    assert await rows(state) == [10, 10]
    other = await begin(state, Wanted(session="s2"), "call_3")
    assert await other.names() == []
    assert following.opened.before is not None
    await state.sessions.delete(following.opened.before.key, if_match=None, by="x")
    assert await rows(state) == [0, 0]


async def test_a_session_keeps_those_threads_that_its_answer_names(state: State, graph: Graph) -> None:
    mine = await begin(state, Wanted(session="s1"))
    for thread in ("waits", "over"):
        for number in range(14):
            await mine.put(f"{number:02}", thread=thread)
            await mine.ask(PutWrites(thread=thread, checkpoint=f"{number:02}", writes=(write(0, "w"),)))
    await state.runs.finish(mine.opened, done(SessionState(), threads=("waits",)), "x")
    following = await begin(state, Wanted(session="s1"), "call_2")
    assert await following.threads() == ("waits",)
    assert await rows(state) == [10, 10]
    await following.put("15", thread="over")
    await state.runs.finish(following.opened, done(SessionState(), threads=()), "x")
    assert await rows(state) == [0, 0]


async def test_work_begun_afresh_finds_nothing_of_what_it_had(state: State, graph: Graph) -> None:
    """Its session was saved by another meanwhile, so what it had is of a conversation that isn't any more."""
    wanted = Wanted(actor="a", key="of-session", session="s1")
    mine = await begin(state, wanted)
    await mine.put("1")
    await state.stores.runs.release(mine.opened.run)
    other = await begin(state, Wanted(session="s2"), "call_2")
    await other.put("1", thread="others")
    before = await state.sessions.open("default", "anna", "s1", None)
    await state.sessions.save(before, SessionState(messages=said("meanwhile")), "x")
    again = await begin(state.another_gateway(), wanted, "call_3")
    assert again.opened.run.attempt == 2
    assert (await again.threads(), await other.threads()) == ((), ("others",))


async def test_a_copy_makes_work_that_somebody_may_go_on_with(state: State, graph: Graph) -> None:
    mine = await begin(state, Wanted(session="s1"))
    await mine.put("1")
    await state.runs.finish(mine.opened, done(SessionState()), "x")
    following = await begin(state, Wanted(session="s1"), "call_2")
    await following.ask(CopyThread(thread="t", target="u"))
    resumed = state.runs.resume_state(following.opened)
    assert resumed is not None and resumed.checkpoints


async def test_without_a_session_they_end_with_the_run(state: State, graph: Graph) -> None:
    await graph.put("1")
    await state.runs.finish(graph.opened, done(), "x")
    assert await rows(state) == [0, 0]


async def test_retention_takes_those_of_runs_that_ended_and_never_began_a_session(state: State, graph: Graph) -> None:
    await graph.put("1")
    begun = await begin(state, Wanted(session="s1"))
    await begun.put("1")
    state.clock.advance(604_801)
    removed = await state.database.write(lambda connection: expire_runs(connection, state.clock.wall(), 10))
    assert removed == 2 and await rows(state) == [0, 0]


async def test_who_has_lost_the_run_writes_nothing(state: State, graph: Graph) -> None:
    await graph.put("1")
    await state.stores.runs.release(graph.opened.run)
    other = state.another_gateway()
    await begin(other, Wanted(actor="a", key="k"), "call_2")
    with pytest.raises(RunTaken):
        await graph.put("2")
    with pytest.raises(RunTaken):
        await graph.ask(DeleteCheckpoints(thread="t"))
    assert await graph.names() == ["1"]


async def test_a_run_holds_so_much(state: State, graph: Graph) -> None:
    big = Typed(kind="bytes", data=b"x" * 60_000)
    await graph.ask(PutCheckpoint(thread="t", checkpoint="1", value=big, metadata=Typed(kind="json", data=b"{}")))
    with pytest.raises(PayloadTooLarge):
        await graph.ask(PutCheckpoint(thread="t", checkpoint="2", value=big, metadata=Typed(kind="json", data=b"{}")))
