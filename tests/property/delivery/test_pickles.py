"""Plain data is clean by every protocol, one global among it never is, and no bytes stop a scan."""

import gzip
import pickle
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from chimera.delivery.scanning.model import Finding, Unjudged
from chimera.delivery.scanning.models import safetensors_fault, scan_files
from chimera.delivery.scanning.secrets import scan_text, text_of
from chimera.delivery.scanning.unpacking import Budget, archive_kind, unpack

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4) | st.tuples(inner, inner)
    ),
    max_leaves=20,
)
PROTOCOL = st.integers(0, 5)


class Calls:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("1",)


@given(PLAIN, PROTOCOL)
@example(b"PK\x05\x06", 0)
@settings(max_examples=200)
def test_plain_data_is_clean(data: Any, protocol: int) -> None:
    made = pickle.dumps(data, protocol)
    assume(
        archive_kind(made) is None
    )  # a text in it may be the mark of a zip: then it is opened as one, and not judged
    assert list(scan_files([("a.pkl", made)])) == []


@given(PLAIN, PLAIN, PROTOCOL, st.booleans())
@settings(max_examples=200)
def test_a_call_anywhere_in_it_is_found(before: Any, after: Any, protocol: int, packed: bool) -> None:
    data = pickle.dumps([before, {"x": (Calls(), after)}], protocol)
    results = list(scan_files([("a.pkl", gzip.compress(data) if packed else data)]))
    assert [one.subject for one in results if isinstance(one, Finding)] in (["builtins.eval"], ["__builtin__.eval"])


@given(PLAIN, PROTOCOL, st.data())
@settings(max_examples=200)
def test_a_damaged_pickle_with_a_call_is_never_clean(data: Any, protocol: int, chosen: st.DataObject) -> None:
    whole = pickle.dumps([Calls(), data], protocol)
    at = chosen.draw(st.integers(3, len(whole) - 1))
    assert list(scan_files([("a.pkl", whole[:at])]))


@given(
    st.binary(max_size=300),
    st.sampled_from(
        [b"", b"\x80\x04", b"\x93NUMPY\x01\x00", b"GGUF\x03\0\0\0", b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh91AY&SY"]
    ),
    st.sampled_from(["a.pkl", "a.safetensors", "a.txt", "a.npz", "a.gguf"]),
)
@settings(max_examples=400)
def test_no_bytes_stop_a_scan(data: bytes, head: bytes, name: str) -> None:
    whole = head + data
    assert all(isinstance(one, (Finding, Unjudged)) for one in scan_files([(name, whole)]))
    assert list(unpack(name, whole, Budget()))
    assert safetensors_fault(whole) is None or isinstance(safetensors_fault(whole), str)
    text = text_of(whole)
    assert text is None or isinstance(scan_text(text), list)
