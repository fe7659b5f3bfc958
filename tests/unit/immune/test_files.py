"""The file of checkpoints and the archive: appended, torn by a crash, read back."""

from pathlib import Path

import msgspec
import pytest

from chimera.adapters.signing.ed25519 import Ed25519Signer
from chimera.adapters.signing.files import AuditFileFailed, FileOfCheckpoints, FolderArchive, export, read_export
from chimera.immune.audit.checkpoint import Checkpoint, make
from chimera.immune.audit.errors import InvalidNote
from chimera.immune.audit.merkle import Frontier
from chimera.immune.audit.model import ChainedEntry


@pytest.fixture
def checkpoints() -> list[Checkpoint]:
    signer, tree, made = Ed25519Signer("log.example", bytes(32)), Frontier(), []
    for number in range(3):
        tree.append(bytes([number]))
        made.append(make(tree, last=bytes(32), at=float(number), signer=signer))
    return made


def test_checkpoints_are_appended_and_read_in_order(tmp_path: Path, checkpoints: list[Checkpoint]) -> None:
    file = FileOfCheckpoints(tmp_path / "audit" / "checkpoints")
    assert list(file.read()) == []
    file.append(checkpoints[:1])
    file.append(checkpoints[1:])
    assert list(file.read()) == checkpoints
    assert file.file.stat().st_mode & 0o777 == 0o600


def test_a_line_that_a_crash_cut_short_spoils_no_other(tmp_path: Path, checkpoints: list[Checkpoint]) -> None:
    file = FileOfCheckpoints(tmp_path / "checkpoints")
    file.append(checkpoints[:2])
    whole = file.file.read_bytes()
    for cut in range(1, len(msgspec.json.encode(checkpoints[1]))):
        file.file.write_bytes(whole[:-cut])
        assert list(file.read())[:1] == checkpoints[:1]
        file.append(checkpoints[1:])
        assert list(file.read())[-2:] == checkpoints[1:]


def test_a_line_that_somebody_altered_is_named(tmp_path: Path, checkpoints: list[Checkpoint]) -> None:
    file = FileOfCheckpoints(tmp_path / "checkpoints")
    file.append(checkpoints)
    lines = file.file.read_text().splitlines(keepends=True)
    file.file.write_text(lines[0] + '{"size": "one"}\n' + lines[2])
    with pytest.raises(InvalidNote, match=":2 is no checkpoint"):
        list(file.read())


def test_a_file_that_cant_be_written_or_read_is_named(tmp_path: Path, checkpoints: list[Checkpoint]) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    with pytest.raises(AuditFileFailed, match="checkpoints"):
        FileOfCheckpoints(folder).append(checkpoints)
    with pytest.raises(AuditFileFailed, match="checkpoints"):
        list(FileOfCheckpoints(folder).read())


def test_a_segment_is_there_whole_or_not_at_all(tmp_path: Path, checkpoints: list[Checkpoint]) -> None:
    archive = FolderArchive(tmp_path / "archive")
    entries = [ChainedEntry(seq=seq, hash=bytes(32), entry=msgspec.Raw(b'{"a":1.0}')) for seq in (1, 2)]
    segment = archive.begin(1, 2)
    segment.write(entries)
    assert list(archive.folder.glob("*.jsonl")) == []
    segment.discard()
    assert list(archive.folder.iterdir()) == []
    segment = archive.begin(1, 2)
    segment.write(entries)
    segment.finish(checkpoints[1])
    (file,) = archive.folder.iterdir()
    assert list(read_export(file)) == [*entries, checkpoints[1]]
    assert export(entries) + msgspec.json.encode({"checkpoint": checkpoints[1]}) + b"\n" == file.read_bytes()


def test_what_is_no_export_is_named(tmp_path: Path) -> None:
    file = tmp_path / "export"
    file.write_text("nothing\n")
    with pytest.raises(InvalidNote, match="export:1"):
        list(read_export(file))
    with pytest.raises(AuditFileFailed):
        list(read_export(tmp_path / "none"))
