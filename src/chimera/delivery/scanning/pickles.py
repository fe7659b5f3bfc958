"""What a pickle would do, read without running it.

A small machine follows the opcodes with a stack and a memo, as the real one does, but calls nothing. It has to: the
name of a global may be put together from pieces on the stack, fetched from the memo, or nested. What it can't follow (a
name that is computed, a stack that doesn't fit, an end that is missing) is said. Opcodes before a fault count,
since the real machine runs them before it meets the fault.

joblib puts the raw bytes of an array behind the opcode that builds its wrapper. The machine steps over them by the
shape and type that the wrapper was given, and reads the same bytes as opcodes too, since plain `pickle.load` would.
"""

import io
import pickletools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from chimera.delivery.scanning.pickle_globals import is_allowed, is_harmful

MOST_OPCODES = 3_000_000
MOST_GLOBALS = 1_000
MOST_PICKLES = 1_000
_OPENERS = frozenset(b"\x80(c]}lditpIFLSVN)KMJGUTXqQ0123456789\x8c\x8d\x8a\x88\x89\x94\x95")
"""What pickles without a mark of their own begin with, and such as have one that is odd."""
_ARRAY = "joblib.numpy_pickle.NumpyArrayWrapper"
_DTYPE = re.compile(r"[<>|=]?([?biufcSUVmM])([0-9]*)")


class Global(Struct, frozen=True):
    """Something by its name in a module."""

    module: str
    name: str

    @property
    def full(self) -> str:
        """`module.name`."""
        return f"{self.module}.{self.name}"


class Reading(Struct, frozen=True, kw_only=True):
    """What was read of one pickle: globals it names, oddities, and why it could not be read to its end.

    `called` says that it calls something, `nested` are bytes in it that may be pickles themselves.
    """

    globals: tuple[Global, ...]
    odd: tuple[str, ...]
    fault: str | None
    end: int
    called: bool = False
    nested: tuple[bytes, ...] = ()


class _Mark:
    """The mark on the stack."""


class _Unknown:
    """A value that nobody needs to know."""


class _Call:
    """What a call of `function` would give; `state` is what was built into it."""

    __slots__ = ("arguments", "function", "state")

    def __init__(self, function: Any, arguments: Any) -> None:
        """A call that isn't made."""
        self.function = function
        self.arguments = arguments
        self.state: Any = None


_MARK, _UNKNOWN = _Mark(), _Unknown()


class _Fault(Exception):
    """Why the machine can't go on."""


@dataclass(kw_only=True)
class _Machine:
    stream: io.BytesIO
    arrays: bool
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    globals: dict[Global, None] = field(default_factory=dict)
    odd: dict[str, None] = field(default_factory=dict)
    nested: list[bytes] = field(default_factory=list)
    called: bool = False

    def run(self) -> None:
        """Follow the opcodes to STOP."""
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self.stream)):
            if count >= MOST_OPCODES:
                raise _Fault(f"it has more than {MOST_OPCODES:,} opcodes")
            self.step(opcode, argument)

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """One opcode."""
        special = _STEPS.get(opcode.name)
        if special is not None:
            special(self, argument)
        elif opcode.name in _PUSHES:
            self.stack.append(argument if isinstance(argument, (str, int, bool)) else _UNKNOWN)
            if isinstance(argument, (bytes, bytearray)) and argument[:1] and argument[0] in _OPENERS:
                self.nested.append(bytes(argument))
        else:
            self.generic(opcode)

    def generic(self, opcode: pickletools.OpcodeInfo) -> None:
        """Any other opcode, by what it says of the stack."""
        before = opcode.stack_before
        if pickletools.markobject in before:
            self.to_mark()
            for _ in range(before.index(pickletools.markobject)):
                self.pop()
        else:
            for _ in before:
                self.pop()
        self.stack.extend(_UNKNOWN for _ in opcode.stack_after)

    def pop(self) -> Any:
        """The top of the stack."""
        if not self.stack or self.stack[-1] is _MARK:
            raise _Fault("its stack doesn't fit its opcodes")
        return self.stack.pop()

    def to_mark(self) -> list[Any]:
        """Everything above the mark, and the mark gone."""
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise _Fault("a mark is missing on its stack")

    def name(self, module: Any, name: Any) -> None:
        """A global is named, and put on the stack."""
        if isinstance(module, str) and isinstance(name, str):
            named = Global(module, name)
            self.globals[named] = None
            self.stack.append(named)
            if len(self.globals) > MOST_GLOBALS:
                raise _Fault(f"it names more than {MOST_GLOBALS:,} globals")
        else:
            self.odd["it computes the name of what it fetches"] = None
            self.stack.append(_UNKNOWN)

    def call(self, function: Any, arguments: Any) -> None:
        """A call, which isn't made."""
        self.called = True
        if not isinstance(function, Global):
            self.odd["it calls something that another call gave"] = None
        self.stack.append(_Call(function, arguments))

    def build(self, state: Any) -> None:
        """State is set on what is on top."""
        target = self.stack[-1] if self.stack else _UNKNOWN
        if isinstance(target, Global):
            self.odd[f"it changes {target.full} itself"] = None
        elif isinstance(target, _Call):
            target.state = state
            if self.arrays and isinstance(target.function, Global) and target.function.full == _ARRAY:
                self.skip_array(state)

    def skip_array(self, state: Any) -> None:
        """Step over the raw bytes of joblib's array, or into the pickle that stands for one of objects."""
        if not isinstance(state, dict):
            raise _Fault("an array's shape and type aren't known")
        size = _item_size(state.get("dtype"))
        shape = state.get("shape")
        if size is None or not isinstance(shape, tuple) or not all(type(one) is int and one >= 0 for one in shape):
            raise _Fault("an array's shape and type aren't known")
        if size == 0:
            inner = _Machine(stream=self.stream, arrays=True)
            inner.globals, inner.odd, inner.nested = self.globals, self.odd, self.nested
            inner.run()
            self.called |= inner.called
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            padding = self.stream.read(1)
            self.stream.seek(padding[0] if padding else 0, io.SEEK_CUR)
        for one in shape:
            size *= one
            if size > len(self.stream.getbuffer()):
                raise _Fault("an array claims more bytes than the file has")
        self.stream.seek(size, io.SEEK_CUR)


def _item_size(dtype: Any) -> int | None:
    """Bytes of an item of a type; 0 for objects, None where it isn't known."""
    if not isinstance(dtype, _Call) or not isinstance(dtype.function, Global) or dtype.function.full != "numpy.dtype":
        return None
    arguments = dtype.arguments
    text = arguments[0] if isinstance(arguments, tuple) and arguments else None
    if not isinstance(text, str):
        return None
    if text.lstrip("|") in ("O", "O8", "O4"):
        return 0
    match = _DTYPE.fullmatch(text)
    if match is None or match[1] == "V":
        return None
    return int(match[2] or 1) * (4 if match[1] == "U" else 1)


def _flat(items: list[Any]) -> Any:
    """A tuple of what can be known, one level deep."""
    return tuple(_UNKNOWN if isinstance(one, (tuple, dict)) else one for one in items)


def _reduce(machine: _Machine, _: Any) -> None:
    arguments = machine.pop()
    machine.call(machine.pop(), arguments)


def _new_with_keywords(machine: _Machine, _: Any) -> None:
    machine.pop()
    _reduce(machine, None)


def _object(machine: _Machine, _: Any) -> None:
    items = machine.to_mark()
    if not items:
        raise _Fault("its stack doesn't fit its opcodes")
    machine.call(items[0], _flat(items[1:]))


def _instance(machine: _Machine, argument: Any) -> None:
    items = machine.to_mark()
    module, _, name = str(argument).partition(" ")
    machine.name(module, name)
    machine.call(machine.pop(), _flat(items))


def _global(machine: _Machine, argument: Any) -> None:
    module, _, name = str(argument).partition(" ")
    machine.name(module, name)


def _stack_global(machine: _Machine, _: Any) -> None:
    name = machine.pop()
    machine.name(machine.pop(), name)


def _extension(machine: _Machine, _: Any) -> None:
    machine.odd["it fetches something by a number that only the program knows that loads it"] = None
    machine.stack.append(_UNKNOWN)


def _memoize(machine: _Machine, argument: Any) -> None:
    if not machine.stack:
        raise _Fault("its stack doesn't fit its opcodes")
    machine.memo[len(machine.memo) if argument is None else int(argument)] = machine.stack[-1]


def _recall(machine: _Machine, argument: Any) -> None:
    if int(argument) not in machine.memo:
        raise _Fault("it recalls what it never kept")
    machine.stack.append(machine.memo[int(argument)])


def _tuple_of(count: int) -> Any:
    def step(machine: _Machine, _: Any) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.stack.append(_flat(items[::-1]))

    return step


def _set_items(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1] if machine.stack else _UNKNOWN
    if isinstance(target, dict):
        for key, value in zip(items[::2], items[1::2], strict=False):
            target[key if isinstance(key, str) else ""] = value


def _pop(machine: _Machine, _: Any) -> None:
    if not machine.stack:
        raise _Fault("its stack doesn't fit its opcodes")
    machine.stack.pop()


def _dup(machine: _Machine, _: Any) -> None:
    machine.stack.append(machine.pop())
    machine.stack.append(machine.stack[-1])


def _build(machine: _Machine, _: Any) -> None:
    machine.build(machine.pop())


def _set_item(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    _set_items(machine, [machine.pop(), value])


_STEPS: dict[str, Any] = {
    "MARK": lambda machine, _: machine.stack.append(_MARK),
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.to_mark(),
    "DUP": _dup,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "INST": _instance,
    "OBJ": _object,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_with_keywords,
    "BUILD": _build,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _extension),
    **dict.fromkeys(("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"), _memoize),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _recall),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "TUPLE": lambda machine, _: machine.stack.append(_flat(machine.to_mark())),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "DICT": lambda machine, _: (machine.to_mark(), machine.stack.append({}))[1],
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: _set_items(machine, machine.to_mark()),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
}
_PUSHES = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "FLOAT",
        "BINFLOAT",
    ]
)


def read(data: bytes, start: int = 0, *, arrays: bool = False) -> Reading:
    """Follow the pickle that begins at `start`; with `arrays` as joblib does."""
    stream = io.BytesIO(data)
    stream.seek(start)
    machine = _Machine(stream=stream, arrays=arrays)
    fault = None
    try:
        machine.run()
    except _Fault as error:
        fault = str(error)
    # pickletools raises ValueError for what isn't whole, and what int(), float() and the codecs raise.
    # Arrays of objects of joblib may lie in each other deeper than Python goes.
    except (
        *(ValueError, OverflowError, IndexError, UnicodeError, SyntaxError, MemoryError, TypeError),
        RecursionError,
    ) as error:
        fault = f"it can't be read on: {str(error)[:200]}"
    return Reading(
        globals=tuple(machine.globals),
        odd=tuple(machine.odd),
        fault=fault,
        end=stream.tell(),
        called=machine.called,
        nested=tuple(machine.nested),
    )


def read_all(data: bytes) -> Iterator[Reading]:
    """Every pickle of a file that holds several behind each other, as PyTorch's old format does.

    A later one may be of a protocol that has no mark. What lies behind the last one, such as weights, is none.
    """
    start = 0
    reading = read(data, start)
    for _ in range(MOST_PICKLES):
        if reading.fault and any(one.full == _ARRAY for one in reading.globals):
            yield reading  # as plain pickle.load meets it
            reading = read(data, start, arrays=True)
        yield reading
        if reading.fault:
            return
        start = reading.end
        reading = read(data, start)
        if not (looks_like_pickle(data[start : start + 64]) or names_something(reading)):
            return
    yield replace(reading, fault=f"is one of more than {MOST_PICKLES:,} behind each other")


def names_something(reading: Reading) -> bool:
    """Whether bytes without a mark that were read as a pickle are one that does something."""
    return bool(reading.globals) or (reading.fault is None and bool(reading.odd))


def looks_like_pickle(data: bytes) -> bool:
    """Whether bytes begin as a pickle of protocol 2 or later does."""
    return len(data) > 2 and data[0] == 0x80 and 2 <= data[1] <= 5 and data[2:3] not in (b"\x80", b"\0", b"\xff")


def is_text_pickle(data: bytes) -> bool:
    """Whether bytes without a mark are a pickle that does something (protocols 0 and 1, and odd beginnings).

    One that is whole, or that calls what does harm before it breaks: until then the real machine has done so too.
    """
    if not data[:1] or data[0] not in _OPENERS:
        return False
    reading = read(data)
    if reading.fault is None:
        return names_something(reading)
    return reading.called and any(is_harmful(one.module) for one in reading.globals)


def forbidden(reading: Reading, allowed: Collection[str]) -> list[Global]:
    """Globals of a reading that a pickle may not name."""
    return [one for one in reading.globals if not is_allowed(one.module, one.name, allowed)]
