"""Signed notes and keys: against Go's `note` package, and against everything that isn't one."""

from pathlib import Path

import pytest

from chimera.adapters.signing.ed25519 import Ed25519Signer, check_signature, make_key, read_key
from chimera.immune.audit.checkpoint import Checkpoint, TreeHead, check, make, parse_text, text_of
from chimera.immune.audit.errors import AuditKeyUnusable, InvalidNote, UntrustedCheckpoint
from chimera.immune.audit.merkle import Frontier
from chimera.immune.audit.note import open_note, parse, parse_public_key, sign

GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""
"""The example of golang.org/x/mod/sumdb/note, signed by Go."""


@pytest.fixture
def signer() -> Ed25519Signer:
    return Ed25519Signer("log.example/audit", bytes(range(32)))


def test_a_note_that_go_signed_is_opened_and_no_altered_one() -> None:
    key = parse_public_key(GO_KEY)
    assert str(key) == GO_KEY
    assert open_note(GO_NOTE, key, check_signature) == GO_NOTE.partition("\n\n")[0] + "\n"
    assert open_note(GO_NOTE.replace("answer", "question"), key, check_signature) is None


def test_a_note_is_opened_by_its_key_alone(signer: Ed25519Signer) -> None:
    note = sign("a line\n\nanother\n", signer)
    assert open_note(note, signer.public, check_signature) == "a line\n\nanother\n"
    assert open_note(note, Ed25519Signer("log.example/audit", bytes(32)).public, check_signature) is None
    assert open_note(note, Ed25519Signer("other", bytes(range(32))).public, check_signature) is None
    both = note + sign("a line\n\nanother\n", Ed25519Signer("witness", bytes(32))).rpartition("\n\n")[2]
    assert open_note(both, signer.public, check_signature) == "a line\n\nanother\n"


@pytest.mark.parametrize(
    "note",
    [
        "",
        "no signature\n",
        "x\n\n— name !!!\n",
        "x\n\n- name AAAAAAAA\n",
        "x\x07\n\n— n AAAAAAAA\n",
        "x\n\n— n AAAAAAAA",
        "x" * 70_000,
        "x\n\n" + "— n AAAAAAAA\n" * 17,
        "x\n\n—  AAAAAAAA\n",
        "x\n\n— n AAA=\n",
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(InvalidNote):
        parse(note)


@pytest.mark.parametrize(
    "text", ["", "a+b", GO_KEY.replace("c74f", "c74e"), GO_KEY[:-4], "+c74f20a3+AA==", "a b+1+AA=="]
)
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidNote):
        parse_public_key(text)


def test_a_checkpoint_is_what_its_key_signed(signer: Ed25519Signer) -> None:
    tree = Frontier()
    tree.append(b"first")
    made = make(tree, last=bytes(32), at=1.0, signer=signer)
    assert check(made, (signer.public,), check_signature) == TreeHead(
        origin="log.example/audit", size=1, root=tree.root()
    )
    for wrong in (
        Checkpoint(size=2, at=1.0, last=made.last, frontier=(bytes(32),), note=made.note),
        Checkpoint(size=1, at=1.0, last=made.last, frontier=(bytes(32),), note=made.note),
        Checkpoint(size=1, at=1.0, last=b"", frontier=made.frontier, note=made.note),
        Checkpoint(size=1, at=1.0, last=made.last, frontier=(), note=made.note),
    ):
        with pytest.raises((UntrustedCheckpoint, InvalidNote)):
            check(wrong, (signer.public,), check_signature)
    other = Ed25519Signer("log.example/audit", bytes(32))
    with pytest.raises(UntrustedCheckpoint, match="not signed by"):
        check(made, (other.public,), check_signature)
    assert check(made, (other.public, signer.public), check_signature).size == 1


def test_a_checkpoint_of_another_log_is_refused_though_its_key_signed_it(signer: Ed25519Signer) -> None:
    tree = Frontier()
    head = TreeHead(origin="another.example", size=0, root=tree.root())
    foreign = Checkpoint(size=0, at=1.0, last=bytes(32), frontier=(), note=sign(text_of(head), signer))
    with pytest.raises(UntrustedCheckpoint, match=r"signed are 0 of another\.example"):
        check(foreign, (signer.public,), check_signature)


@pytest.mark.parametrize(
    "text",
    ["", "o\n1\n", "o\n01\nAAAA\n", "o\n-1\nAAAA\n", "o\n1\nAAAA\n", "o\n1\n\nx\n", "o\n٣\nAAAA\n", "o\n1\nünsinn\n"],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidNote):
        parse_text(text)


def test_further_lines_of_a_checkpoint_are_passed_over(signer: Ed25519Signer) -> None:
    text = text_of(TreeHead(origin="o", size=3, root=bytes(32)))
    assert parse_text(text + "an extension\n") == parse_text(text)


def test_a_key_is_made_once_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "audit.key"
    made = make_key(file, "log.example")
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_key(file).public == made.public
    assert "PRIVATE" not in repr(made)
    with pytest.raises(AuditKeyUnusable, match="can't be made"):
        make_key(file, "log.example")
    file.chmod(0o640)
    with pytest.raises(AuditKeyUnusable, match="can be read by others"):
        read_key(file)
    file.chmod(0o600)
    file.write_text("PRIVATE+KEY+log.example+00000000+AAAA\n")
    with pytest.raises(AuditKeyUnusable, match="holds no audit key"):
        read_key(file)
    file.unlink()
    with pytest.raises(AuditKeyUnusable, match="can't be read"):
        read_key(file)
