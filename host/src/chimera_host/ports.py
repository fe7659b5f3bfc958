"""What a framework adapter is given and what it must give back: the seam inside the host.

An adapter turns an `AgentDocument` into the framework's own objects once (`load`), and runs a call on them many times
(`LoadedAgent.run`), several at once. It reaches models and tools through the call's context alone, so that deadlines,
cancellation, metering and the broker's rules hold for every framework in the same way.

A call may go on with work that another host began (`chimera_host.steps`). An adapter saves what it finishes
(`save_step`), and begins after what `finished` holds. Where steps may run side by side it names the running one
(`with call.step(name)`), so that what is asked within has the same idempotency key when the step runs again. Without a
run all of this does nothing, so an adapter needs no second way.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any, ParamSpec, Protocol, TypeVar

from msgspec import Struct

from chimera_host.checkpoints import Checkpoints
from chimera_host.contract.agent import AgentDocument, FrameworkName
from chimera_host.contract.call import InvokeRequest, Message, SessionState
from chimera_host.contract.function import FunctionAsk
from chimera_host.contract.problem import ProblemError
from chimera_host.contract.state import FinishedStep, SharedAnswer, SharedBody
from chimera_host.steps import Scope

P = ParamSpec("P")
R = TypeVar("R")

ChatBody = dict[str, Any]
"""A chat-completions request as OpenAI defines it (messages, tools, temperature …), without `model` and `stream`."""

ChatAnswer = dict[str, Any]
"""A chat-completions answer as OpenAI defines it: `choices[0].message`, `usage`."""


class ToolSpec(Struct, frozen=True, kw_only=True):
    """A tool as a model sees it: name, description and the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: dict[str, Any]


class RunResult(Struct, frozen=True, kw_only=True):
    """What a run gave: the answer's text, the messages to add to the session, and the values to keep in it.

    `threads` are those of the call's session whose checkpoints its next call needs (`InvokeResponse`).
    """

    output: str
    messages: tuple[Message, ...] = ()
    values: dict[str, Any] | None = None
    threads: tuple[str, ...] | None = None


class CallContext(Protocol):
    """One running call. The blocking methods are for framework threads, the others for the event loop.

    Every method raises `chimera_host.errors.CallCancelled` once the call is cancelled or its deadline has passed, which
    is how a synchronous framework learns of it.
    """

    request: InvokeRequest
    document: AgentDocument
    cpu_seconds: float
    tools_answered: set[int]
    misfits: list[ProblemError]
    """Of a trial: the places of the answers of tools that were given, and what it doesn't answer for."""
    checkpoints: Checkpoints | None
    """Where a graph's checkpoints go; None: the call has no run, and nobody goes on with it."""

    @property
    def prompt(self) -> str:
        """The text of the caller's last message."""

    @property
    def session(self) -> SessionState:
        """The state before this call; empty where the call has no session."""

    def remaining(self) -> float:
        """Seconds until the deadline; raises when it has passed."""

    async def chat(self, body: ChatBody) -> ChatAnswer:
        """One model call through the gateway."""

    async def chat_streamed(self, body: ChatBody, source: str | None = None) -> ChatAnswer:
        """`chat`, whose text is emitted (as `source`) while it is made where the caller streams."""

    def chat_blocking(self, body: ChatBody) -> ChatAnswer:
        """The same, from a framework's thread."""

    async def tool(self, name: str, arguments: Mapping[str, Any]) -> str:
        """One tool call through the broker; `name` is a `ToolSpec`'s."""

    def tool_blocking(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The same, from a framework's thread."""

    async def function(self, ask: FunctionAsk) -> str:
        """What the function answers that the agent stands for; the gateway calls it."""

    @property
    def finished(self) -> Mapping[str, FinishedStep]:
        """The steps that earlier attempts at the call's run have finished, by name, in their order.

        Empty for a call that begins, and for one without a run. What this call saves isn't added.
        """

    @property
    def idempotency_key(self) -> str | None:
        """The key of the running tool, or of the running step outside of one; None where the call has no run.

        It is the same when the step runs again, so an effect that carries it can be had once.
        """

    def step(self, name: str) -> AbstractContextManager[Scope | None]:
        """Whatever is asked for within, of models, tools, agents and spaces, belongs to the step of that name.

        A name stands for one step of a run. Without this, a step is what lies between two saves.
        """

    def steps_by(self, find: Callable[[], Scope | None]) -> None:
        """Ask `find` which step is running, for a framework that knows it by its own task."""

    async def save_step(self, name: str, kind: str, output: Any) -> int:
        """Commit a finished step; its number in the run. Nothing, and 0, where the call has no run.

        `output` is any JSON. The same name again with the same content is the same step, with another it is refused.
        The kind `message` is for a message of the conversation (`Message`), which becomes part of the session's if the
        run is never finished.
        """

    def save_step_blocking(self, name: str, kind: str, output: Any) -> int:
        """The same, from a framework's thread."""

    def save_step_later(self, name: str, kind: str, output: Any) -> None:
        """`save_step` before the call asks for anything else, so that the last step of a call costs nothing.

        It isn't lost: the call's answer, which follows it, is committed. Safe from any thread.
        """

    async def commit_steps(self) -> None:
        """Save now what was left for later: before work that doesn't go through this context."""

    def commit_steps_blocking(self) -> None:
        """The same, from a framework's thread."""

    async def once(self, name: str, work: Callable[[], Awaitable[R]], kind: str = "step") -> R:
        """What `work` gives, as the step of that name: if the run has finished it before, what it gave then."""

    def once_blocking(self, name: str, work: Callable[[], R], kind: str = "step") -> R:
        """The same, from a framework's thread."""

    async def shared(self, space: str, body: SharedBody) -> SharedAnswer:
        """Write and read keys of a shared space; with a run, the writes of a step that runs again happen once."""

    def shared_blocking(self, space: str, body: SharedBody) -> SharedAnswer:
        """The same, from a framework's thread."""

    async def in_thread(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a blocking framework in the host's watched threads, with `current_call` set there."""

    def emit(self, text: str, source: str | None = None) -> None:
        """Send a piece of the answer to a streaming caller; does nothing otherwise. Safe from any thread."""


class LoadedAgent(Protocol):
    """An agent as the framework's own objects. Runs many calls, several at once; they share nothing by accident."""

    async def run(self, call: CallContext) -> RunResult:
        """Answer one call."""

    def close(self) -> None:
        """Let go of what `load` took; called once, when no call runs."""


class AgentBuild(Struct, frozen=True, kw_only=True):
    """What `load` works from.

    `tools` are the specs by the name that the definition gives the tool (an MCP server has several); `factory` is the
    agent's own entrypoint, already imported, where it has one.
    """

    document: AgentDocument
    tools: Mapping[str, Sequence[ToolSpec]]
    factory: Callable[..., Any] | None = None
    work_dir: str | None = None


class FrameworkAdapter(Protocol):
    """One framework behind the seam."""

    name: FrameworkName

    def preload(self) -> None:
        """Import the framework and do once what every agent shares, as far as a later fork bears it."""

    def load(self, build: AgentBuild) -> LoadedAgent:
        """Make the framework's objects. Cheap: no model, tool or network. Raises `AgentLoadError` with the reason."""


current_call: ContextVar[CallContext] = ContextVar("current_call")
"""The call that the running code works for; shared model clients and captured prints find their call through it."""
