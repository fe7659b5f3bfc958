"""Pickles are found in every disguise, harmless ones are left alone, and what can't be read is never clean."""

import base64
import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from datetime import date
from typing import Any

import pytest

from chimera.delivery.scanning.model import Finding, Unjudged
from chimera.delivery.scanning.models import safetensors_fault, scan_files


class Runs:
    """Calls what it is given when it is loaded; nothing here loads it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def frame(body: bytes, protocol: int = 4) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


def zipped(files: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def numpy(description: str, body: bytes) -> bytes:
    header = f"{{'descr': {description}, 'fortran_order': False, 'shape': (1,), }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


CALL = text("id") + b"\x85R"
SYSTEM = frame(text("posix") + text("system") + b"\x93" + CALL)
HARMFUL: dict[str, tuple[str, bytes]] = {
    "protocol 0": ("a.pkl", b"cos\nsystem\n(S'id'\ntR."),
    "protocol 0 without an ending that says so": ("notes.txt", b"cos\nsystem\n(S'id'\ntR."),
    "protocol 2": ("a.pkl", pickle.dumps(Runs(eval, "1"), 2)),
    "protocol 4, names on the stack": ("a.bin", SYSTEM),
    "protocol 5, framed": ("a.pkl", pickle.dumps(Runs(exec, "1"), 5)),
    "INST": ("a.pkl", b"(S'id'\nios\nsystem\n."),
    "OBJ": ("a.pkl", b"(cos\nsystem\nS'id'\no."),
    "NEWOBJ": ("a.pkl", frame(text("subprocess") + text("Popen") + b"\x93" + text("id") + b"\x85\x81")),
    "NEWOBJ_EX": ("a.pkl", frame(text("subprocess") + text("Popen") + b"\x93)}\x92")),
    "names from the memo": (
        "a.pkl",
        frame(text("os") + b"\x94" + text("system") + b"\x94" + b"00h\x00h\x01\x93" + CALL),
    ),
    "names out of order on the stack": (
        "a.pkl",
        frame(text("x") + b"0" + text("os") + b"20" + text("system") + b"\x93" + CALL),
    ),
    "dotted name": ("a.pkl", frame(text("builtins") + text("str.__class__.__base__") + b"\x93.")),
    "cut short after the call": ("a.pkl", SYSTEM[:-1]),
    "broken after the call": ("a.pkl", SYSTEM[:-1] + b"\xff\xff\xff"),
    "behind another pickle": ("a.pt", pickle.dumps([1]) + SYSTEM),
    "in a zip, as PyTorch has it": ("a.pt", zipped({"archive/data.pkl": SYSTEM, "archive/data/0": b"\0" * 64})),
    "in a zip with another ending": ("weights", zipped({"x/readme": SYSTEM})),
    "in gzip": ("a.joblib", gzip.compress(SYSTEM)),
    "in zlib, as joblib packs": ("a.joblib", zlib.compress(SYSTEM)),
    "in a tar in gzip": ("a.tgz", gzip.compress(tarred("m/state", SYSTEM))),
    "behind numpy's header": ("a.npy", numpy("'|O'", SYSTEM)),
    "in numpy's zip, in a field": ("a.npz", zipped({"x.npy": numpy("[('a', '<i4'), ('b', '|O')]", SYSTEM)})),
    "in the bytes of a harmless pickle": ("a.pkl", pickle.dumps({"state": SYSTEM})),
    "in base64 in code": ("load.py", b'x = pickle.loads(b64decode("' + base64.b64encode(SYSTEM) + b'"))'),
    "a library nobody allowed": ("a.pkl", frame(text("torch.hub") + text("load") + b"\x93" + CALL)),
    "a name that is computed": ("a.pkl", frame(text("os") + text("collections") + text("OrderedDict") + b"\x93)R\x93")),
    "by a number": ("a.pkl", frame(b"\x82\x01")),
    "a call of what a call gave": ("a.pkl", frame(text("collections") + text("OrderedDict") + b"\x93)R)R")),
    "a change of what it names": ("a.pkl", frame(text("collections") + text("OrderedDict") + b"\x93}b")),
    "behind other pickles, without a mark": ("a.pt", pickle.dumps(1, 2) * 3 + b"cos\nsystem\n(S'id'\ntR." + b"\0" * 64),
    "behind others in a file of another name": ("a.txt", pickle.dumps(1, 2) + b"(S'id'\nios\nsystem\n."),
    "without a mark in the bytes of another": ("a.pkl", pickle.dumps({"state": b"cos\nsystem\n(S'id'\ntR."})),
    "called config.json": ("config.json", SYSTEM),
    "with a mark of an old protocol": ("a.txt", b"\x80\x01cos\nsystem\n(S'id'\ntR."),
    "with a mark twice": ("a.txt", b"\x80\x04" + SYSTEM),
    "without a mark, cut after the call": ("a.txt", b"cos\nsystem\n(S'id'\ntR"),
    "before a zip": ("a.pt", SYSTEM + zipped({"archive/data.pkl": pickle.dumps(1)})),
}

JOBLIB = (
    "eNqFUUtLw0AQbpIGQ30W8QH+gXrJQTx4EFrpzYUIgniSsElXN5oXeaABhXiotrA3J3j1d/ln6iRpa1HQYWfZ3czM90jeLD4bdTxBR0gUxOZtYLmOpfup"
    "F2Zm6Nh3LgPRNsrrSRTR7DKiYcgieIP9Zyi7tDi1bJfGMQi16gKx5A9oWYtFQo05DRkQmSgveAuiATYLqY/nQZLhF67NTlgtXx/CePQK59AhipCOwTCM"
    "0wlGtZFGApZoUdcN7k3PoyGMxF7NtMIzqevc+B7zE9PKEhYD2Uit1mQetdS8i1sPF2aO+dEryNQFIQXAm7UwvsRbfJnIQ+CrfI2v87aQz44W2T3+YNdF"
    "dnxnzHdL2Fwt3mdTtyuOumkHEdO91E2c2h6xYkbMDvw4iVI7qdz67SBpDKEvWVDDShUhZdGy/0mNr8q/+4CqhJQBkWKGj3rRn6tO/1R9cfANwLdwPNFI"
    "k2iV2lGtVq38pTjMwrSngwttjuADUVL9CzOt6oY="
)
"""What joblib 1.6 writes of a dictionary of an array of numbers, one of objects, one of text, and a number."""
NUMPY_2 = (
    "gAJjbnVtcHkuX2NvcmUubXVsdGlhcnJheQpfcmVjb25zdHJ1Y3QKcQBjbnVtcHkKbmRhcnJheQpxAUsAhXECY19jb2RlY3MKZW5jb2RlCnEDWAEAAABicQRY"
    "BgAAAGxhdGluMXEFhnEGUnEHh3EIUnEJKEsBSwJLA4ZxCmNudW1weQpkdHlwZQpxC1gCAAAAZjRxDImIh3ENUnEOKEsDWAEAAAA8cQ9OTk5K/////0r/////"
    "SwB0cRBiiWgDWBsAAAAAAAAAAADCgD8AAABAAABAQAAAwoBAAADCoEBxEWgFhnESUnETdHEUYi4="
)
"""What numpy 2.4 pickles of an array of numbers, by protocol 2."""


def tensors(header: Any, body: bytes = b"\0" * 16) -> bytes:
    packed = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + body


TENSORS = {"__metadata__": {"format": "pt"}, "w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}


def gguf(*pairs: tuple[str, str], count: int | None = None) -> bytes:
    def string(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    body = b"".join(string(key) + struct.pack("<I", 8) + string(value) for key, value in pairs)
    array = string("tokens") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("b")
    tensor = string("t") + struct.pack("<IQIQ", 1, 4, 0, 0)
    return b"GGUF" + struct.pack("<IQQ", 3, 1, len(pairs) + 1 if count is None else count) + body + array + tensor


CHAT = "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}{% endfor %}"
BENIGN: dict[str, bytes] = {
    "plain.pkl": pickle.dumps({"a": [1, 2.5, "x", None, True, b"y"], "b": {1, 2}, "c": (3,)}),
    "old.pkl": pickle.dumps({"a": [1, 2.5, "x", None]}, 0),
    "types.pkl": pickle.dumps([OrderedDict(a=1), date(2027, 1, 1), complex(1, 2), bytearray(b"x"), frozenset([1])], 4),
    "deep.pkl": pickle.dumps([[[[[[1]]]]]], 5),
    "model.joblib": zlib.decompress(base64.b64decode(JOBLIB)),
    "packed.joblib": base64.b64decode(JOBLIB),
    "array.pkl": base64.b64decode(NUMPY_2),
    "numbers.npy": numpy("'<f8'", b"\0" * 8),
    "many.npz": zipped({"x.npy": numpy("'<i4'", b"\0" * 4)}),
    "weights.safetensors": tensors(TENSORS),
    "model.gguf": gguf(("tokenizer.chat_template", CHAT), ("general.name", "x")),
    "legacy.pt": pickle.dumps(1, 2) * 3 + pickle.dumps(OrderedDict(a=1), 2) + bytes(range(256)) * 20,
    "odd.pt": pickle.dumps(1, 2) + b"\x82\x01\xff" * 20,
    "modules.txt": b"ctypes\nos\nsys\n",
    "main.py": b"import os\nimport pickle\n\n\ndef answer(text):\n    return text\n",
    "notes.txt": b"collect cars\nsort them\n(all of them)\nin order.\n",
    "words.txt": b"In the beginning.\nI.\nN.\n(t.\n",
    "data.bin": bytes(range(256)) * 4,
    "empty.txt": b"",
    "config.json": b'{"class_name": "Dense", "config": {}}',
    "picture.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
    "hash.txt": b"gASVaGVsbG8gd29ybGQ and more words",
}


@pytest.mark.parametrize("what", HARMFUL)
def test_a_pickle_that_runs_something_is_found(what: str) -> None:
    name, data = HARMFUL[what]
    found = [one for one in scan_files([(name, data)]) if isinstance(one, Finding)]
    assert found and all(one.severity in ("high", "critical") for one in found), what
    assert all(one.place.file.startswith(name) and one.next_step for one in found)


def test_every_disguise_is_seen_through_and_nothing_harmless_is_one() -> None:
    found = {what for what, file in HARMFUL.items() if any(isinstance(one, Finding) for one in scan_files([file]))}
    false = {name: list(scan_files([(name, data)])) for name, data in BENIGN.items()}
    assert (len(found), len(HARMFUL)) == (37, 37)
    assert ({name: one for name, one in false.items() if one}, len(BENIGN)) == ({}, 22)


def test_what_the_operator_allows_is_allowed_by_its_full_name_alone() -> None:
    data = frame(text("sklearn.svm._classes") + text("SVC") + b"\x93)\x81}b")
    assert [one.subject for one in scan_files([("a.pkl", data)])] == ["sklearn.svm._classes.SVC"]
    assert not list(scan_files([("a.pkl", data)], {"sklearn.svm._classes.SVC"}))
    for allowed in ("sklearn", "sklearn.*", "sklearn.svm._classes", "SVC"):
        assert list(scan_files([("a.pkl", data)], {allowed}))


ARRAY = (
    text("joblib.numpy_pickle")
    + text("NumpyArrayWrapper")
    + b"\x93)\x81}("
    + text("dtype")
    + text("numpy")
    + text("dtype")
    + b"\x93"
    + text("O8")
    + b"\x85R"
    + text("shape")
    + b"K\x01\x85ub"
)
ARRAYS = b"\x80\x04" + ARRAY * 3_000
"""Arrays of objects of joblib, each in the one before."""
UNJUDGED: dict[str, bytes] = {
    "empty of sense.pkl": b"\xff\xfe\xfd",
    "cut.pkl": pickle.dumps([1, 2, 3])[:-1],
    "claims 5 GB.pkl": frame(b"\x8e" + struct.pack("<Q", 5 * 1024**3)),
    "underflow.pkl": frame(b"000"),
    "no mark.pkl": frame(b"t"),
    "no memo.pkl": frame(b"h\x05"),
    "1,001 behind each other.pkl": pickle.dumps(1, 2) * 1_001,
    "arrays in arrays.joblib": ARRAYS,
    "a.npy": b"\x93NUMPY\x01\x00\xff\xffrest",
    "b.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", 200) + b"(" * 200,
    "c.npy": b"\x93NUMPY\x02\x00" + struct.pack("<I", 0xFFFFFFF0),
    "a.npz": b"PK\x03\x04 and no more",
    "a.pt": b"neither this nor that",
    "a.h5": b"no HDF5",
    "a.keras": b"no zip",
    "short.safetensors": b"\1",
    "huge.safetensors": struct.pack("<Q", 5 * 1024**3) + b"{}",
    "a.gguf": b"GGU",
    "b.gguf": b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
    "c.gguf": gguf(count=5),
    "d.gguf": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62),
}


@pytest.mark.parametrize("name", UNJUDGED)
def test_what_can_not_be_read_is_not_judged(name: str) -> None:
    results = list(scan_files([(name, UNJUDGED[name])]))
    assert results and any(isinstance(one, Unjudged) for one in results)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"[]", b""),
        (b" {}", b""),
        ({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 15]}}, b"\0" * 15),
        ({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [4, 20]}}, b"\0" * 20),
        ({"w": {"dtype": "X", "shape": [1], "data_offsets": [0, 1]}}, b"\0"),
        ({"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, b"\0" * 4),
        ({"w": {"dtype": "F32", "shape": [1 << 61, 8], "data_offsets": [0, 4]}}, b"\0" * 4),
        ({"w": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, b"\0"),
        ({"w": [1]}, b""),
        ({"__metadata__": {"a": 1}}, b""),
        ({}, b"something behind"),
        (b'{"a":' * 5_000, b""),
    ],
)
def test_a_header_that_does_not_fit_its_file_is_a_fault(header: Any, body: bytes) -> None:
    assert safetensors_fault(tensors(header, body))
    assert safetensors_fault(tensors(TENSORS)) is None


@pytest.mark.parametrize(
    "template",
    ["{{ ''.__class__ }}", "{{ x|attr('y') }}", "{{ cycler.x }}", "{{ lipsum.__globals__['os'].popen('id') }}"],
)
def test_a_chat_template_that_reaches_out_is_found(template: str) -> None:
    (one,) = scan_files([("m.gguf", gguf(("tokenizer.chat_template", template)))])
    assert isinstance(one, Finding) and one.rule == "models/gguf-template"


def test_layers_of_code_are_found() -> None:
    config = json.dumps(
        {"layers": [{"class_name": "Lambda", "config": {"function": ["4wEAAAA", None, None]}}]}
    ).encode()
    for name, data in (
        ("m.keras", zipped({"config.json": config})),
        ("m.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100 + config),
    ):
        assert [one.rule for one in scan_files([(name, data)])] == ["models/keras-lambda"]
    (one,) = scan_files([("m.pt", zipped({"m/data.pkl": pickle.dumps(1), "m/code/__torch__.py": b"def f(): pass"}))])
    assert isinstance(one, Finding) and one.rule == "models/torchscript" and one.severity == "medium"


def test_an_array_of_joblib_that_claims_too_much_is_not_judged() -> None:
    data = zlib.decompress(base64.b64decode(JOBLIB))
    assert b"K\x02K\x03\x86" in data
    (one,) = scan_files([("m.joblib", data.replace(b"K\x02K\x03\x86", b"K\xffK\xff\x86"))])
    assert isinstance(one, Unjudged) and "claims more bytes" in one.message


def test_a_pickle_behind_the_arrays_of_joblib_is_read() -> None:
    data = zlib.decompress(base64.b64decode(JOBLIB))
    assert any(isinstance(one, Finding) for one in scan_files([("m.joblib", data + SYSTEM)]))
