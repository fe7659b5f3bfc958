"""YAML read event by event: data by the core schema of YAML 1.2, the place of every value, and bounds on everything.

This is the reader whose word counts; `chimera.agents.yaml` asks it whenever a text is wrong or its fast parser might
see it differently. It works on libyaml's events and not on its trees, because those are composed by recursion in C,
where a text of a hundred thousand brackets ends the process. Depth is counted here before anything nests.
"""

import re
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from chimera.agents.errors import Fault, UnreadableText

MAX_DEPTH = 64
MAX_NODES = 100_000

Path = tuple[str | int, ...]
Positions = dict[Path, tuple[int, int]]

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LONGEST_INTEGER = 30
_CONSTANTS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def read(text: str, *, file: str | None = None) -> tuple[Any, Positions]:
    """The one document of `text`, and the place of each value by its path; a mapping's value stands at its key."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        try:
            reader = _Reader(loader, file)
            return reader.document(), reader.positions
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _syntax(error, text, file) from None
    except UnicodeError:
        raise unreadable("a character that is half of a pair (a lone surrogate)", file=file) from None


class _Reader:
    """Events to data. Each method takes the event that starts a value and reads on to its end."""

    def __init__(self, loader: Any, file: str | None) -> None:
        self._next: Any = loader.get_event
        self._file = file
        self._count = 0
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        self.positions: Positions = {}

    def document(self) -> Any:
        self._next()  # the stream's start
        event = self._next()
        if isinstance(event, StreamEndEvent):
            self.positions[()] = (1, 1)
            return None
        value = self._value(self._next(), (), 0)
        event = self._next()
        assert isinstance(event, DocumentEndEvent)
        event = self._next()
        if not isinstance(event, StreamEndEvent):
            raise self._refuse(event, "a second document starts here", "one definition")
        return value

    def _value(self, event: Any, path: Path, depth: int) -> Any:
        self.positions.setdefault(path, _mark(event))
        if isinstance(event, AliasEvent):
            return self._alias(event)
        self._add(event, 1)
        before = self._count
        anchor = event.anchor
        if anchor is not None:
            self._anchors[anchor] = None
        if event.tag is not None:
            raise self._refuse(event, f"the tag {event.tag} is not known", "no tags")
        if isinstance(event, ScalarEvent):
            value = self._scalar(event)
        else:
            if depth >= MAX_DEPTH:
                raise self._refuse(event, "nested too deeply", f"up to {MAX_DEPTH} levels")
            value = self._list(path, depth) if isinstance(event, SequenceStartEvent) else self._mapping(path, depth)
        if anchor is not None:
            self._anchors[anchor] = value, self._count - before + 1
        return value

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self._anchors:
            raise self._refuse(event, f"no anchor is named {event.anchor!r}", "an anchor above this place")
        found = self._anchors[event.anchor]
        if found is None:
            raise self._refuse(event, f"the anchor {event.anchor!r} holds itself", "an anchor above this place")
        value, size = found
        self._add(event, size)
        return value

    def _add(self, event: Any, size: int) -> None:
        self._count += size
        if self._count > MAX_NODES:
            raise self._refuse(event, "anchors and values add up to too many", f"up to {MAX_NODES:,} values")

    def _list(self, path: Path, depth: int) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := self._next(), SequenceEndEvent):
            found.append(self._value(event, (*path, len(found)), depth + 1))
        return found

    def _mapping(self, path: Path, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := self._next(), MappingEndEvent):
            key = self._key(event)
            if key in found:
                raise self._refuse(event, f"the key {key!r} stands twice", "each key once")
            self.positions[(*path, key)] = _mark(event)
            found[key] = self._value(self._next(), (*path, key), depth + 1)
        return found

    def _key(self, event: Any) -> str:
        self._add(event, 1)
        if isinstance(event, AliasEvent):
            raise self._refuse(event, "a key that is an alias", "text")
        if not isinstance(event, ScalarEvent):
            raise self._refuse(event, "a key that is a list or a mapping", "text")
        if event.tag is not None:
            raise self._refuse(event, f"the tag {event.tag} is not known", "no tags")
        if event.anchor is not None:
            raise self._refuse(event, "a key with an anchor", "text alone")
        if event.implicit[0] and event.value == "<<":
            raise self._refuse(event, "merge keys are not part of YAML 1.2", "`extends` with a template")
        value = self._scalar(event)
        if not isinstance(value, str):
            raise self._refuse(
                event, f"the key {event.value} is not text", "text, in quotes where it looks like a number"
            )
        return value

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if not event.implicit[0]:  # quoted, or a block: text whatever it looks like
            if "\0" in text:
                raise self._refuse(event, "a NUL character", "text without it")
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INTEGER.fullmatch(text):
            return self._integer(event, text)
        if _FLOAT.fullmatch(text) and not _LEADING_ZERO.fullmatch(text):
            number = float(text)
            if number in (float("inf"), float("-inf")):
                raise self._refuse(event, f"the number {text[:40]} is too large", "quotes around it, if it is text")
            return number
        if _NO_NUMBER.fullmatch(text):
            raise self._refuse(event, f"{text} is no number that a definition can hold", "quotes, if it is text")
        return text

    def _integer(self, event: Any, text: str) -> int:
        value = int(text, 0) if text.startswith(("0o", "0x")) else int(text[:_LONGEST_INTEGER])
        if not -(2**63) <= value < 2**64:
            raise self._refuse(event, "a number that doesn't fit into 64 bits", "quotes around it, if it is text")
        return value

    def _refuse(self, event: Any, message: str, allowed: str | None) -> UnreadableText:
        line, column = _mark(event)
        return unreadable(message, file=self._file, line=line, column=column, allowed=allowed)


def _mark(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _syntax(error: yaml.YAMLError, text: str, file: str | None) -> UnreadableText:
    mark: Any = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or "not YAML")
    if mark is None:
        position = getattr(error, "position", None)
        if isinstance(position, int) and 0 <= position < len(text):
            where = place(text, position)
            message = f"the character {text[position]!r} is not allowed"
            return unreadable(message, file=file, line=where[0], column=where[1])
        return unreadable(str(getattr(error, "reason", None) or problem), file=file)
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: mark.column + 1]:
        problem = "a tab where only spaces may indent"
    return unreadable(problem, file=file, line=mark.line + 1, column=mark.column + 1)


def place(text: str, offset: int) -> tuple[int, int]:
    """The line and column, from 1, of a character of `text`."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def unreadable(
    message: str,
    *,
    file: str | None,
    line: int | None = None,
    column: int | None = None,
    allowed: str | None = None,
) -> UnreadableText:
    """The error for one fault of a text."""
    return UnreadableText(Fault(message=message, file=file, line=line, column=column, allowed=allowed))
