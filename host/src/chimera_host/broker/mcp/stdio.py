"""An MCP server as a child process: messages are lines on its standard input and output.

The process gets an environment of its own, made from a short list and the tool's credentials, so that nothing of the
host's is in it. Its standard error is logged under the agent. It lives no longer than the host: a shell, the guard,
waits for the end of a pipe whose other end only the host holds. However the host ends, the pipe ends with it, and the
guard kills the server's process group, with whatever the server has started. A line is bounded, so that a server can't
fill the host's memory.
"""

import asyncio
import contextvars
import logging
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from chimera_host.broker.mcp.protocol import Message, ServerGone, decode, is_response, reply_to
from chimera_host.errors import ToolFailed
from chimera_host.logs import log_fields

log = logging.getLogger(__name__)

INHERITED = ("HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""All that a server gets of the host's environment, besides the search path."""

MAX_SAID = 256 * 1024
GRACE = 1.5
"""Seconds that a server has to end after its input was closed, and again after SIGTERM."""

_GUARD = 'read -r _; kill -9 "-$1"'


def environment(environ: Mapping[str, str], credentials: Mapping[str, str]) -> dict[str, str]:
    """A server's environment. Commands of the agent's own runtime environment are found first."""
    kept = {name: environ[name] for name in INHERITED if name in environ}
    own = str(Path(sys.executable).parent)
    return {**kept, "PATH": f"{own}{os.pathsep}{environ.get('PATH', os.defpath)}", **credentials}


class StdioTransport:
    """One running server. Made by `start`."""

    version: str | None = None

    def __init__(
        self,
        server: str,
        process: asyncio.subprocess.Process,
        guard: asyncio.subprocess.Process,
        scrub: Callable[[str], str],
        fields: Mapping[str, str],
    ) -> None:
        """Take over processes that have just been started."""
        self._server = server
        self._process = process
        self._guard = guard
        self._scrub = scrub
        self._waiting: dict[Any, asyncio.Future[Message]] = {}
        self._gone: ServerGone | None = None
        self._closing = False
        self._last_said: deque[str] = deque(maxlen=3)
        context = contextvars.Context()
        context.run(log_fields.set, fields)
        self._tasks = [
            self._begin(self._read(), "read", context),
            self._begin(self._log_errors(), "errors", context),
        ]

    @classmethod
    async def start(
        cls,
        server: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        work_dir: str,
        max_message: int,
        scrub: Callable[[str], str],
        fields: Mapping[str, str],
    ) -> "StdioTransport":
        """Start `command` in `work_dir`."""
        pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                limit=max_message,
                cwd=work_dir,
                env=dict(environ),
                executable=_find(command[0], environ["PATH"], work_dir),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "its command or environment holds a NUL"
            raise ToolFailed(
                f"MCP server {server!r} can't be started: {command[0]!r}: {reason}",
                next_step="install it on the machine of the host, or in the agent's requirements",
            ) from None
        try:
            guard = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", _GUARD, "sh", str(process.pid)),
                stdin=pipe,
                stdout=nothing,
                stderr=nothing,
                env={},
                start_new_session=True,
            )
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return cls(server, process, guard, scrub, fields)

    @property
    def alive(self) -> bool:
        """Whether the process takes requests."""
        return self._gone is None and not self._closing and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    async def request(self, message: Message) -> Message:
        """Send a request and wait for its response."""
        if self._gone is not None:
            raise ServerGone(self._gone.detail, sent=False)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[message["id"]] = answer
        try:
            await self.send(message)
            return await answer
        finally:
            self._waiting.pop(message["id"], None)

    async def send(self, message: Message) -> None:
        """Write a message, when the server has read enough of the earlier ones."""
        self.send_soon(message)
        assert self._process.stdin is not None
        with suppress(ConnectionError, RuntimeError):  # the reader tells what happened
            await self._process.stdin.drain()

    def send_soon(self, message: Message) -> None:
        """Write a message, or at least have it wait for being written."""
        stdin = self._process.stdin
        assert stdin is not None
        if not stdin.is_closing():
            with suppress(ConnectionError, RuntimeError):
                stdin.write(msgspec.json.encode(message) + b"\n")

    async def aclose(self) -> None:
        """End the server: close its input, ask it, kill it with all it started."""
        if self._closing:
            return
        self._closing = True
        assert self._process.stdin is not None
        self._process.stdin.close()
        if not await self._ended_within(GRACE):
            self._tell_group(signal.SIGTERM)
            await self._ended_within(GRACE)
        # The guard goes first: when the group is gone, its number may come to mean another.
        with suppress(ProcessLookupError):
            self._guard.kill()
        await self._guard.wait()
        self._tell_group(signal.SIGKILL)
        await self._ended_within(GRACE)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail(ServerGone(f"MCP server {self._server!r} was closed", sent=True))

    # -- reading --------------------------------------------------------------------------------------------------

    def _begin(self, work: Coroutine[Any, Any, None], what: str, context: contextvars.Context) -> "asyncio.Task[None]":
        return asyncio.create_task(work, name=f"mcp-{self._server}-{what}", context=context.copy())

    async def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        reason: str | None = None
        try:
            while True:
                try:
                    line = await stdout.readuntil(b"\n")
                except asyncio.IncompleteReadError:
                    break
                except asyncio.LimitOverrunError:
                    reason = "sent a message that is longer than it may be"
                    self._tell_group(signal.SIGKILL)
                    break
                self._take(line)
        except (ConnectionError, OSError) as error:
            reason = f"can't be read from ({type(error).__name__})"
        self._fail(ServerGone(f"MCP server {self._server!r} {reason or await self._how_it_ended()}", sent=True))

    def _take(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            messages = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            log.warning("an MCP server printed what is no message", extra={"tool": self._server, "bytes": len(line)})
            return
        for message in messages:
            if is_response(message):
                answer = self._waiting.get(_id(message))
                if answer is not None and not answer.done():
                    answer.set_result(message)
            elif (reply := reply_to(message)) is not None:
                self.send_soon(reply)

    async def _log_errors(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        left = MAX_SAID
        rest = b""
        while piece := await stderr.read(16 * 1024):
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > 8_000:
                lines.append(rest)
                rest = b""
            for line in lines:
                self._said(line, left)
                left -= len(line)
        self._said(rest, left)

    def _said(self, line: bytes, left: int) -> None:
        text = self._scrub(line.decode("utf-8", "replace").strip())[:2_000]
        if not text:
            return
        self._last_said.append(text[:300])
        if left > 0:
            log.info("an MCP server said", extra={"tool": self._server, "said": text})

    async def _how_it_ended(self) -> str:
        await self._ended_within(1.0)
        await asyncio.sleep(0)  # its last words may just have come
        code = self._process.returncode
        if code is None:
            return "closed its output"
        told = f" (it said: {' / '.join(self._last_said)})" if self._last_said else ""
        if code < 0:
            return f"was ended by signal {-code}{told}"
        return f"ended with exit code {code}{told}"

    def _fail(self, gone: ServerGone) -> None:
        if self._gone is None:
            self._gone = gone
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ServerGone(self._gone.detail, sent=True))
                answer.exception()  # seen, also where its caller is gone

    # -- the process ----------------------------------------------------------------------------------------------

    async def _ended_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return self._process.returncode is not None
        return True

    def _tell_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _find(command: str, path: str, work_dir: str) -> str:
    """The file of a command: as a shell finds it with the server's search path, in the server's folder."""
    if "/" in command:
        return str(Path(work_dir, command))
    return shutil.which(command, path=path) or command


def _id(message: Message) -> Any:
    """The id of a response; a server may have made a text of the number, or something that is no key."""
    number = message.get("id")
    if isinstance(number, str) and number.isdigit():
        return int(number)
    return number if isinstance(number, int) else None
