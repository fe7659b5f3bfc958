"""The one encoding of a row, which is the same whichever database the row is in, and digests of tables by it.

A row is a MessagePack array of its values in the order of its columns' names. MessagePack has one shortest form for
each value, and what databases hold differently is made the same first: a truth is a truth and not 0 or 1, a number of a
column of floats is a float, minus zero is zero, there is one NaN. So equal rows are equal bytes, on SQLite and on
PostgreSQL.

A table's digest is the sum, modulo 2^256, of the SHA-256 of its rows. A sum doesn't depend on the order, in which two
databases never agree, and it goes on where it stopped. It finds what was lost, doubled or altered by accident or by a
fault. It proves nothing against somebody who makes rows up: that is what the audit log's checkpoints and a backup's
signature are for.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from chimera.adapters.storage.errors import StorageError

Values: TypeAlias = tuple[Any, ...]

_MODULUS = 1 << 256
_INT32, _INT64 = 1 << 31, 1 << 63
_NAN = math.nan


class UnfitValue(StorageError):
    """A value is not what its column holds, or the database that it goes to can't hold it."""

    code = "unfit-value"
    status = 422
    title = "A stored value doesn't fit"


class Kind(StrEnum):
    """What a column holds."""

    TEXT = "text"
    BYTES = "bytes"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT = "float"
    BOOL = "bool"


class Column(Struct, frozen=True, kw_only=True):
    """A column; `length` bounds a text's characters."""

    name: str
    kind: Kind
    nullable: bool
    length: int | None = None


class Layout(Struct, frozen=True, kw_only=True):
    """A table's name and its columns, by name."""

    table: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names in the order of a row."""
        return tuple(column.name for column in self.columns)


class RowCodec:
    """Encodes and decodes the rows of one table."""

    def __init__(self, layout: Layout) -> None:
        """For the rows of `layout`."""
        self.layout = layout
        self._canonical = tuple(_CANONICAL[column.kind] for column in layout.columns)
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[Any]).decode

    def encode(self, values: Sequence[Any]) -> bytes:
        """A row's bytes; raises `UnfitValue`."""
        return self._encode(self._checked(values))

    def decode(self, data: bytes) -> Values:
        """The row of `data`; raises `UnfitValue`, also for bytes that `encode` doesn't give."""
        try:
            values = self._checked(self._decode(data))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UnfitValue(f"{self.layout.table}: this is no row: {error}") from None
        if self._encode(values) != data:
            raise UnfitValue(f"{self.layout.table}: this is no row in its one encoding")
        return values

    def _checked(self, values: Sequence[Any]) -> Values:
        columns = self.layout.columns
        if len(values) != len(columns):
            raise UnfitValue(f"{self.layout.table}: a row has {len(values)} values and not {len(columns)}")
        try:
            return tuple([None if v is None else make(v) for make, v in zip(self._canonical, values, strict=True)])
        except TypeError:
            pass
        for column, make, value in zip(columns, self._canonical, values, strict=True):
            try:
                if value is not None:
                    make(value)
            except TypeError:
                raise UnfitValue(
                    f"{self.layout.table}: {column.name} of a row ({_place(self.layout, values)}) is "
                    f"{type(value).__name__} where {column.kind} should be",
                    next_step="mend the row in the database; nothing of Chimera writes such a value",
                ) from None
        raise AssertionError("one of them was refused")


class TableDigest:
    """The count and the digest of a table's rows, in whatever order they come."""

    def __init__(self, table: str, rows: int = 0, total: int = 0) -> None:
        """Begin, or go on from an earlier count and sum."""
        self._prefix = hashlib.sha256(table.encode() + b"\0")
        self.rows = rows
        self.total = total

    def add(self, encoded: bytes) -> None:
        """Count one row."""
        one = self._prefix.copy()
        one.update(encoded)
        self.rows += 1
        self.total = (self.total + int.from_bytes(one.digest(), "big")) % _MODULUS

    @property
    def text(self) -> str:
        """The digest, for people and manifests."""
        return f"{self.total:064x}"


def check_fits(layout: Layout, values: Values, dialect: str) -> None:
    """Refuse a row that `dialect` can't hold as it is, with its place; raises `UnfitValue`."""
    for column, value in zip(layout.columns, values, strict=True):
        if (why := _unfit(column, value, dialect)) is not None:
            raise UnfitValue(
                f"{layout.table}: {column.name} of a row ({_place(layout, values)}) {why}",
                next_step="change or remove that row where it is, then begin again",
            )


def _unfit(column: Column, value: Any, dialect: str) -> str | None:
    if value is None:
        return None if column.nullable else "is empty, which it may not be"
    if dialect == "sqlite":
        return "is not a number (NaN), which SQLite can't hold" if value != value else None
    if column.kind is Kind.TEXT:
        if "\0" in value:
            return "has a character NUL, which PostgreSQL can't hold"
        if column.length is not None and len(value) > column.length:
            return f"has {len(value)} characters, {column.length} may be"
    if column.kind is Kind.INT32 and not -_INT32 <= value < _INT32:
        return f"is {value}, which is beyond 32 bits"
    return None


def _place(layout: Layout, values: Sequence[Any]) -> str:
    """Short texts and numbers that tell which row it is; never a long value, which may be somebody's words."""
    keys = ("tenant", "agent", "name", "id", "session", "run", "task", "space", "seq", "digest")
    found = dict(zip(layout.names, values, strict=True))
    told = [f"{key} {found[key]!r}"[:90] for key in keys if isinstance(found.get(key), (str, int))]
    return ", ".join(told[:4])


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise TypeError


def _bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise TypeError


def _integer(value: Any) -> int:
    if type(value) is int and -_INT64 <= value < _INT64:
        return value
    raise TypeError


def _float(value: Any) -> float:
    if type(value) is float:
        return _NAN if value != value else value + 0.0
    if type(value) is int:
        return float(value)
    raise TypeError


def _bool(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    if type(value) is int and value in (0, 1):
        return value == 1
    raise TypeError


_CANONICAL: dict[Kind, Callable[[Any], Any]] = {
    Kind.TEXT: _text,
    Kind.BYTES: _bytes,
    Kind.INT32: _integer,
    Kind.INT64: _integer,
    Kind.FLOAT: _float,
    Kind.BOOL: _bool,
}
