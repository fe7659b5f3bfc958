import gzip
import hashlib
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera_host.bundles import BundleLimits, check_entry, unpack
from chimera_host.errors import BundleRefused
from chimera_host.testing.builders import bundle, digest

parts = st.text(st.sampled_from("ab.-_é /\\\0"), min_size=1, max_size=8)
paths = st.one_of(st.text(max_size=40), st.lists(parts, min_size=1, max_size=6).map("/".join))


def packed(*entries: tarfile.TarInfo, content: bytes = b"x") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    return out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 1) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    info.size = size if kind == tarfile.REGTYPE else 0
    return info


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@given(paths)
def test_an_accepted_path_stays_inside(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp()
    try:
        path = check_entry(name, is_file=True, is_folder=False)
    except BundleRefused:
        return
    assert (root / path).resolve().is_relative_to(root.resolve())
    assert not path.is_absolute() and ".." not in path.parts


names = st.text("abcdef_", min_size=1, max_size=6)


@given(
    st.dictionaries(st.lists(names, min_size=1, max_size=2).map(lambda p: "/".join(p) + ".py"), st.text(max_size=200))
)
def test_what_is_packed_is_unpacked(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("bundles")
    data = bundle(files)
    where = unpack(data, digest(data), folder)
    found = {str(p.relative_to(where)): p.read_bytes().decode() for p in where.rglob("*.py")}
    assert found == files
    assert unpack(data, digest(data), folder) == where
    assert [p.name for p in folder.iterdir()] == [where.name]


@given(st.binary(max_size=300), st.integers(0, 10_000))
def test_damaged_bytes_are_refused_and_leave_nothing(tmp_path_factory, noise, position):
    folder = tmp_path_factory.mktemp("bundles")
    good = bundle({"a.py": "x = 1\n" * 100})
    position %= len(good)
    bad = good[:position] + noise + good[position + len(noise) :]
    try:
        where = unpack(bad, sha(bad), folder)
    except BundleRefused:
        assert list(folder.iterdir()) == []
    else:
        assert where.is_dir()


@pytest.mark.parametrize(
    "bad",
    [
        entry("link", tarfile.SYMTYPE, "/etc/passwd"),
        entry("link", tarfile.LNKTYPE, "a"),
        entry("device", tarfile.CHRTYPE),
        entry("pipe", tarfile.FIFOTYPE),
        entry("../outside"),
        entry("/etc/outside"),
        entry("a/../../outside"),
        entry("a\\b"),
        entry("/".join(["deep"] * 40)),
        entry("x" * 500),
    ],
    ids=lambda info: info.name[:20],
)
def test_what_could_leave_the_folder_is_refused(tmp_path, bad):
    data = packed(entry("a"), bad)
    with pytest.raises(BundleRefused):
        unpack(data, sha(data), tmp_path / "bundles")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["bundles"]


def test_other_bytes_than_the_digest_says_are_refused(tmp_path):
    data = bundle({"a.py": ""})
    with pytest.raises(BundleRefused, match="not those of"):
        unpack(data, digest(b"other"), tmp_path)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (BundleLimits(files=2), "more than 2 files"),
        (BundleLimits(total_bytes=20), "more than"),
        (BundleLimits(ratio=2, ratio_from=100), "unpacks to more"),
    ],
)
def test_bounds(tmp_path, limits, words):
    data = bundle({f"{n}.py": "x = 1\n" * 50 for n in range(4)})
    with pytest.raises(BundleRefused, match=words):
        unpack(data, digest(data), tmp_path, limits)


def test_a_bomb_is_refused_without_being_unpacked(tmp_path):
    bomb = gzip.compress(bytes(600 * 1024**2), 1)
    with pytest.raises(BundleRefused, match="unpacks to more"):
        unpack(bomb, sha(bomb), tmp_path)


def test_the_same_file_twice_is_refused(tmp_path):
    data = packed(entry("a"), entry("a"))
    with pytest.raises(BundleRefused, match="can't be unpacked"):
        unpack(data, sha(data), tmp_path)
