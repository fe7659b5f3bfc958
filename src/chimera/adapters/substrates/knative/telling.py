"""A process's configuration as the text of its file, and the digest by which its pods are started anew."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

Json = dict[str, Any]


class Said(Struct, frozen=True, kw_only=True):
    """What one process is told: its file's text, and what stands for that text in the annotation of its pods."""

    text: str
    digest: str


def said(value: Json, revision: str) -> Said:
    """A process's configuration as text, with its digest."""
    written = text(value)
    return Said(text=written, digest=hashlib.sha256(f"{written}\n{revision}".encode()).hexdigest()[:32])


def text(value: Json) -> str:
    """JSON byte for byte as Helm's `toPrettyJson` writes it, so that a chart's digests are these."""
    found = msgspec.json.format(msgspec.json.encode(_whole(value), order="sorted"), indent=2).decode() + "\n"
    for letter in "<>&\u2028\u2029":
        found = found.replace(letter, f"\\u{ord(letter):04x}")
    return found


def _whole(value: Any) -> Any:
    """`value` with whole numbers written as such: Go has one kind of number in JSON."""
    if isinstance(value, Mapping):
        return {name: _whole(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
