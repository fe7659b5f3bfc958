"""YAML text to plain data, fast; and where each value stands, when somebody must be told.

The good case goes through a Rust parser (0.06 ms for a definition of 1 KB, five times faster than libyaml through
PyYAML). A text that it refuses, or that holds something it may see differently from the reader with positions
(`yaml_reader`), is read by that one, whose word counts. Both read the YAML 1.2 core schema: `yes` and `12:30` are text,
`0o17` is 15, a date is text; a number with a leading zero is text. Duplicate keys, tags, merge keys and keys that
aren't text are refused; so are anchors that expand beyond a bound. The two agree on every text that both take (a
property test holds them to it). A long text, or one with many brackets, goes to the reader at once: the fast parser's
time grows with the square of open brackets before it gives up.
"""

import re
from collections.abc import Iterator
from typing import Any

import ryaml

from chimera.agents.errors import UnreadableText
from chimera.agents.yaml_reader import MAX_DEPTH, MAX_NODES, Path, Positions, place, read, unreadable

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_NODES",
    "Path",
    "Positions",
    "UnreadableText",
    "decode",
    "load",
    "load_with_positions",
    "split_documents",
]

MAX_BYTES = 1024 * 1024

_FAST_LENGTH = 64 * 1024
_FAST_BRACKETS = 1_000
# One set of first characters, and then what came before and after: a search by a set is several times faster than by
# alternatives, and this runs over every definition.
_DOUBTFUL = re.compile(
    r"[!&*<\\.0-9\ufeff](?:"
    r"(?<=\ufeff)"  # a byte-order mark
    r"|(?<=[!&*])(?<![^\s,\[{:?-].)(?:(?<=!)|\S)"  # a tag, an anchor or an alias
    r"|(?<=<)<\s*:"  # a merge key
    r"|(?<=\\)(?:0|x00|u0000|U00000000)"  # an escaped NUL
    r"|(?<=0)(?<![\w.].)[box]"  # a number in another base
    r"|(?<=\.)(?:[iI][nN][fF]|[nN][aA][nN])"  # infinite, or no number
    r"|(?<=[0-9])[0-9]{18}|(?<=[0-9.])[eE][-+]?[0-9]{3}"  # a number that may be too large
    r")"
)
_CONTENT = re.compile(r"^[ \t]*[^\s#%]", re.MULTILINE)
_SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)


def decode(data: bytes, *, file: str | None = None, limit: int = MAX_BYTES) -> str:
    """Bytes to text: bounded, UTF-8 (a byte-order mark is dropped), without NUL."""
    if len(data) > limit:
        raise unreadable(f"{len(data):,} bytes are too many", file=file, allowed=f"up to {limit:,} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise unreadable(f"byte 0x{data[error.start]:02x} is not UTF-8", file=file, line=line, column=column) from None
    if (nul := text.find("\0")) >= 0:
        line, column = place(text, nul)
        raise unreadable("a NUL character", file=file, line=line, column=column)
    return text


def load(text: str, *, file: str | None = None) -> Any:
    """The one document of `text` as plain data; raises `UnreadableText` with the place of what is wrong."""
    brackets = text.count("[") + text.count("{")
    if len(text) <= _FAST_LENGTH and brackets <= _FAST_BRACKETS and not _DOUBTFUL.search(text):
        try:
            value = ryaml.loads(text)
        except (ValueError, RecursionError):
            pass
        else:
            if _is_plain(value, 0):
                return value
    return load_with_positions(text, file=file)[0]


def load_with_positions(text: str, *, file: str | None = None) -> tuple[Any, Positions]:
    """The document and the line and column (from 1) of every value by its path; a mapping's value stands at its key."""
    if len(text) > MAX_BYTES:
        raise unreadable(f"{len(text):,} characters are too many", file=file, allowed=f"up to {MAX_BYTES:,}")
    return read(text, file=file)


def split_documents(text: str) -> Iterator[tuple[str, int]]:
    """The documents of a YAML stream, each with the number of lines before it; blank documents are left out."""
    marks = list(_SEPARATOR.finditer(text)) if "---" in text else []
    starts = [0, *(mark.end() for mark in marks)]
    ends = [*(mark.start() for mark in marks), len(text)]
    lines, counted = 0, 0
    for start, end in zip(starts, ends, strict=True):
        lines += text.count("\n", counted, start)
        counted = start
        part = text[start:end]
        if _CONTENT.search(part):
            yield part, lines


def _is_plain(value: Any, depth: int) -> bool:
    """Whether what the fast parser made has text for keys alone, and isn't nested too deeply."""
    if type(value) is dict:
        if depth >= MAX_DEPTH:
            return False
        for key, inner in value.items():
            if type(key) is not str or (type(inner) in (dict, list) and not _is_plain(inner, depth + 1)):
                return False
    elif type(value) is list:
        return depth < MAX_DEPTH and all(_is_plain(inner, depth + 1) for inner in value if type(inner) in (dict, list))
    return True
