"""How a process that reads what strangers sent speaks with the one that started it, and the bounds that it takes.

It reads messages from its standard input and writes them to its standard output, each with its length before it, and
ends when its input does: with whoever asked.
"""

import resource
import signal
from typing import BinaryIO

import msgspec
from msgspec import Struct

MOST_FRAME = 512 * 1024**2


def read_frame(source: BinaryIO) -> bytes | None:
    """The next frame; None at the end."""
    head = source.read(4)
    if len(head) < 4:
        return None
    length = int.from_bytes(head, "big")
    data = source.read(length)
    return data if len(data) == length else None


def framed(value: Struct) -> bytes:
    """A frame with its length."""
    data = msgspec.msgpack.encode(value)
    return len(data).to_bytes(4, "big") + data


def bound(*, memory: int, file_bytes: int) -> None:
    """Take bounds of memory (of addresses) and of the size of files, both in bytes; Ctrl-C is the asker's to hear."""
    for limit, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def bound_cpu(seconds: float) -> None:
    """End this process (SIGXCPU) once it has used so much more of a processor: whoever asked may be gone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime + seconds) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
