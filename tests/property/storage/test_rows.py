"""The encoding of rows: every value comes back, equal rows are equal bytes, and a digest knows no order."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.adapters.storage.backup.rows import (
    Column,
    Kind,
    Layout,
    RowCodec,
    TableDigest,
    UnfitValue,
    check_fits,
)

VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.TEXT: st.text(),
    Kind.BYTES: st.binary(),
    Kind.INT32: st.integers(-(2**31), 2**31 - 1),
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
    Kind.FLOAT: st.floats(),
    Kind.BOOL: st.booleans(),
}
OF_KIND = st.sampled_from(list(Kind))


@st.composite
def tables(draw: st.DrawFn) -> tuple[Layout, list[tuple[Any, ...]]]:
    kinds = draw(st.lists(st.tuples(OF_KIND, st.booleans()), min_size=1, max_size=8))
    columns = tuple(
        Column(name=f"c{index}", kind=kind, nullable=nullable) for index, (kind, nullable) in enumerate(kinds)
    )
    one = st.tuples(*(st.none() | VALUES[kind] if nullable else VALUES[kind] for kind, nullable in kinds))
    return Layout(table="t", columns=columns), draw(st.lists(one, max_size=12))


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    return one == other and type(one) is type(other)


@given(tables())
def test_every_row_comes_back_and_has_one_encoding(given_table: tuple[Layout, list[tuple[Any, ...]]]) -> None:
    layout, rows = given_table
    codec = RowCodec(layout)
    for row in rows:
        data = codec.encode(row)
        back = codec.decode(data)
        assert all(map(same, back, row))
        assert codec.encode(back) == data


@given(tables())
def test_what_databases_hold_differently_is_the_same(given_table: tuple[Layout, list[tuple[Any, ...]]]) -> None:
    layout, rows = given_table
    codec = RowCodec(layout)

    def otherwise(column: Column, value: Any) -> Any:
        match value:
            case bool():
                return int(value)
            case bytes():
                return memoryview(value)
            case float() if value == 0:
                return -value
            case float() if value.is_integer() and abs(value) < 2**53:
                return int(value) if value else value
            case _:
                return value

    for row in rows:
        changed = [otherwise(column, value) for column, value in zip(layout.columns, row, strict=True)]
        assert codec.encode(changed) == codec.encode(row)


@given(tables(), st.randoms(use_true_random=False), st.integers(0, 12))
def test_a_digest_knows_no_order_and_goes_on_where_it_stopped(
    given_table: tuple[Layout, list[tuple[Any, ...]]], chance: Any, cut: int
) -> None:
    layout, rows = given_table
    encoded = [RowCodec(layout).encode(row) for row in rows]
    whole = TableDigest("t")
    for one in encoded:
        whole.add(one)
    chance.shuffle(encoded)
    first = TableDigest("t")
    for one in encoded[:cut]:
        first.add(one)
    second = TableDigest("t", rows=first.rows, total=first.total)
    for one in encoded[cut:]:
        second.add(one)
    assert (second.rows, second.text) == (whole.rows, whole.text)


@given(tables().filter(lambda table: bool(table[1])), st.data())
def test_a_digest_finds_what_was_lost_doubled_or_altered(
    given_table: tuple[Layout, list[tuple[Any, ...]]], data: st.DataObject
) -> None:
    layout, rows = given_table
    encoded = [RowCodec(layout).encode(row) for row in rows]
    place = data.draw(st.integers(0, len(encoded) - 1))
    changed = {
        "lost": encoded[:place] + encoded[place + 1 :],
        "doubled": [*encoded, encoded[place]],
        "altered": [*encoded[:place], encoded[place] + b"\xc0", *encoded[place + 1 :]],
    }

    def of(values: list[bytes], table: str = "t") -> tuple[int, str]:
        made = TableDigest(table)
        for value in values:
            made.add(value)
        return made.rows, made.text

    for what, values in changed.items():
        assert of(values) != of(encoded), what
    assert of(encoded, "another table") != of(encoded)


@given(OF_KIND, OF_KIND, st.data())
def test_a_value_of_another_kind_is_refused_with_its_place(held: Kind, given_kind: Kind, data: st.DataObject) -> None:
    alike = {(Kind.INT64, Kind.INT32), (Kind.INT32, Kind.INT64), (Kind.FLOAT, Kind.INT32), (Kind.FLOAT, Kind.INT64)}
    value = data.draw(VALUES[given_kind])
    if held is given_kind or (held, given_kind) in alike or (held is Kind.BOOL and value in (0, 1)):
        return
    layout = Layout(
        table="session",
        columns=(
            Column(name="session", kind=Kind.TEXT, nullable=False),
            Column(name="state", kind=held, nullable=False),
        ),
    )
    with pytest.raises(UnfitValue, match=r"session: state of a row \(session 'mine'\) is"):
        RowCodec(layout).encode(("mine", value))


@given(st.binary(max_size=40))
def test_other_bytes_are_no_row(data: bytes) -> None:
    codec = RowCodec(Layout(table="t", columns=(Column(name="a", kind=Kind.INT64, nullable=True),)))
    try:
        assert codec.encode(codec.decode(data)) == data
    except UnfitValue as refused:
        assert "no row" in refused.detail or "where" in refused.detail or "values" in refused.detail


@pytest.mark.parametrize(
    ("kind", "length", "value", "dialect", "why"),
    [
        (Kind.TEXT, None, "a\0b", "postgresql", "NUL"),
        (Kind.TEXT, 3, "four", "postgresql", "4 characters"),
        (Kind.INT32, None, 2**31, "postgresql", "32 bits"),
        (Kind.FLOAT, None, math.nan, "sqlite", "NaN"),
        (Kind.TEXT, None, None, "sqlite", "empty"),
    ],
)
def test_what_a_database_can_not_hold_is_refused_with_its_place(
    kind: Kind, length: int | None, value: Any, dialect: str, why: str
) -> None:
    column = Column(name="value", kind=kind, nullable=False, length=length)
    layout = Layout(table="t", columns=(Column(name="id", kind=Kind.TEXT, nullable=False), column))
    with pytest.raises(UnfitValue, match=why) as refused:
        check_fits(layout, ("the one", value), dialect)
    assert "id 'the one'" in refused.value.detail
    assert refused.value.next_step
    other = "sqlite" if dialect == "postgresql" else "postgresql"
    if value is not None:
        check_fits(layout, ("the one", value), other)
