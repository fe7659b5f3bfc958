"""Quantities, versions and the rules over them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.agents import quantities
from chimera.agents.diff import least_version

numbers = st.integers(0, 99_999)
identifiers = st.from_regex(r"\A(0|[1-9][0-9]{0,3}|[a-z-][a-z0-9-]{0,3})\Z")
versions = st.builds(
    lambda core, pre, build: (
        ".".join(map(str, core)) + ("-" + ".".join(pre) if pre else "") + ("+" + ".".join(build) if build else "")
    ),
    st.tuples(*[st.integers(0, 3)] * 3),
    st.lists(identifiers, max_size=2),
    st.lists(identifiers, max_size=1),
)


@given(numbers)
def test_cpu_in_both_ways_of_writing(value: int) -> None:
    assert quantities.millicores(f"{value}m") == value
    assert quantities.millicores(f"{value // 1000}.{value % 1000:03}") == value


@given(
    st.integers(0, 10**6),
    st.sampled_from([("", 1), ("k", 10**3), ("Ki", 2**10), ("Mi", 2**20), ("Gi", 2**30), ("M", 10**6)]),
)
def test_sizes(value: int, unit: tuple[str, int]) -> None:
    assert quantities.size(f"{value}{unit[0]}") == value * unit[1]


@given(numbers)
def test_durations(value: int) -> None:
    assert quantities.seconds(f"{value}m") == quantities.seconds(f"{value * 60}s") == value * 60
    assert quantities.seconds(f"{value}ms") == pytest.approx(value / 1000)


@given(st.text(max_size=8) | st.text(st.sampled_from("0123456789.mkMGKiTsh +-\n"), max_size=8))
def test_a_parser_takes_just_what_its_pattern_says(text: str) -> None:
    for parse, pattern in (
        (quantities.millicores, quantities.CPU_PATTERN),
        (quantities.size, quantities.BYTES_PATTERN),
        (quantities.seconds, quantities.DURATION_PATTERN),
        (quantities.version, quantities.VERSION_PATTERN),
    ):
        if re.fullmatch(pattern, text):
            parse(text)
        else:
            with pytest.raises(ValueError, match="is not"):
                parse(text)


@given(versions, versions, versions)
def test_versions_are_ordered(one: str, two: str, three: str) -> None:
    a, b, c = (quantities.version(text).key() for text in (one, two, three))
    assert (a < b) + (b < a) + (a == b) == 1
    if a <= b <= c:
        assert a <= c
    assert quantities.version(one.partition("+")[0]).key() == a


def test_the_order_of_the_standard() -> None:
    texts = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
    ]
    keys = [quantities.version(text).key() for text in [*texts, "1.0.0", "1.0.1", "1.1.0", "2.0.0"]]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


@given(versions)
def test_a_larger_change_needs_no_smaller_version(old: str) -> None:
    least = [quantities.version(least_version(old, kind)).key() for kind in ("fix", "feature", "breaking")]
    assert quantities.version(old).key() < least[0] <= least[1] <= least[2]
