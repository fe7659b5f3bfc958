"""Archives: any bytes are answered, any names stay inside, and what is packed comes back."""

import io
import tarfile
import zipfile
from pathlib import PurePosixPath

from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.agents.archive import ArchivedFile, read_archive
from chimera.agents.bundle import is_ignored, pack_files
from chimera.agents.errors import BadArchive
from chimera_host.bundles import BundleLimits

LIMITS = BundleLimits(files=20, total_bytes=20_000, ratio=50, ratio_from=5_000)
names = st.text(st.sampled_from("ab./\\é~ "), min_size=1, max_size=12)
contents = st.lists(st.tuples(names, st.binary(max_size=50)), max_size=5)


def as_tar(entries: list[tuple[str, bytes]]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target.getvalue()


def as_zip(entries: list[tuple[str, bytes]]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        written = set()
        for name, data in entries:
            if name not in written:
                archive.writestr(name, data)
            written.add(name)
    return target.getvalue()


@given(contents, st.sampled_from(["a.tar", "a.zip"]))
def test_names_stay_inside(entries: list[tuple[str, bytes]], name: str) -> None:
    data = as_tar(entries) if name == "a.tar" else as_zip(entries)
    try:
        files = read_archive(data, name=name, limits=LIMITS)
    except BadArchive:
        return
    for path in files:
        parts = PurePosixPath(path).parts
        assert parts
        assert ".." not in parts
        assert not path.startswith("/")
        assert "\\" not in path
    assert list(files) == sorted(files)


@settings(max_examples=200)
@given(
    st.one_of(st.binary(max_size=400), contents.map(as_zip), contents.map(as_tar)),
    st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 255)), max_size=6),
    st.sampled_from(["a.zip", "a.tar", "a.tgz"]),
)
def test_damaged_bytes_are_answered(data: bytes, damage: list[tuple[int, int]], name: str) -> None:
    changed = bytearray(data)
    for position, value in damage:
        if position < len(changed):
            changed[position] = value
    try:
        files = read_archive(bytes(changed), name=name, limits=LIMITS)
    except BadArchive as error:
        assert name in error.detail
        return
    assert sum(len(file.data) for file in files.values()) <= LIMITS.total_bytes


paths = st.lists(st.from_regex(r"\A[a-c]{1,2}(/[a-c]{1,2}){0,2}\.py\Z"), min_size=1, max_size=5, unique=True)


@given(paths, st.data())
def test_what_is_packed_comes_back_whatever_its_order(given_paths: list[str], data: st.DataObject) -> None:
    files = {
        path: ArchivedFile(data=data.draw(st.binary(max_size=80)), executable=data.draw(st.booleans()))
        for path in given_paths
    }
    packed = pack_files(files, name="code")
    again = pack_files(dict(data.draw(st.permutations(list(files.items())))), name="elsewhere")
    assert packed == again
    assert read_archive(packed.data, name="bundle.tar.gz") == dict(sorted(files.items()))
    assert not any(is_ignored(path) for path in packed.files)


@given(paths, st.binary(max_size=20))
def test_another_content_is_another_digest(given_paths: list[str], extra: bytes) -> None:
    one = {path: ArchivedFile(data=b"x") for path in given_paths}
    two = one | {given_paths[0]: ArchivedFile(data=b"x" + extra)}
    assert (pack_files(one, name="a").digest == pack_files(two, name="a").digest) == (not extra)
