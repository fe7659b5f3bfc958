"""Archives are opened to their bounds, and what doesn't open is never passed over."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable

import pytest

from chimera.delivery.scanning.scan import secrets_in_files
from chimera.delivery.scanning.unpacking import Budget, Inner, Shut, unpack

PLAIN = b"some text inside\n"


def zipped(files: dict[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue()


def tarred(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for entry, data in entries:
            archive.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def entry(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(data)
    for field, value in fields.items():
        setattr(made, field, value)
    return made, data


def opened(data: bytes, budget: Budget | None = None) -> tuple[dict[str, bytes], list[str]]:
    files, shut = {}, []
    for one in unpack("a", data, budget or Budget()):
        if isinstance(one, Shut):
            shut.append(one.reason)
        elif not one.packed:
            files[one.path] = one.data
    return files, shut


PACKED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "gzip": (gzip.compress, "a!"),
    "bzip2": (bz2.compress, "a!"),
    "xz": (lzma.compress, "a!"),
    "zip": (lambda data: zipped({"b": data}), "a!b"),
    "zip with something before it": (lambda data: b"#!/bin/sh\n" + zipped({"b": data}), "a!b"),
    "tar": (lambda data: tarred(entry("b", data)), "a!b"),
    "two gzips": (lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:]), "a!"),
}


@pytest.mark.parametrize("kind", PACKED)
def test_a_file_inside_is_found(kind: str) -> None:
    pack, path = PACKED[kind]
    assert opened(pack(PLAIN)) == ({path: PLAIN}, [])


def test_archives_inside_archives_are_opened_to_a_depth() -> None:
    data = PLAIN
    for _ in range(6):
        data = gzip.compress(data)
    assert opened(data) == ({"a!!!!!!": PLAIN}, [])
    files, shut = opened(gzip.compress(data))
    assert files == {} and "nested deeper than 6" in shut[0]


def bomb(kind: str) -> bytes:
    zeros = b"\0" * (64 * 1024**2)
    return PACKED[kind][0](zeros)


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zip"])
def test_a_bomb_is_refused_before_it_takes_the_memory(kind: str) -> None:
    data = bomb(kind)
    tracemalloc.start()
    files, shut = opened(data, Budget(total=1024**2))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert files == {} and shut and ("more than" in shut[0])
    assert peak < 24 * 1024**2


def test_many_small_files_share_one_budget() -> None:
    budget = Budget(total=1_000, entries=50)
    data = zipped({str(number): b"x" * 100 for number in range(40)})
    files, shut = opened(data, budget)
    assert len(files) == 10 and shut
    files, shut = opened(zipped({str(number): b"" for number in range(60)}), Budget(entries=50))
    assert len(files) == 50 and "more than 50 files" in shut[0]


def lying_zip() -> bytes:
    """Its directory claims 5 GB for a file of some bytes."""
    data = bytearray(zipped({"b": PLAIN}))
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFF0)
    return bytes(data)


def encrypted_zip() -> bytes:
    data = bytearray(zipped({"b": PLAIN}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    return bytes(data)


SHUT = {
    "a zip that claims 5 GB": lying_zip(),
    "an encrypted zip": encrypted_zip(),
    "a damaged zip": zipped({"b": PLAIN})[:-8] + b"\0" * 8,
    "a zip whose names differ": zipped({"one-name": PLAIN}).replace(b"one-name", b"two-name", 1),
    "a gzip that ends early": gzip.compress(PLAIN)[:-4],
    "a gzip that is none": b"\x1f\x8b\x08" + b"\xff" * 30,
    "a bzip2 that ends early": bz2.compress(PLAIN)[:-4],
    "an xz that ends early": lzma.compress(PLAIN)[:-4],
    "a tar with a link": tarred(entry("b", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "a tar with a device": tarred(entry("b", type=tarfile.CHRTYPE)),
    "a tar that claims 5 GB": tarred(entry("b", PLAIN))[:124] + b"47040000000\0" + tarred(entry("b", PLAIN))[136:],
    "7z": b"7z\xbc\xaf\x27\x1c" + b"\0" * 40,
    "rar": b"Rar!\x1a\x07\x01\0" + b"\0" * 40,
    "zstd": b"\x28\xb5\x2f\xfd" + b"\0" * 40,
}


@pytest.mark.parametrize("what", SHUT)
def test_what_does_not_open_is_said(what: str) -> None:
    _, shut = opened(SHUT[what])
    assert shut and all(shut)


def test_a_secret_inside_an_archive_is_found_and_a_shut_one_is_not_judged() -> None:
    text = b"postgresql://agent:" + b"Vq9s7kd02x@db/agents\n"
    found = list(secrets_in_files([("a.zip", zipped({"inner.tgz": gzip.compress(tarred(entry("s.env", text)))}))]))
    assert [one.place.file for one in found] == ["a.zip!inner.tgz!!s.env"]
    (unjudged,) = secrets_in_files([("b.zip", SHUT["an encrypted zip"])])
    assert "encrypted" in unjudged.message


def test_plain_files_are_themselves() -> None:
    for data in (b"", b"PK", b"text", b"\0" * 600):
        assert list(unpack("a", data, Budget())) == [Inner("a", data)]
