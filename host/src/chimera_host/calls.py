"""One running call: the concrete `CallContext` that frameworks work through.

A call ends for its caller the moment there is an answer, a problem, or a cancellation (`answer`). It ends for the host
when its task does, which may be later: a thread that was asked to stop must come back first. Until then it holds its
agent, its slot in the black box and its place among the host's calls, and the watchdog counts how long that takes.

A cancellation reaches code on the event loop as `asyncio.CancelledError`, and a blocking framework at its next model or
tool call, which raises the reason.

A call with a run knows which of its steps are finished, saves others, and gives whatever it asks for an idempotency key
(`chimera_host.steps`).
"""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from chimera_host.checkpoints import Checkpoints
from chimera_host.contract.agent import AgentDocument
from chimera_host.contract.call import Delta, InvokeRequest, InvokeResponse, SessionState, Timings, ToolEvent
from chimera_host.contract.function import FunctionAsk
from chimera_host.contract.problem import ProblemError
from chimera_host.contract.state import CheckpointAnswer, CheckpointAsk, FinishedStep, SharedAnswer, SharedBody
from chimera_host.errors import CallCancelled, DeadlineExceeded, ModelFailed, ToolRefused
from chimera_host.platform_client import PlatformClient
from chimera_host.ports import CallContext, ChatAnswer, ChatBody
from chimera_host.steps import Given, RunSteps, Scope, within
from chimera_host.streaming import ChunkAssembler, EventQueue
from chimera_host.threads import WatchedThreads
from chimera_host.trace import span

P = ParamSpec("P")
R = TypeVar("R")


class ToolCaller(Protocol):
    """The part of the tool broker that a call needs."""

    async def call(self, name: str, arguments: Mapping[str, Any], *, call: CallContext) -> str:
        """Run one tool."""


class Call:
    """One call, from its admission to the end of its task. See `chimera_host.ports.CallContext`."""

    __slots__ = (
        "__weakref__",
        "_allowed",
        "_broker",
        "_deadline",
        "_defaults",
        "_events",
        "_loop",
        "_loop_thread",
        "_on_cancel",
        "_pending",
        "_platform",
        "_reason",
        "_steps",
        "_threads",
        "_timer",
        "answer",
        "began",
        "cancelled_at",
        "checkpoints",
        "cpu_seconds",
        "document",
        "load_seconds",
        "loaded",
        "misfits",
        "model_calls",
        "model_seconds",
        "outcome",
        "request",
        "run_seconds",
        "slot",
        "task",
        "tool_calls",
        "tool_seconds",
        "tools_answered",
    )

    def __init__(
        self,
        request: InvokeRequest,
        *,
        loop: asyncio.AbstractEventLoop,
        longest: float,
        platform: PlatformClient,
        threads: WatchedThreads,
        events: EventQueue | None,
        on_cancel: Callable[["Call"], None] | None = None,
    ) -> None:
        """Begin the call's time; it may take what the request says, and `longest` seconds at most."""
        self.request = request
        self.document: AgentDocument  # from `bind` on
        self.began = time.monotonic()
        started = loop.time()
        self.answer: asyncio.Future[InvokeResponse] = loop.create_future()
        self.task: asyncio.Task[None] | None = None
        self.slot: int | None = None
        self.cancelled_at: float | None = None
        self.outcome = "ok"
        self.loaded = False
        self.load_seconds = self.run_seconds = self.model_seconds = self.tool_seconds = self.cpu_seconds = 0.0
        self.model_calls = self.tool_calls = 0
        self.tools_answered: set[int] = set()
        self.misfits: list[ProblemError] = []
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._allowed = min(request.deadline, longest)
        self._deadline = started + self._allowed
        self._timer = loop.call_at(self._deadline, self._overrun)
        self._platform = platform
        self._threads = threads
        self._events = events
        self._on_cancel = on_cancel
        self._reason: CallCancelled | None = None
        self._pending: set[concurrent.futures.Future[Any]] = set()
        self._broker: ToolCaller | None = None
        self._defaults: Mapping[str, Any] = {}
        self.checkpoints: Checkpoints | None = None
        self._steps: RunSteps | None = None
        if request.run is not None:
            finished = 0 if request.resume is None else request.resume.finished
            self._steps = RunSteps(Given(call=request.call, run=request.run, finished=finished), platform)
            thread = f"{request.run}@{request.revision[-12:]}"
            fresh = request.resume is None
            self.checkpoints = Checkpoints(self._checkpoint, self._wait_for, thread=thread, fresh=fresh)

    # -- the host's side ------------------------------------------------------------------------------------------

    def bind(self, document: AgentDocument, defaults: Mapping[str, Any], broker: ToolCaller | None) -> None:
        """The agent is loaded: this is its document, its model's settings and its tools."""
        self.document = document
        self._broker = broker
        self._defaults = {**defaults, "model": self.request.model_override} if self.request.model_override else defaults

    async def resume(self) -> None:
        """Learn what earlier attempts at its run have finished."""
        if self._steps is not None:
            await self._steps.load()

    def cancel(self, reason: CallCancelled) -> None:
        """Stop it: the caller gets `reason` at once, the running code as soon as it listens. On the loop only."""
        if self._reason is not None or self.task is None or self.task.done():
            return
        self._reason = reason
        self.cancelled_at = time.monotonic()
        self.outcome = reason.code
        if not self.answer.done():
            self.answer.set_exception(reason)
        if self._on_cancel is not None:
            self._on_cancel(self)
        for future in tuple(self._pending):
            future.cancel()
        self.task.cancel()

    def close(self) -> None:
        """Its task ended."""
        self._timer.cancel()
        if not self.answer.done():
            self.answer.set_exception(CallCancelled("the call ended without an answer"))
        if not self.answer.cancelled():
            self.answer.exception()  # marks it as seen: the caller may be gone

    @property
    def reason(self) -> CallCancelled | None:
        """Why it was cancelled."""
        return self._reason

    def timings(self) -> Timings:
        """Where the time went so far."""
        return Timings(
            load=round(self.load_seconds, 6),
            run=round(self.run_seconds, 6),
            model=round(self.model_seconds, 6),
            tools=round(self.tool_seconds, 6),
            loaded=self.loaded,
        )

    def _overrun(self) -> None:
        self.cancel(
            DeadlineExceeded(
                f"the call of agent {self.request.agent} took longer than {self._allowed:.1f} s",
                next_step="give it a longer deadline, or see where its time goes with `chimera logs`",
                agent=self.request.agent,
            )
        )

    # -- the framework's side: CallContext ------------------------------------------------------------------------

    @property
    def prompt(self) -> str:
        """The text of the caller's last message."""
        return self.request.messages[-1].content if self.request.messages else ""

    @property
    def session(self) -> SessionState:
        """The state before this call; empty where the call has no session."""
        return self.request.session or SessionState()

    @property
    def streaming(self) -> bool:
        """Whether somebody reads what `emit` sends."""
        return self._events is not None

    def remaining(self) -> float:
        """Seconds until the deadline; raises when it has passed or the call was cancelled."""
        self._check()
        return max(0.001, self._deadline - self._loop.time())

    async def chat(self, body: ChatBody) -> ChatAnswer:
        """One model call through the gateway."""
        await self._settled()
        left = self.remaining()
        began = time.monotonic()
        self.model_calls += 1
        request = {**self._defaults, **body}
        await self.commit_steps()
        try:
            with span("model"), self._asking("model", request) as key:
                return await self._platform.chat(self.request.call, request, left, key)
        finally:
            self.model_seconds += time.monotonic() - began

    async def chat_streamed(self, body: ChatBody, source: str | None = None) -> ChatAnswer:
        """One model call whose text goes to a streaming caller while it is made; whole where nobody streams."""
        if self._events is None:
            return await self.chat(body)
        await self._settled()
        left = self.remaining()
        began = time.monotonic()
        self.model_calls += 1
        whole = ChunkAssembler()
        request = {**self._defaults, **body, "stream_options": {"include_usage": True}}
        await self.commit_steps()
        try:
            with span("model", streamed=True), self._asking("model", request) as key:
                async for chunk in self._platform.chat_stream(self.request.call, request, left, key):
                    if text := whole.add(chunk):
                        self._events.put("delta", Delta(text=text, source=source))
                if not whole.chunks:
                    raise ModelFailed("the model's stream held nothing")
        finally:
            self.model_seconds += time.monotonic() - began
        return whole.answer()

    def chat_blocking(self, body: ChatBody) -> ChatAnswer:
        """`chat`, from a framework's thread."""
        return self._wait_for(self.chat, body)

    async def tool(self, name: str, arguments: Mapping[str, Any]) -> str:
        """One tool call through the broker."""
        self._check()
        if self._broker is None:
            raise ToolRefused(
                f"agent {self.request.agent} has no tools, so it can't call {name!r}",
                next_step="list the tool under `tools` of its definition",
                agent=self.request.agent,
            )
        await self.commit_steps()
        await self._settled()
        began = time.monotonic()
        self.tool_calls += 1
        self._tool_event(ToolEvent(tool=name, phase="start"))
        try:
            with self._asking("tool", name, arguments) as key, self._in_tool(key):
                output = await self._broker.call(name, arguments, call=self)
        except BaseException:
            self._tool_event(ToolEvent(tool=name, phase="error", seconds=round(time.monotonic() - began, 6)))
            raise
        finally:
            self.tool_seconds += time.monotonic() - began
        self._tool_event(ToolEvent(tool=name, phase="end", seconds=round(time.monotonic() - began, 6)))
        return output

    def tool_blocking(self, name: str, arguments: Mapping[str, Any]) -> str:
        """`tool`, from a framework's thread."""
        return self._wait_for(self.tool, name, arguments)

    async def function(self, ask: FunctionAsk) -> str:
        """What the function answers that the agent stands for."""
        await self.commit_steps()
        left = self.remaining()
        with span("function"), self._asking("function", ask) as key:
            return await self._platform.function(self.request.call, ask, left, key)

    @property
    def finished(self) -> Mapping[str, FinishedStep]:
        """The steps that earlier attempts at the call's run have finished, by name, in their order."""
        return {} if self._steps is None else self._steps.finished

    @property
    def idempotency_key(self) -> str | None:
        """The key of the running tool, or of the running step outside of one; None where the call has no run."""
        return None if self._steps is None else self._steps.scope().key

    def step(self, name: str) -> AbstractContextManager[Scope | None]:
        """Whatever is asked for within belongs to the step of that name."""
        return nullcontext() if self._steps is None else within(self._steps.named(name))

    def steps_by(self, find: Callable[[], Scope | None]) -> None:
        """Ask `find` which step is running."""
        if self._steps is not None:
            self._steps.find = find

    async def save_step(self, name: str, kind: str, output: Any) -> int:
        """Commit a finished step; its number in the run. Nothing, and 0, where the call has no run."""
        self._check()
        return 0 if self._steps is None else await self._steps.save(name, kind, output)

    def save_step_blocking(self, name: str, kind: str, output: Any) -> int:
        """`save_step`, from a framework's thread."""
        if self._steps is None:
            self._check()
            return 0
        return self._wait_for(self.save_step, name, kind, output)

    def save_step_later(self, name: str, kind: str, output: Any) -> None:
        """`save_step` before the call asks for anything else; the last step of a call is covered by its answer."""
        if self._steps is not None:
            self._steps.later(name, kind, output)

    async def commit_steps(self) -> None:
        """Save now what was left for later."""
        if self._steps is not None:
            await self._steps.commit()

    def commit_steps_blocking(self) -> None:
        """`commit_steps`, from a framework's thread."""
        if self._steps is not None and self._steps.waiting:
            self._wait_for(self.commit_steps)

    async def once(self, name: str, work: Callable[[], Awaitable[R]], kind: str = "step") -> R:
        """What `work` gives, as the step of that name: if the run has finished it before, what it gave then."""
        if (before := self.finished.get(name)) is not None:
            return cast(R, before.output)
        with self.step(name):
            output = await work()
        await self.save_step(name, kind, output)
        return output

    def once_blocking(self, name: str, work: Callable[[], R], kind: str = "step") -> R:
        """`once`, from a framework's thread."""
        if (before := self.finished.get(name)) is not None:
            return cast(R, before.output)
        with self.step(name):
            output = work()
        self.save_step_blocking(name, kind, output)
        return output

    async def shared(self, space: str, body: SharedBody) -> SharedAnswer:
        """Write and read keys of a shared space; with a run, the writes of a step that runs again happen once."""
        self._check()
        await self.commit_steps()
        await self._settled()
        asking = self._asking("shared", space, body) if body.write else nullcontext()
        with asking as key:
            return await self._platform.shared(self.request.call, space, body, key)

    def shared_blocking(self, space: str, body: SharedBody) -> SharedAnswer:
        """`shared`, from a framework's thread."""
        return self._wait_for(self.shared, space, body)

    async def _settled(self) -> None:
        if self.checkpoints is not None:
            await self.checkpoints.settled()

    def _asking(self, kind: str, *content: Any) -> AbstractContextManager[str | None]:
        return nullcontext() if self._steps is None else self._steps.scope().asking(kind, *content)

    @staticmethod
    def _in_tool(key: str | None) -> AbstractContextManager[Scope | None]:
        return nullcontext() if key is None else within(Scope.of_tool(key))

    async def in_thread(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a blocking framework in the host's watched threads, under this call's context variables."""
        self._check()
        result, cpu = await self._threads.run(partial(function, *args, **kwargs))
        self.cpu_seconds += cpu
        return result

    async def _checkpoint(self, ask: CheckpointAsk) -> CheckpointAnswer:
        left = self.remaining()
        with span("checkpoint"):
            return await self._platform.checkpoints(self.request.call, ask, left)

    def emit(self, text: str, source: str | None = None) -> None:
        """Send a piece of the answer to a streaming caller. Safe from any thread."""
        if self._events is None or not text:
            return
        delta = Delta(text=text, source=source)
        if threading.get_ident() == self._loop_thread:
            self._events.put("delta", delta)
        else:
            self._loop.call_soon_threadsafe(self._events.put, "delta", delta)

    def _tool_event(self, event: ToolEvent) -> None:
        if self._events is not None:
            self._events.put("tool", event)

    def _check(self) -> None:
        if self._reason is not None:
            raise self._reason
        if self._loop.time() >= self._deadline:
            raise DeadlineExceeded(f"the deadline of call {self.request.call} has passed", agent=self.request.agent)

    def _wait_for(self, method: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs) -> R:
        if threading.get_ident() == self._loop_thread:
            raise RuntimeError("a blocking method was called on the event loop, which would stop it: await the other")
        self._check()
        future = asyncio.run_coroutine_threadsafe(method(*args, **kwargs), self._loop)
        self._pending.add(future)
        try:
            if self._reason is not None:  # cancelled in between, so nobody else cancels this
                future.cancel()
            return future.result()
        except concurrent.futures.CancelledError:
            raise self._reason or CallCancelled("the call was cancelled", agent=self.request.agent) from None
        finally:
            self._pending.discard(future)
