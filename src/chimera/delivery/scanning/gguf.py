"""The head of a GGUF file, read to its bounds: that what it claims is there, and its chat templates."""

import struct

MOST_TEMPLATES = 100
LONGEST_TEMPLATE = 1024 * 1024
MOST_PAIRS = 1_000_000
MOST_DIMENSIONS = 8

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9


class _Reader:
    """Takes numbers and strings from the start on, and never more than there is."""

    def __init__(self, data: bytes) -> None:
        """Begin behind the magic number."""
        self.data = data
        self.at = 4

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count < 0 or count > len(self.data) - self.at:
            raise ValueError(f"it claims {count:,} bytes where {len(self.data) - self.at:,} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> int:
        """The next number."""
        value: int = struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]
        return value

    def string(self) -> bytes:
        """The next string."""
        return self.take(self.number("Q"))


def read_gguf(data: bytes) -> dict[str, str]:
    """Chat templates by their keys; raises `ValueError` with what isn't whole."""
    reader = _Reader(data)
    version = reader.number("I")
    if version not in (2, 3):
        raise ValueError(f"its version is {version}")
    tensors, pairs = reader.number("Q"), reader.number("Q")
    if pairs > MOST_PAIRS or tensors > MOST_PAIRS:
        raise ValueError(f"it claims {max(pairs, tensors):,} entries")
    templates: dict[str, str] = {}
    for _ in range(pairs):
        key = reader.string().decode("utf-8", "replace")
        value = _value(reader, reader.number("I"), 0)
        if "chat_template" in key and value is not None and len(templates) < MOST_TEMPLATES:
            if len(value) > LONGEST_TEMPLATE:
                raise ValueError("its chat template is too long")
            templates[key[:200]] = value.decode("utf-8", "replace")
    for _ in range(tensors):
        reader.string()
        dimensions = reader.number("I")
        if dimensions > MOST_DIMENSIONS:
            raise ValueError(f"a tensor claims {dimensions} dimensions")
        reader.take(8 * dimensions + 4)
        offset = reader.number("Q")
        if offset > len(data):
            raise ValueError(f"a tensor claims to begin at {offset:,}, beyond its end")
    return templates


def _value(reader: _Reader, kind: int, depth: int) -> bytes | None:
    """Step over a value; a string is given."""
    if kind == _STRING:
        return reader.string()
    if kind in _SIZES:
        reader.take(_SIZES[kind])
        return None
    if kind != _ARRAY or depth > 4:
        raise ValueError(f"a value is of the kind {kind}")
    inner, count = reader.number("I"), reader.number("Q")
    if inner in _SIZES:
        reader.take(_SIZES[inner] * count)
        return None
    if count > len(reader.data):
        raise ValueError(f"an array claims {count:,} entries")
    for _ in range(count):
        _value(reader, inner, depth + 1)
    return None
