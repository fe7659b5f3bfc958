"""Function tools: Python functions of the agent's source folder, called with checked arguments.

A function that is no coroutine runs in a thread, so that it may block. It gets keyword arguments, and a `ToolContext`
where it has a parameter of that type. A text it returns is the answer as it is, anything else becomes JSON; None is an
empty answer. See `context` for what the egress rule can and can't do for plain code.
"""

import asyncio
import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import msgspec

from chimera_host.broker.arguments import ArgumentCheck
from chimera_host.broker.context import ToolContext
from chimera_host.broker.credentials import Credentials
from chimera_host.broker.egress import parse_list
from chimera_host.broker.http import CheckedHttp, CheckedSession
from chimera_host.broker.running import Runner, resolved
from chimera_host.broker.signature import read
from chimera_host.contract.agent import AgentDocument
from chimera_host.contract.tools import FunctionTool
from chimera_host.errors import ToolFailed
from chimera_host.ports import CallContext, ToolSpec


class BoundFunction:
    """A function tool of a loaded agent."""

    kind = "function"

    def __init__(
        self,
        tool: FunctionTool,
        function: Callable[..., Any],
        *,
        document: AgentDocument,
        work_dir: str,
        credentials: Credentials,
        runner: Runner,
    ) -> None:
        """Bind `tool` to its function, whose signature is read here."""
        self._signature = read(tool.name, function, description=tool.description, parameters=tool.parameters)
        self.limits = tool.limits
        self.arguments = ArgumentCheck(tool.name, self._signature.parameters)
        self.spec = ToolSpec(
            name=tool.name, description=self._signature.description, parameters=self._signature.parameters
        )
        self._tool = tool
        self._function = function
        self._on_loop = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - a callable object with an asynchronous __call__
        )
        self._document = document
        self._work_dir = work_dir
        self._credentials = credentials
        self._runner = runner
        self._session = CheckedSession(parse_list(tool.name, tool.limits.egress))

    async def run(self, arguments: dict[str, Any], call: CallContext, seconds: float) -> str:
        """Call the function; the text of what it returns."""
        given = self._signature.convert(arguments)
        if self._signature.context is not None:
            given[self._signature.context] = await self._context(call)
        if self._on_loop:
            result = self._function(**given)
        else:
            result = await self._runner.in_thread(lambda: self._function(**given))
        return as_text(self._tool.name, await resolved(result))

    async def _context(self, call: CallContext) -> ToolContext:
        return ToolContext(
            tenant=self._document.tenant,
            agent=self._document.name,
            tool=self._tool.name,
            work_dir=self._work_dir,
            http=CheckedHttp(self._session, asyncio.get_running_loop()),
            call=call,
            idempotency_key=call.idempotency_key,
            credentials=await self._credentials.fetch(call.request.call, self._tool.credentials),
        )

    async def aclose(self) -> None:
        """Close the connections of its HTTP client."""
        await self._session.aclose()


def as_text(tool: str, value: Any) -> str:
    """What a function returned, as the answer of the tool."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return msgspec.json.encode(value, enc_hook=_plain).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ToolFailed(
            f"tool {tool!r} returned {type(value).__name__}, which has no JSON form ({error})",
            next_step="return a text, or data that JSON can hold",
        ) from None


def _plain(value: Any) -> Any:
    """What msgspec doesn't know: models of pydantic say themselves what they are in JSON."""
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} is not JSON data")
