"""What the processes need at their start: secrets, sockets to listen on, and a child's word that it listens.

None of it knows the parts of the platform; `supervisor`, `control_plane` and `gateway_parts` put it to use.
"""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from aiohttp import web

from chimera.adapters.substrates.local.children import Child
from chimera_host.contract.problem import ProblemError

READY_TIMEOUT = 300.0
"""Seconds that a process may take to listen. On a free processor it takes two, and one that ends is told of at once. So
only a machine that is busy beyond measure, or a process that hangs, makes anybody wait for so long."""


class PortTaken(ProblemError):
    """Somebody else listens at the address."""

    code = "port-taken"
    status = 409
    title = "The port is taken"


def secret_of(file: Path) -> bytes:
    """The secret in `file`, made (256 random bits, mode 0600) where it isn't there."""
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return file.read_bytes().strip()
    try:
        os.write(descriptor, secrets.token_urlsafe(32).encode() + b"\n")
    finally:
        os.close(descriptor)
    return file.read_bytes().strip()


def listener(host: str, port: int) -> socket.socket:
    """A listening socket that the gateway inherits: while it is started again, connections wait here."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise PortTaken(
            f"{host} port {port} can't be listened on: {error.strerror or error}",
            next_step="stop what listens there, or give another --port (0 takes a free one)",
        ) from None


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


async def listen_unix(runner: web.BaseRunner, path: Path, *, backlog: int = 256) -> None:
    """Serve at the Unix socket `path`, for this user alone; what a process that did not end cleanly left is removed."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # noqa: ASYNC240 - once, before anything is served
    before = os.umask(0o177)
    try:
        await web.UnixSite(runner, str(path), backlog=backlog).start()
    finally:
        os.umask(before)


@contextlib.contextmanager
def ready_pipe() -> Iterator[tuple[int, int]]:
    """A pipe for a child's word that it listens: where to read it, and what to hand down, which stays open.

    The child may be started again with the same descriptors long after its first start was waited for.
    """
    read, write = os.pipe()
    try:
        yield read, write
    finally:
        os.close(read)


def tell_ready(descriptor: int | None, where: Mapping[str, str]) -> None:
    """Write to `descriptor`, a parent's pipe, `where` this process listens now, as a line of JSON."""
    if descriptor is not None:
        with contextlib.suppress(OSError):  # whoever waited for the first start isn't there at the second
            os.write(descriptor, msgspec.json.encode(where) + b"\n")


async def ready(child: Child, descriptor: int) -> bytes:
    """What `child` writes to `descriptor` once it listens; raises `ProblemError` when it doesn't get there."""
    said = asyncio.create_task(_first_line(descriptor), name="first-line")
    fallen = asyncio.create_task(child.fallen.wait(), name="fallen")
    try:
        done, _ = await asyncio.wait((said, fallen), timeout=READY_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if said in done:
            return said.result()
    finally:
        fallen.cancel()
        said.cancel()
        await asyncio.wait((said, fallen))
    what = f"was not ready after {READY_TIMEOUT:.0f} s"
    if fallen in done:
        what = f"ended each time it was started: {child.last_words()}"
    raise ProblemError(f"the {child.spec.name} {what}", next_step=f"see {child.spec.log}")


async def _first_line(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while b"\n" not in data:
        readable = asyncio.Event()
        loop.add_reader(descriptor, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(descriptor)
        data += os.read(descriptor, 4096)
    return data
