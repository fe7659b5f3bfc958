"""An archive is believed nothing: links, paths outside, bombs and lies are refused with the reason."""

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable

import pytest

from chimera.agents.archive import is_archive, read_archive
from chimera.agents.errors import BadArchive
from chimera_host.bundles import BundleLimits

LIMITS = BundleLimits(files=5, total_bytes=10_000, ratio=10, ratio_from=1_000)


def tar(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for info, data in entries:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def tar_entry(
    name: str, data: bytes = b"x", kind: bytes = tarfile.REGTYPE, **fields: str
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data if kind == tarfile.REGTYPE else b""


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], how: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", how) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return target.getvalue()


def zip_entry(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.TGZ"])
def test_files_come_sorted_with_their_rights(name: str) -> None:
    if name.endswith("zip"):
        data = zipped(("b.yaml", b"2"), (zip_entry("a/run", 0o100755), b"1"))
    else:
        runs = tar_entry("a/run", b"1")
        runs[0].mode = 0o755
        data = tar(tar_entry("b.yaml", b"2"), runs, tar_entry("c", kind=tarfile.DIRTYPE))
        data = data if name.endswith(".tar") else gzip.compress(data)
    assert is_archive(name)
    files = read_archive(data, name=name)
    assert [(path, file.data, file.executable) for path, file in files.items()] == [
        ("a/run", b"1", True),
        ("b.yaml", b"2", False),
    ]


def lying_zip() -> bytes:
    """An entry that claims 10 bytes and unpacks to 500,000."""
    data = bytearray(zipped(("a", b"0" * 500_000)))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(signature) + offset, 10)
    return bytes(data)


def encrypted_zip() -> bytes:
    data = bytearray(zipped(("a", b"x")))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tar(tar_entry("../a")), "leads out"),
        (lambda: tar(tar_entry("/a")), "leads out"),
        (lambda: tar(tar_entry("a/../../b")), "leads out"),
        (lambda: tar(tar_entry("a\\b")), "not a path"),
        (lambda: tar(tar_entry("a", kind=tarfile.SYMTYPE, linkname="/etc/passwd")), "neither a file"),
        (lambda: tar(tar_entry("a"), tar_entry("b", kind=tarfile.LNKTYPE, linkname="a")), "neither a file"),
        (lambda: tar(tar_entry("a", kind=tarfile.CHRTYPE)), "neither a file"),
        (lambda: tar(tar_entry("a", kind=tarfile.FIFOTYPE)), "neither a file"),
        (lambda: tar(tar_entry("a"), tar_entry("a")), "twice"),
        (lambda: tar(tar_entry("a"), tar_entry("./a")), "twice"),
        (lambda: tar(tar_entry("a"), tar_entry("a/b")), "the folder of"),
        (lambda: tar(*(tar_entry(f"{number}") for number in range(6))), "more than 5 files"),
        (lambda: tar(tar_entry("a", b"0" * 20_000)), "unpacks to more"),
        (lambda: tar(tar_entry("/".join("a" * 40))), "nested deeper"),
        (lambda: b"nonsense" * 200, "can't be read"),
    ],
)
def test_tar_archives_that_are_refused(make: Callable[[], bytes], words: str) -> None:
    for name, data in (("a.tar", make()), ("a.tar.gz", gzip.compress(make()))):
        with pytest.raises(BadArchive, match=words) as caught:
            read_archive(data, name=name, limits=LIMITS)
        assert name in caught.value.detail


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: zipped(("../a", b"x")), "leads out"),
        (lambda: zipped(("/a", b"x")), "leads out"),
        (lambda: zipped(("a\\..\\b", b"x")), "not a path"),
        (lambda: zipped((zip_entry("a", 0o120777), b"/etc/passwd")), "neither a file"),
        (lambda: zipped((zip_entry("a", 0o010644), b"")), "neither a file"),
        (lambda: zipped(("a", b"1"), ("./a", b"2")), "twice"),
        (lambda: zipped(*((str(number), b"") for number in range(6))), "more than 5 files"),
        (lambda: zipped(("a", b"0" * 500_000)), "unpacks to more"),
        (lying_zip, r"can't be read|unpacks to more"),
        (encrypted_zip, "encrypted"),
        (lambda: zipped(("a", b"x"), how=zipfile.ZIP_LZMA), "use deflate"),
        (lambda: zipped(("a", b"x"))[:-10], "can't be read"),
        (lambda: b"", "can't be read"),
    ],
)
def test_zip_archives_that_are_refused(make: Callable[[], bytes], words: str) -> None:
    with pytest.raises(BadArchive, match=words):
        read_archive(make(), name="a.zip", limits=LIMITS)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(b"\0" * 10_000_000), "unpacks to more"),
        (gzip.compress(tar(tar_entry("a")))[:-20], r"too early|can't be read"),
        (b"\x1f\x8b garbage", "can't be read"),
    ],
)
def test_gzip_that_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(BadArchive, match=words):
        read_archive(data, name="a.tgz", limits=LIMITS)


def test_a_sparse_tar_entry_is_refused() -> None:
    info = tarfile.TarInfo("a")
    info.type = tarfile.GNUTYPE_SPARSE
    with pytest.raises(BadArchive):
        read_archive(tar((info, b"")), name="a.tar", limits=LIMITS)
