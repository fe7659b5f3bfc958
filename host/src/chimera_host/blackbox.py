"""The black box: a small file that says which calls a host is running, and still says so after the host is dead.

It is mapped into memory and written in place, so that a record costs a microsecond, needs no flush, and survives
SIGKILL and a segmentation fault: the pages belong to the kernel. Each running call has a slot of fixed size. Whoever
watches the host (the node agent) reads the file when the process is gone and learns which agents to suspect; when the
host ends itself it leaves last words that name the agent.

Layout, little-endian: a header, `slots` slots, and an area for the last words as JSON. A slot's first byte is written
last when a call begins and first when it ends, so a torn write is never taken for a call.
"""

import mmap
import os
import struct
import time
from pathlib import Path

import msgspec
from msgspec import Struct

_MAGIC = b"CHIMBOX1"
_HEADER = struct.Struct("<8sIIdd")  # magic, process id, slots, started, heartbeat
_HEADER_SIZE = 64
_SLOT = struct.Struct(
    "<xBxxxxxxdd64s64s64s72s"
)  # in use apart; cancelled; started, deadline; tenant, agent, call, revision
_SLOT_SIZE = 320
_LENGTH = struct.Struct("<I")
_WORDS_SIZE = 8192
_HEARTBEAT_OFFSET = 24


class RecordedCall(Struct, frozen=True, kw_only=True):
    """A call that was running. Times are Unix times; `cancelled` if it was told to stop and had not yet."""

    tenant: str
    agent: str
    call: str
    revision: str
    started: float
    deadline: float
    cancelled: bool = False

    def seconds(self, until: float) -> float:
        """How long it had run at the time `until`."""
        return max(0.0, until - self.started)


class LastWords(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a host ended itself: the name of its exit code, the reason in words, and the agents that caused it."""

    exit: str
    reason: str
    agents: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    at: float = 0.0


class Recording(Struct, frozen=True, kw_only=True):
    """What a black box holds. `heartbeat` is the last time its writer was known to live."""

    pid: int
    started: float
    heartbeat: float
    calls: tuple[RecordedCall, ...]
    last_words: LastWords | None = None


class BlackBox:
    """The writing side; one per host, used from the event loop and the watchdog's thread."""

    def __init__(self, path: Path, slots: int) -> None:
        """Make the file anew with room for `slots` calls at once."""
        size = _HEADER_SIZE + slots * _SLOT_SIZE + _WORDS_SIZE
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size)
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._slots = slots
        self._free = list(range(slots - 1, -1, -1))
        now = time.time()
        _HEADER.pack_into(self._map, 0, _MAGIC, os.getpid(), slots, now, now)

    def begin(self, call: RecordedCall) -> int | None:
        """Record a call; its slot, to be given back with `end`. None when all slots are taken."""
        if not self._free:
            return None
        slot = self._free.pop()
        offset = _HEADER_SIZE + slot * _SLOT_SIZE
        _SLOT.pack_into(
            self._map,
            offset,
            call.cancelled,
            call.started,
            call.deadline,
            _fixed(call.tenant, 64),
            _fixed(call.agent, 64),
            _fixed(call.call, 64),
            _fixed(call.revision, 72),
        )
        self._map[offset] = 1
        return slot

    def mark_cancelled(self, slot: int | None) -> None:
        """The call was told to stop."""
        if slot is not None:
            self._map[_HEADER_SIZE + slot * _SLOT_SIZE + 1] = 1

    def end(self, slot: int | None) -> None:
        """The call is over."""
        if slot is not None:
            self._map[_HEADER_SIZE + slot * _SLOT_SIZE] = 0
            self._free.append(slot)

    def beat(self, at: float) -> None:
        """The writer lives at the Unix time `at`."""
        struct.pack_into("<d", self._map, _HEARTBEAT_OFFSET, at)

    def last_words(self, words: LastWords) -> None:
        """Say why the host ends."""
        data = msgspec.json.encode(words)
        if len(data) > _WORDS_SIZE - _LENGTH.size:
            data = msgspec.json.encode(msgspec.structs.replace(words, reason=words.reason[:1000], calls=(), agents=()))
        offset = _HEADER_SIZE + self._slots * _SLOT_SIZE
        self._map[offset + _LENGTH.size : offset + _LENGTH.size + len(data)] = data
        _LENGTH.pack_into(self._map, offset, len(data))

    def close(self) -> None:
        """Unmap it; the file stays."""
        self._map.close()


def _fixed(text: str, size: int) -> bytes:
    data = text.encode()
    return data if len(data) <= size else data[:size].decode(errors="ignore").encode()


def read_black_box(path: Path | str) -> Recording | None:
    """What the black box at `path` holds, or None where there is no file or it isn't a black box."""
    try:
        data = Path(path).read_bytes()
        magic, pid, slots, started, heartbeat = _HEADER.unpack_from(data, 0)
        if magic != _MAGIC or len(data) != _HEADER_SIZE + slots * _SLOT_SIZE + _WORDS_SIZE:
            return None
        offsets = [_HEADER_SIZE + slot * _SLOT_SIZE for slot in range(slots)]
        calls = tuple(_recorded(data, offset) for offset in offsets if data[offset] == 1)
        words = _words(data, _HEADER_SIZE + slots * _SLOT_SIZE)
    except (OSError, struct.error):
        return None
    return Recording(pid=pid, started=started, heartbeat=heartbeat, calls=calls, last_words=words)


def _recorded(data: bytes, offset: int) -> RecordedCall:
    cancelled, started, deadline, *texts = _SLOT.unpack_from(data, offset)
    tenant, agent, call, revision = (text.rstrip(b"\0").decode(errors="replace") for text in texts)
    return RecordedCall(
        tenant=tenant,
        agent=agent,
        call=call,
        revision=revision,
        started=started,
        deadline=deadline,
        cancelled=bool(cancelled),
    )


def _words(data: bytes, offset: int) -> LastWords | None:
    (length,) = _LENGTH.unpack_from(data, offset)
    if not 0 < length <= _WORDS_SIZE - _LENGTH.size:
        return None
    try:
        return msgspec.json.decode(data[offset + _LENGTH.size :][:length], type=LastWords)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
