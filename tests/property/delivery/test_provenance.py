"""No byte of a file of provenance can be altered unseen: it is refused, or (blanks of JSON) it says what it said."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.delivery.evidence.envelope import open_envelope, read, seal
from chimera.delivery.evidence.errors import EvidenceError
from tests.unit.delivery.evidence.test_statement import Key, check, made

KEY = Key()
FILE = msgspec.json.encode(seal(made(), KEY))
SAID = open_envelope(read(FILE), {KEY.key_id: KEY.public}, check)


def refused(data: bytes) -> bool:
    """Whether it is refused; where it isn't, it says what it said."""
    try:
        found = open_envelope(read(data), {KEY.key_id: KEY.public}, check)
    except EvidenceError:
        return True
    assert found == SAID
    return False


@settings(max_examples=500)
@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
def test_one_byte_changed(place: int, by: int) -> None:
    assert refused(FILE[:place] + bytes([FILE[place] ^ by]) + FILE[place + 1 :])


@given(st.integers(0, len(FILE) - 1), st.integers(1, 40))
def test_bytes_left_out(place: int, count: int) -> None:
    assert refused(FILE[:place] + FILE[place + count :])


@given(st.integers(0, len(FILE)), st.binary(min_size=1, max_size=20).filter(lambda data: bool(data.strip())))
def test_bytes_put_in(place: int, data: bytes) -> None:
    refused(FILE[:place] + data + FILE[place:])


def test_every_byte_of_it_counts() -> None:
    assert not refused(FILE)
    assert all(refused(FILE[:place] + bytes([FILE[place] ^ 1]) + FILE[place + 1 :]) for place in range(len(FILE)))
