"""The zygote: a warm parent that has imported one framework and forks a host whenever it is asked to.

Importing a framework takes seconds and tens of megabytes; a forked child has it at once and shares the memory. The
zygote has one thread, no event loop and no open connection, so that a fork is safe. It is told what to do over a Unix
stream socket, in JSON lines of at most 64 KiB:

    request   {"op": "fork", "id": …, "config": HostConfig}, with three descriptors: listening socket, log, lifeline
    reply     {"op": "ready", "framework": …, "pid": …, "seconds": …}     once it is warm
              {"op": "forked", "id": …, "pid": …}
              {"op": "exited", "id": …, "pid": …, "status": wait status}
              {"op": "failed", "id": …, "error": …}

When the socket closes, the parent is gone: the zygote ends its children, then itself.
"""

import array
import contextlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from typing import NoReturn

import msgspec
from msgspec import Struct

from chimera_host import process
from chimera_host.config import HostConfig
from chimera_host.contract.agent import FrameworkName
from chimera_host.contract.zygote import ForkRequest, Reply
from chimera_host.logs import configure
from chimera_host.ports import FrameworkAdapter

log = logging.getLogger(__name__)

MAX_LINE = 64 * 1024
DESCRIPTORS = 3
KILL_AFTER = 2.0


class _Named(Struct, frozen=True):
    id: str


_requests = msgspec.json.Decoder(ForkRequest)


class Control:
    """The zygote's end of the control socket: lines in with their descriptors, lines out."""

    def __init__(self, channel: socket.socket) -> None:
        """Speak over `channel`."""
        self._channel = channel
        self._buffer = b""
        self._descriptors: deque[int] = deque()

    def fileno(self) -> int:
        """For polling."""
        return self._channel.fileno()

    def receive(self) -> list[bytes] | None:
        """The lines that came; None when the other end is closed or speaks no lines."""
        size = socket.CMSG_SPACE(DESCRIPTORS * 4)
        data, ancillary, _, _ = self._channel.recvmsg(MAX_LINE, size)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
                self._descriptors.extend(numbers)
        if not data:
            return None
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return lines if len(self._buffer) <= MAX_LINE else None

    def descriptors(self) -> tuple[int, int, int] | None:
        """The three descriptors of the request that is being read; None if they did not come."""
        if len(self._descriptors) < DESCRIPTORS:
            return None
        return self._descriptors.popleft(), self._descriptors.popleft(), self._descriptors.popleft()

    def send(self, reply: Reply) -> None:
        """Say something; a closed socket is noticed when reading."""
        with contextlib.suppress(OSError):
            self._channel.sendall(msgspec.json.encode(reply) + b"\n")

    def close(self) -> None:
        """Close the socket."""
        self._channel.close()


class Zygote:
    """Forks hosts and reports their ends."""

    def __init__(self, adapter: FrameworkAdapter, control: Control) -> None:
        """Fork hosts of `adapter`, which is preloaded, as `control` asks."""
        self._adapter = adapter
        self._control = control
        self._children: dict[int, str] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def run(self) -> None:
        """Serve until the control socket closes or SIGTERM comes, then end all children."""
        stop = False

        def on_signal(number: int, _: object) -> None:
            nonlocal stop
            stop = stop or number == signal.SIGTERM

        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's business
        poll = select.poll()
        poll.register(self._control, select.POLLIN | select.POLLHUP)
        poll.register(self._wake_read, select.POLLIN)
        while not stop:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
                self._reap()
            if self._control.fileno() in ready and not self._serve():
                break
        self._end_children()

    def _serve(self) -> bool:
        try:
            lines = self._control.receive()
        except OSError:
            return False
        if lines is None:
            return False
        for line in lines:
            if line.strip():
                self._fork(line)
        return True

    def _fork(self, line: bytes) -> None:
        descriptors = self._control.descriptors()
        try:
            request = _requests.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _close(descriptors)
            self._control.send(Reply(op="failed", id=_id_of(line), error=f"not a request: {error}"))
            return
        if descriptors is None:
            self._control.send(Reply(op="failed", id=request.id, error=f"needs {DESCRIPTORS} descriptors"))
            return
        if request.config.framework != self._adapter.name:
            error_text = f"this zygote runs {self._adapter.name}, not {request.config.framework}"
            _close(descriptors)
            self._control.send(Reply(op="failed", id=request.id, error=error_text))
            return
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            _close(descriptors)
            self._control.send(Reply(op="failed", id=request.id, error=f"fork: {error}"))
            return
        if pid == 0:
            self._become_host(request.config, descriptors, parent)
        _close(descriptors)
        self._children[pid] = request.id
        self._control.send(Reply(op="forked", id=request.id, pid=pid))

    def _become_host(self, config: HostConfig, descriptors: tuple[int, int, int], parent: int) -> NoReturn:
        code = 1
        try:
            listening, log_end, lifeline = descriptors
            self._control.close()
            os.close(self._wake_read)
            signal.set_wakeup_fd(-1)
            os.close(self._wake_write)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            process.die_with_parent(parent)
            os.dup2(log_end, 1)
            os.dup2(log_end, 2)
            os.close(log_end)
            code = process.run(config, self._adapter, socket.socket(fileno=listening), lifeline)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if (name := self._children.pop(pid, None)) is not None:
                self._control.send(Reply(op="exited", id=name, pid=pid, status=status))

    def _end_children(self) -> None:
        """Their lifelines are cut too when the parent died; whoever is left after a moment is killed."""
        for pid in self._children:
            os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + KILL_AFTER
        while self._children and time.monotonic() < until:
            self._reap()
            time.sleep(0.02)
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)


def _id_of(line: bytes) -> str | None:
    """The id of a request that is otherwise not understood."""
    try:
        return msgspec.json.decode(line, type=_Named).id
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _close(descriptors: tuple[int, ...] | None) -> None:
    for descriptor in descriptors or ():
        os.close(descriptor)


def main(framework: FrameworkName, control_fd: int) -> int:
    """Warm up, say so, and serve; the exit code."""
    configure("zygote", framework=framework)
    began = time.perf_counter()
    adapter = process.preload(framework)
    control = Control(socket.socket(fileno=control_fd))
    control.send(Reply(op="ready", framework=framework, pid=os.getpid(), seconds=round(time.perf_counter() - began, 3)))
    Zygote(adapter, control).run()
    return 0
