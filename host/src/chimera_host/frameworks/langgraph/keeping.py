"""How a graph's work outlives its host: what it begins with, and what the session's next call is told of it.

Each run has a LangGraph thread of its own. LangGraph saves after every step (`durability="sync"`), so a run that goes
on on another host begins where the last finished nodes left it: none of them is repeated, those that ran beside an
unfinished one keep what they wrote, and that one runs again. A call without a run is kept nowhere and costs nothing.

What a later call of the session goes on from is named in the session itself, so it changes with the session's version
or not at all: the thread, its last checkpoint, and the question that the graph asked (`interrupt()`). The later call
copies that thread to its own and goes on there; where it comes to nothing, the session still names what was.
"""

import json
import logging
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

from langgraph.pregel import Pregel
from langgraph.runtime import get_runtime
from langgraph.types import Command, Interrupt
from msgspec import MsgspecError, Struct, convert, to_builtins

from chimera_host.checkpoints import Checkpoints
from chimera_host.contract.state import CopyThread, GetCheckpoint
from chimera_host.errors import AgentFailed
from chimera_host.frameworks.langgraph.checkpointer import Checkpointer
from chimera_host.frameworks.langgraph.serializer import Unreadable
from chimera_host.ports import CallContext
from chimera_host.steps import Scope

log = logging.getLogger(__name__)

VALUE = "langgraph"
"""The session value that names what the next call goes on from."""
INTERRUPTS = "__interrupt__"

Given = Callable[[bool], dict[str, Any]]
"""What the graph is given; True: it knows already what the session's earlier calls said."""


class Left(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a call left for the next one of its session: a thread, and the question that it waits for an answer to."""

    thread: str
    checkpoint: str
    question: str | None = None


class Ended(Struct, frozen=True, kw_only=True):
    """How a graph ended: its state, or a `question`; and what to keep for the session's next call."""

    state: Any
    question: str | None = None
    left: Left | None = None

    @property
    def threads(self) -> tuple[str, ...]:
        """The threads that the session's next call needs."""
        return () if self.left is None else (self.left.thread,)


class KeptGraph:
    """A compiled graph, as it runs where nothing is kept and where everything is."""

    __slots__ = ("_kept", "_plain", "_remembers")

    def __init__(self, graph: Pregel, saver: Checkpointer | None, *, remembers: bool = False) -> None:
        """Keep the work of `graph` with `saver` (None: keep nothing); it `remembers` its state from call to call."""
        self._plain = graph if graph.checkpointer in (None, False) else _with(graph, None)
        self._kept = None if saver is None else _with(graph, saver)
        self._remembers = remembers

    async def run(self, call: CallContext, given: Given, limit: int | None = None) -> Ended:
        """Run it for `call`, from its beginning or from what is kept; `limit` bounds its steps."""
        config: dict[str, Any] = {} if limit is None else {"recursion_limit": limit}
        kept = call.checkpoints
        if kept is None or self._kept is None:
            state = await self._plain.ainvoke(given(False), config)
            _refuse_to_ask(state, "the call has no session, in which the answer would be given")
            return Ended(state=state)
        call.steps_by(Tasks(call).running)
        config["configurable"] = {"thread_id": kept.thread}
        begin = await self._begin(call, kept, given)
        state = await self._kept.ainvoke(begin, config, durability="sync")
        if call.request.session is None:
            _refuse_to_ask(state, "the call has no session, in which the answer would be given")
            return Ended(state=state)
        asked = _asked(state)
        if asked is None and not self._remembers:
            return Ended(state=state)
        newest = await _newest(kept)
        if newest is None:
            raise AgentFailed("the graph's state is gone: something of its own code removed it")
        left = Left(thread=kept.thread, checkpoint=newest, question=None if asked is None else asked.id)
        return Ended(state=state, question=None if asked is None else text_of(asked.value), left=left)

    async def _begin(self, call: CallContext, kept: Checkpoints, given: Given) -> Any:
        """What to give the graph: None goes on with the call's own thread."""
        own = None if call.request.resume is None else await _newest(kept)
        left = left_by(call.session.values)
        if own is not None and (left is None or own != left.checkpoint):
            return None
        if left is None:
            return given(False)
        # Nothing of this call is finished yet, and one before left something.
        try:
            return await self._taken_up(call, kept, left, given)
        except Unreadable as error:
            log.warning("graph begun anew", extra={"agent": call.document.name, "reason": error.detail})
            return given(False)

    async def _taken_up(self, call: CallContext, kept: Checkpoints, left: Left, given: Given) -> Any:
        assert self._kept is not None
        there = await self._kept.aget_state({"configurable": {"thread_id": left.thread}})
        waiting = [one for one in there.interrupts if one.id == left.question]
        if not waiting and not (self._remembers and there.values):
            return given(False)  # the graph has changed since: what it asked, it asks no more
        if left.thread != kept.thread:
            await kept.ask(CopyThread(thread=left.thread, target=kept.thread))
        if not waiting:
            return given(True)
        return Command(resume={waiting[0].id: _reply(call.prompt, waiting[0])})


def _with(graph: Pregel, saver: Checkpointer | None) -> Pregel:
    """The same graph with another checkpointer. LangGraph's own `copy` forgets which types the graph may keep."""
    made = copy(graph)
    made.checkpointer = saver
    return made


async def _newest(kept: Checkpoints) -> str | None:
    """The newest checkpoint of the call's own thread."""
    found = (await kept.ask(GetCheckpoint(thread=kept.thread))).checkpoints
    return found[0].checkpoint if found else None


class Tasks:
    """LangGraph's tasks as steps of the call's run, so that what a node asks for has the same key when it runs again.

    A task's namespace holds its id, which LangGraph makes from the checkpoint that it begins from. A node that a retry
    policy runs once more asks with the keys of its first time.
    """

    __slots__ = ("_run", "_scopes")

    def __init__(self, call: CallContext) -> None:
        """Those of `call`."""
        self._run = call.request.run or ""
        self._scopes: dict[tuple[str, int], Scope] = {}

    def running(self) -> Scope | None:
        """The task that the running code belongs to."""
        try:
            task = get_runtime().execution_info
        except RuntimeError:  # not in a node
            return None
        if task is None:
            return None
        place = (task.checkpoint_ns, task.node_attempt)
        if place not in self._scopes:
            self._scopes[place] = Scope(self._run, "task", task.checkpoint_ns)
        return self._scopes[place]


def left_by(values: Mapping[str, Any]) -> Left | None:
    """What the session's last call left, as its values say."""
    try:
        return convert(values[VALUE], Left) if VALUE in values else None
    except MsgspecError:
        return None


def values_after(values: Mapping[str, Any], left: Left | None) -> dict[str, Any]:
    """The session's values after a call that left `left`."""
    others = {name: value for name, value in values.items() if name != VALUE}
    return others if left is None else {**others, VALUE: to_builtins(left)}


def text_of(question: Any) -> str:
    """What a graph asks, as the caller reads it."""
    return question if isinstance(question, str) else json.dumps(question, ensure_ascii=False, default=str)


def _asked(state: Any) -> Interrupt[Any] | None:
    """The question to ask now. Where several nodes ask, the others' come in the next answers."""
    asked = state.get(INTERRUPTS) if isinstance(state, Mapping) else None
    return asked[0] if asked else None


def _refuse_to_ask(state: Any, why: str) -> None:
    if _asked(state) is not None:
        raise AgentFailed(f"the graph asks back (`interrupt()`), and {why}", next_step="call the agent with a session")


def _reply(text: str, asked: Interrupt[Any]) -> Any:
    """The caller's text; where the question names a schema, the JSON in it."""
    if asked.response_schema is None:
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
