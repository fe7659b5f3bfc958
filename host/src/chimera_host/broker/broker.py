"""The tool broker: one pipeline that every tool call of an agent goes through, whatever kind of tool it is.

    allow-list → arguments against the schema → deadline → run → size of the answer

Each step is a rule of its own (`rules`, `arguments`, `running`), and the whole is one trace span. What a tool raises
becomes `ToolRefused` or `ToolFailed` in words for the model that called it; the original is logged here, without
credentials, and is not chained, since a chained error would be written to the log with whatever it says.
"""

import asyncio
import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from chimera_host.broker.agent_tools import AgentCaller, BoundAgent, BoundMessage
from chimera_host.broker.arguments import ArgumentCheck
from chimera_host.broker.credentials import Credentials, CredentialSource
from chimera_host.broker.functions import BoundFunction
from chimera_host.broker.mcp.tools import McpServer
from chimera_host.broker.rules import MAX_TOOL_NAME, bounded, choose, deadline
from chimera_host.broker.running import Runner, is_cancellation, while_loading
from chimera_host.broker.scripted import ScriptedTool, server_tools
from chimera_host.contract.agent import AgentDocument
from chimera_host.contract.problem import ProblemError
from chimera_host.contract.tools import AgentTool, FunctionTool, McpTool, MessageTool, Tool, ToolLimits
from chimera_host.errors import AgentLoadError, CallCancelled, ToolFailed, ToolRefused
from chimera_host.ports import CallContext, ToolSpec
from chimera_host.trace import span

log = logging.getLogger(__name__)
MAX_LOGGED = 4_000


class Platform(AgentCaller, CredentialSource, Protocol):
    """What the broker needs of the platform's client."""


class BoundTool(Protocol):
    """One tool that an agent may call."""

    @property
    def kind(self) -> str:
        """`function`, `mcp`, `agent` or `message`."""

    @property
    def spec(self) -> ToolSpec:
        """What the model is told."""

    @property
    def limits(self) -> ToolLimits:
        """Its bounds."""

    @property
    def arguments(self) -> ArgumentCheck:
        """The check of its arguments."""

    async def run(self, arguments: dict[str, Any], call: CallContext, seconds: float) -> str:
        """Run it with checked arguments; `seconds` is what the whole run may take."""


class Closable(Protocol):
    """What is let go of with the agent."""

    async def aclose(self) -> None:
        """Let go."""


class Broker:
    """The tools of one loaded agent: first `specs`, then any number of `call`s at once, `aclose` at the end."""

    def __init__(
        self,
        document: AgentDocument,
        platform: Platform,
        work_dir: str,
        functions: Callable[[str], Callable[..., Any]],
    ) -> None:
        """Serve `document`'s tools. `functions` gives what `module:function` names in the agent's source folder."""
        self._document = document
        self._platform = platform
        self._work_dir = work_dir
        self._functions = functions
        self._credentials = Credentials(platform)
        self._runner = Runner(document.name)
        self._tools: dict[str, BoundTool] = {}
        self._open: list[Closable] = [self._runner]

    def missing(self, now: float) -> list[tuple[str, float]]:
        """Tools that were given up and still run: the agent, and for how long since. From any thread."""
        return self._runner.missing(now)

    async def specs(self) -> dict[str, list[ToolSpec]]:
        """The tools as models see them, by the name that the definition gives each; an MCP server has several.

        Imports the functions and connects to the servers, all at once. Raises `AgentLoadError` with the reason where
        that fails.
        """
        bind = self._bind_scripted if self._document.scripted else self._bind
        bound = await asyncio.gather(*(bind(tool) for tool in self._document.tools), return_exceptions=True)
        failed = next((one for one in bound if isinstance(one, BaseException)), None)
        if failed is not None:
            raise self._as_load_error(failed)
        named: dict[str, list[ToolSpec]] = {}
        for tool, several in zip(self._document.tools, bound, strict=True):
            assert not isinstance(several, BaseException)
            for one in several:
                self._offer(tool, one)
            named[tool.name] = [one.spec for one in several]
        return named

    async def call(self, name: str, arguments: Mapping[str, Any], *, call: CallContext) -> str:
        """Run one tool; its answer. Raises `ToolRefused` or `ToolFailed`."""
        with span("tool", tool=name[:MAX_TOOL_NAME]) as opened:
            tool = choose(name, self._tools)
            opened.set(kind=tool.kind)
            checked = tool.arguments.check(arguments)
            allowed = deadline(tool.limits, call.remaining())
            try:
                output = await self._runner.run(name, tool.run(checked, call, allowed.seconds), allowed)
            except BaseException as error:
                if is_cancellation(error) or not isinstance(error, Exception):
                    raise
                problem = self._as_problem(name, error)
            else:
                output = self._credentials.scrub(output)
                opened.set(bytes=bounded(name, output, tool.limits))
                return output
            raise problem

    async def aclose(self) -> None:
        """Let go of servers, connections and threads."""
        opened, self._open = self._open, []
        await asyncio.gather(*(one.aclose() for one in opened), return_exceptions=True)

    # -- binding --------------------------------------------------------------------------------------------------

    async def _bind(self, tool: Tool) -> list[BoundTool]:
        match tool:
            case FunctionTool():
                function = await while_loading(lambda: self._functions(tool.function))
                bound = BoundFunction(
                    tool,
                    function,
                    document=self._document,
                    work_dir=self._work_dir,
                    credentials=self._credentials,
                    runner=self._runner,
                )
                self._open.append(bound)
                return [bound]
            case AgentTool():
                return [BoundAgent(tool, self._platform)]
            case MessageTool():
                return [BoundMessage(tool, self._platform)]
            case McpTool():
                server = McpServer(
                    tool, document=self._document, work_dir=self._work_dir, credentials=self._credentials
                )
                self._open.append(server)
                return list(await server.tools())

    async def _bind_scripted(self, tool: Tool) -> list[BoundTool]:
        """The same tools, none of which runs."""
        if isinstance(tool, McpTool):
            return list(server_tools(tool))
        return [ScriptedTool(one.kind, one.spec, one.limits, one.arguments) for one in await self._bind(tool)]

    def _offer(self, declared: Tool, tool: BoundTool) -> None:
        name = tool.spec.name
        if name in self._tools:
            raise AgentLoadError(
                f"agent {self._document.name} has two tools that are called {name!r}",
                next_step=f"rename the tool {declared.name!r}",
                agent=self._document.name,
            )
        if len(name) > MAX_TOOL_NAME:
            raise AgentLoadError(
                f"the name of tool {name!r} is longer than the {MAX_TOOL_NAME} characters that models take",
                next_step=f"give the server {declared.name!r} a shorter name",
                agent=self._document.name,
            )
        self._tools[name] = tool

    # -- errors ---------------------------------------------------------------------------------------------------

    def _as_load_error(self, error: BaseException) -> BaseException:
        """The error of an agent whose tools can't be had. One call may load for many, so its end is not theirs."""
        agent = self._document.name
        if isinstance(error, CallCancelled):
            return AgentLoadError(f"loading agent {agent} was cut short by the end of a call", retry_after=0.1)
        if isinstance(error, (ToolFailed, ToolRefused)):
            return AgentLoadError(
                f"agent {agent} can't have its tools: {self._credentials.scrub(error.detail)}",
                next_step=error.next_step,
                retry_after=1.0 if isinstance(error, ToolFailed) else None,
                agent=agent,
            )
        if isinstance(error, ProblemError):
            error.agent = error.agent or agent
        return error

    def _as_problem(self, name: str, error: Exception) -> ProblemError:
        """What the framework gets for `error`, and a line in the log for what is the tool's own fault."""
        if isinstance(error, ProblemError):
            if not isinstance(error, (ToolFailed, ToolRefused)):
                error = ToolFailed(error.detail, next_step=error.next_step, retry_after=error.retry_after)
            # Subclasses say more than a framework needs, and take other arguments.
            kind = ToolRefused if isinstance(error, ToolRefused) else ToolFailed
            clean = kind(
                self._credentials.scrub(error.detail),
                next_step=error.next_step,
                retry_after=error.retry_after,
                agent=self._document.name,
            )
            log.info("tool call failed", extra={"tool": name, "code": clean.code, "problem": clean.detail})
            return clean
        said = self._credentials.scrub(f"{type(error).__name__}: {error}")[:MAX_LOGGED]
        whole = self._credentials.scrub("".join(traceback.format_exception(error)))[-MAX_LOGGED:]
        log.warning("tool raised", extra={"tool": name, "problem": said, "traceback": whole})
        return ToolFailed(f"tool {name!r} raised {said}", agent=self._document.name)
