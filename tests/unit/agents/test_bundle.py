"""A source folder packs to the same bytes everywhere, which a host unpacks; what may not be in it is refused."""

import os
from pathlib import Path

import pytest

from chimera.agents.archive import ArchivedFile
from chimera.agents.bundle import pack_files, pack_folder
from chimera.agents.errors import BadArchive, InvalidDefinition
from chimera_host.bundles import BundleLimits, unpack

LOCK = "tax==1.0 --hash=sha256:" + "a" * 64 + "\n"


def make(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_the_digest_is_the_same_on_any_machine() -> None:
    files = {"agent.py": ArchivedFile(data=b"x = 1\n"), "run.sh": ArchivedFile(data=b"#!/bin/sh\n", executable=True)}
    # A literal: when it changes, every bundle of every installation does.
    assert (
        pack_files(files, name="code").digest
        == "sha256:ac2623d81991f96a6993910225772918cac2deadc46daf6a1edb6867b20e376f"
    )


def test_times_rights_and_order_do_not_count(tmp_path: Path) -> None:
    one = make(tmp_path / "one", {"b.py": "2", "a/x.py": "1", "a/y.py": "3"})
    two = make(tmp_path / "two", {"a/y.py": "3", "a/x.py": "1", "b.py": "2"})
    os.utime(two / "b.py", (0, 0))
    (two / "b.py").chmod(0o600)
    assert pack_folder(one).digest == pack_folder(two).digest
    (two / "b.py").chmod(0o700)
    assert pack_folder(one).digest != pack_folder(two).digest


def test_a_host_unpacks_it(tmp_path: Path) -> None:
    big = "x" * 200_000  # more than one stored block
    packed = pack_folder(make(tmp_path / "code", {"agent.py": "x = 1", "data/ä.txt": big}))
    folder = unpack(packed.data, packed.digest, tmp_path / "unpacked")
    assert (folder / "agent.py").read_text() == "x = 1"
    assert (folder / "data" / "ä.txt").read_text() == big
    assert packed.files == ("agent.py", "data/ä.txt")


def test_what_is_not_the_agents_is_left_out(tmp_path: Path) -> None:
    names = ("a.py", "__pycache__/a.pyc", "b.pyc", ".git/config", ".env", ".env.local", "sub/.venv/x", ".hidden")
    assert pack_folder(make(tmp_path, dict.fromkeys(names, "x"))).files == (".hidden", "a.py")


def test_links_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "code", {"a.py": "x"})
    (tmp_path / "code" / "link").symlink_to("/etc/passwd")
    with pytest.raises(BadArchive, match="link is a link"):
        pack_folder(tmp_path / "code")


def test_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadArchive, match="neither a file nor a folder"):
        pack_folder(tmp_path)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no files"),
        ({"../a.py": "x"}, "leads out"),
        ({"/a.py": "x"}, "leads out"),
        ({"a" * 120 + ".py": "x"}, "no name"),
        ({f"{number}.py": "x" for number in range(4)}, "more than 3 files"),
        ({"a.py": "x" * 101}, "more than 100 bytes"),
    ],
)
def test_bounds(files: dict[str, str], words: str) -> None:
    given = {name: ArchivedFile(data=text.encode()) for name, text in files.items()}
    with pytest.raises(BadArchive, match=words):
        pack_files(given, name="code", limits=BundleLimits(files=3, total_bytes=100))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="No such file"):
        pack_folder(tmp_path / "none")


def test_a_lock_makes_a_runtime_of_its_own(tmp_path: Path) -> None:
    plain = pack_folder(make(tmp_path / "a", {"agent.py": "x"}))
    locked = pack_folder(make(tmp_path / "b", {"agent.py": "x", "requirements.txt": LOCK}))
    other = pack_folder(make(tmp_path / "c", {"agent.py": "y", "requirements.txt": "# why\n" + LOCK}))
    assert plain.requirements is None
    assert locked.requirements == other.requirements is not None
    assert len({plain.digest, locked.digest, other.digest}) == 3
    assert locked.bundle.requirements == locked.requirements


def test_an_open_requirement_is_refused_with_its_line(tmp_path: Path) -> None:
    make(tmp_path, {"agent.py": "x", "requirements.txt": LOCK + "requests>=2\n"})
    with pytest.raises(InvalidDefinition) as caught:
        pack_folder(tmp_path)
    fault = caught.value.faults[0]
    assert (fault.line, fault.file) == (2, f"{tmp_path}/requirements.txt")
