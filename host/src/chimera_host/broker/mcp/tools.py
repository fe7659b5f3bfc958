"""An MCP server's tools, bound to an agent: one session for all its calls, begun anew when it is lost.

The session is opened when the agent is loaded, since only then is it known what the tools take. It belongs to no call:
one that is cancelled while the session opens doesn't take it from the others. A call whose request can't have reached
the server is sent again on a new session, any other loss is told: the tool may have had its effect. A server that
can't be reached isn't tried again at once but after a delay that doubles.
"""

import asyncio
import contextvars
import os
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from chimera_host.broker.arguments import ArgumentCheck
from chimera_host.broker.credentials import Credentials
from chimera_host.broker.egress import parse_list
from chimera_host.broker.http import CheckedSession, parse_url
from chimera_host.broker.mcp.content import as_text
from chimera_host.broker.mcp.http import HttpTransport
from chimera_host.broker.mcp.protocol import OfferedTool, ServerGone, Session, Transport
from chimera_host.broker.mcp.stdio import StdioTransport, environment
from chimera_host.broker.rules import did_you_mean
from chimera_host.contract.agent import AgentDocument
from chimera_host.contract.problem import ProblemError
from chimera_host.contract.tools import McpTool, ToolLimits, full_name
from chimera_host.errors import AgentLoadError, ToolFailed
from chimera_host.logs import log_fields
from chimera_host.ports import CallContext, ToolSpec, current_call

OPEN_TIMEOUT = 45.0
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
MAX_DESCRIPTION = 8_000
MAX_SCHEMA = 64 * 1024
SPARE = 1024**2
"""How much longer than twice the output (JSON escapes) a message may be."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class McpServer:
    """One server of one agent."""

    def __init__(self, tool: McpTool, *, document: AgentDocument, work_dir: str, credentials: Credentials) -> None:
        """Serve `tool`; nothing is started yet."""
        self._tool = tool
        self._document = document
        self._work_dir = work_dir
        self._credentials = credentials
        self._max_message = 2 * tool.limits.max_output_bytes + SPARE
        self._fields = {"tenant": document.tenant, "agent": document.name}
        self._http: CheckedSession | None = None
        if tool.url is not None:
            self._http = CheckedSession(parse_list(tool.name, tool.limits.egress, implied=parse_url(tool.url)))
        self._session: Session | None = None
        self._opening: asyncio.Task[Session] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._delay = 0.0
        self._not_before = 0.0
        self._closed = False

    async def tools(self) -> list["McpServerTool"]:
        """The allowed tools, as the server describes them."""
        call = current_call.get(None)
        session = await self._ready(call.request.call if call is not None else "")
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                offered = {one.name: one for one in await session.tools()}
        except TimeoutError:
            raise ToolFailed(
                f"MCP server {self._tool.name!r} did not list its tools within {OPEN_TIMEOUT:g} s"
            ) from None
        return [
            McpServerTool(self, self._tool, self._offered(name, offered)) for name in dict.fromkeys(self._tool.allow)
        ]

    async def call(self, tool: str, arguments: dict[str, Any], call_id: str, key: str | None = None) -> dict[str, Any]:
        """The result of one of its tools, asked for with an idempotency key where the call has a run."""
        session = await self._ready(call_id)
        try:
            return await session.call(tool, arguments, key)
        except ServerGone as gone:
            self._drop(session)
            if gone.sent:
                raise ToolFailed(
                    f"{gone.detail} while it ran {tool!r}; whether that had an effect is not known",
                    next_step="call it again if doing it twice does no harm",
                ) from None
        session = await self._ready(call_id)
        return await session.call(tool, arguments, key)

    async def aclose(self) -> None:
        """End the session and the server."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait({self._opening})
        if self._session is not None:
            self._drop(self._session)
        if self._ending:
            await asyncio.wait(self._ending)
        if self._http is not None:
            await self._http.aclose()

    # -- the session ----------------------------------------------------------------------------------------------

    async def _ready(self, call_id: str) -> Session:
        """The open session; opened once for all who wait for it."""
        if self._closed:
            raise ToolFailed(f"MCP server {self._tool.name!r} was closed with its agent")
        if self._session is not None:
            if self._session.alive:
                return self._session
            self._drop(self._session)
        if self._opening is None:
            wait = self._not_before - asyncio.get_running_loop().time()
            if wait > 0:
                raise ToolFailed(
                    f"MCP server {self._tool.name!r} could not be reached and is tried again in {wait:.1f} s",
                    retry_after=round(wait, 1),
                )
            context = contextvars.Context()
            context.run(log_fields.set, self._fields)
            self._opening = asyncio.create_task(
                self._open(call_id), name=f"mcp-{self._tool.name}-open", context=context
            )
            self._opening.add_done_callback(self._opened)
        try:
            return await asyncio.shield(self._opening)
        except asyncio.CancelledError:
            if self._closed:
                raise ToolFailed(f"MCP server {self._tool.name!r} was closed with its agent") from None
            raise

    async def _open(self, call_id: str) -> Session:
        transport: Transport | None = None
        try:
            async with asyncio.timeout(OPEN_TIMEOUT):
                transport = await self._connect(await self._credentials.fetch(call_id, self._tool.credentials))
                session = Session(self._tool.name, transport)
                await session.open()
                return session
        except BaseException as error:
            if transport is not None:
                await transport.aclose()
            if isinstance(error, TimeoutError):
                raise ToolFailed(
                    f"MCP server {self._tool.name!r} did not answer within {OPEN_TIMEOUT:g} s",
                    next_step="run it by hand and see what it waits for",
                ) from None
            raise

    async def _connect(self, credentials: Mapping[str, str]) -> Transport:
        if self._http is not None and self._tool.url is not None:
            headers = {name: value.strip() for name, value in credentials.items()}
            return HttpTransport(
                self._tool.name, self._tool.url, headers=headers, session=self._http, max_message=self._max_message
            )
        for name in credentials:
            if not _VARIABLE.fullmatch(name):
                raise ToolFailed(
                    f"{name!r} can't be an environment variable of MCP server {self._tool.name!r}",
                    next_step="name credentials of a command with letters, digits and `_`",
                )
        return await StdioTransport.start(
            self._tool.name,
            self._tool.command or (),
            environ=environment(os.environ, credentials),
            work_dir=self._work_dir,
            max_message=self._max_message,
            scrub=self._credentials.scrub,
            fields=self._fields,
        )

    def _opened(self, task: "asyncio.Task[Session]") -> None:
        self._opening = None
        if task.cancelled():
            return
        if task.exception() is None:
            self._session = task.result()
            self._delay = 0.0
            if self._closed:
                self._drop(self._session)
            return
        self._delay = min(max(FIRST_DELAY, self._delay * 2), LONGEST_DELAY)
        self._not_before = asyncio.get_running_loop().time() + self._delay

    def _drop(self, session: Session) -> None:
        if self._session is session:
            self._session = None
        task = asyncio.create_task(_end(session), name=f"mcp-{self._tool.name}-end", context=contextvars.Context())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _offered(self, name: str, offered: Mapping[str, OfferedTool]) -> OfferedTool:
        if name in offered:
            return offered[name]
        known = ", ".join(sorted(offered)[:50]) or "none"
        raise AgentLoadError(
            f"MCP server {self._tool.name!r} has no tool {name!r} (its tools: {known}){did_you_mean(name, offered)}",
            next_step="list under `allow` what the server offers",
            agent=self._document.name,
        )


class McpServerTool:
    """One tool of a server."""

    kind = "mcp"

    def __init__(self, server: McpServer, tool: McpTool, offered: OfferedTool) -> None:
        """Bind what the server offers to the name that the agent sees."""
        name = full_name(tool.name, offered.name)
        schema = {"properties": {}, **offered.input_schema, "type": offered.input_schema.get("type", "object")}
        if len(msgspec.json.encode(schema)) > MAX_SCHEMA:
            raise AgentLoadError(f"the schema of tool {name!r} is larger than {MAX_SCHEMA} bytes")
        told = offered.description or offered.title or f"The tool {offered.name} of {tool.name}."
        self.limits: ToolLimits = tool.limits
        self.arguments = ArgumentCheck(name, schema)
        self.spec = ToolSpec(name=name, description=told[:MAX_DESCRIPTION], parameters=schema)
        self._server = server
        self._name = offered.name

    async def run(self, arguments: dict[str, Any], call: CallContext, seconds: float) -> str:
        """Call it."""
        key = call.idempotency_key
        return as_text(self.spec.name, await self._server.call(self._name, arguments, call.request.call, key))


async def _end(session: Session) -> None:
    try:
        await session.aclose()
    except (ProblemError, OSError):
        return
