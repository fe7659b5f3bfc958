"""Git's objects, read strictly: what real git writes is read, what it doesn't is refused."""

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from dulwich.objects import Commit as Made
from dulwich.objects import Tag as MadeTag
from dulwich.objects import Tree

from chimera.adapters.git.objects import Objects
from chimera.adapters.git.sshsig import verify
from chimera.delivery.git.errors import BadTree, GitError, InvalidProtection, MalformedObject
from chimera.delivery.git.objects import object_id, parse_commit, parse_tag, parse_tree
from chimera.delivery.git.signers import read_signers

NAME = "c" * 40
COMMIT = (
    b"tree " + b"1" * 40 + b"\nparent " + b"2" * 40 + b"\nauthor Ann <Ann@Example.com> 1 +0000\n"
    b"committer Bob <bob@example.com> 2 -0130\n\nSubject\n\nSigned-off-by: Bob <Bob@example.com>\n"
    b"Co-authored-by: Cid <cid@example.com>\n"
)
TAG = b"object " + b"1" * 40 + b"\ntype commit\ntag v1\ntagger Ann <ann@example.com> 7 +0000\n\napproved\nmore\n"


def test_a_commit_says_who_made_it() -> None:
    commit = parse_commit(NAME, COMMIT)
    assert (commit.author, commit.committer, commit.at) == ("ann@example.com", "bob@example.com", 2)
    assert commit.signed_off == {"bob@example.com"}
    assert commit.co_authors == {"cid@example.com"}
    assert commit.parents == ("2" * 40,)
    assert (commit.subject, commit.payload, commit.signature) == ("Subject", COMMIT, None)


def test_a_signature_covers_everything_but_itself() -> None:
    made = Made.from_string(COMMIT)
    made.gpgsig = b"-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----"
    commit = parse_commit(NAME, made.as_raw_string())
    assert commit.payload == COMMIT
    assert commit.signature == made.gpgsig + b"\n"
    tag = parse_tag(NAME, TAG + made.gpgsig + b"\n")
    assert (tag.payload, tag.signature) == (TAG, made.gpgsig + b"\n")
    assert (tag.word, tag.at, tag.name, tag.target_kind) == ("approved", 7, "v1", "commit")
    assert MadeTag.from_string(TAG).name == b"v1"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"tree",
        COMMIT.replace(b"tree " + b"1" * 40, b"tree 11"),
        COMMIT.replace(b"parent", b"grandparent"),
        COMMIT.replace(b"\ncommitter", b"\nauthor Eve <eve@example.com> 1 +0000\ncommitter"),
        COMMIT.replace(b"Ann <Ann@Example.com>", b"Ann <Eve@x> <Ann@Example.com>"),
        COMMIT.replace(b"-0130\n", b"-0130\ngpgsig a\ngpgsig b\n"),
        COMMIT.replace(b"-0130\n", b"-0130\nencoding\0x\n"),
        b" " + COMMIT,
    ],
)
def test_a_commit_that_git_does_not_write_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedObject):
        parse_commit(NAME, raw)


@pytest.mark.parametrize(
    "raw",
    [
        TAG.replace(b"tagger", b"author"),
        TAG.replace(b"type commit\n", b""),
        TAG + b"-----BEGIN SSH SIGNATURE-----\n" * 2,
        TAG[:-1] + b"-----BEGIN SSH SIGNATURE-----\n",
    ],
)
def test_a_tag_that_git_does_not_write_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedObject):
        parse_tag(NAME, raw)


def test_a_tree_has_plain_names() -> None:
    tree = Tree()
    tree.add(b"a.yaml", 0o100644, b"1" * 40)
    tree.add(b"run", 0o100755, b"2" * 40)
    tree.add(b"sub", 0o040000, b"3" * 40)
    entries = parse_tree(NAME, tree.as_raw_string(), "")
    assert [(one.name, one.kind, one.is_executable) for one in entries] == [
        ("a.yaml", "file", False),
        ("run", "file", True),
        ("sub", "folder", False),
    ]


def entry(name: bytes, mode: bytes = b"100644") -> bytes:
    return mode + b" " + name + b"\0" + b"\x11" * 20


@pytest.mark.parametrize(
    "name", [b"..", b".", b".git", b".GIT", b"a/b", b"../../etc/passwd", b"a\nb", b"\xff", b"a\x1b[31m"]
)
def test_a_name_that_leads_elsewhere_is_refused(name: bytes) -> None:
    with pytest.raises(BadTree):
        parse_tree(NAME, entry(name), "agents")


@pytest.mark.parametrize("raw", [b"x", entry(b"a")[:-1], entry(b"a", b"10x644"), entry(b"a", b"1"), entry(b"a") + b"1"])
def test_a_tree_that_git_does_not_write_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedObject):
        parse_tree(NAME, raw, "")


def test_a_name_stands_once() -> None:
    with pytest.raises(BadTree, match="twice"):
        parse_tree(NAME, entry(b"a") + entry(b"a"), "")


def test_damage_is_found_where_it_is_read(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path)], check=True)
    done = subprocess.run(
        ["git", "-C", str(tmp_path), "hash-object", "-w", "--stdin"], input=b"text", capture_output=True, check=True
    )
    name = done.stdout.decode().strip()
    assert name == object_id("blob", b"text")
    objects = Objects(tmp_path / "objects")
    assert objects.read(name, "blob") == ("blob", b"text")
    with pytest.raises(MalformedObject, match="no tree"):
        objects.read(name, "tree")
    with pytest.raises(MalformedObject, match="isn't there"):
        objects.read("e" * 40)
    file = tmp_path / "objects" / name[:2] / name[2:]
    file.chmod(0o644)
    other = (
        subprocess.run(
            ["git", "-C", str(tmp_path), "hash-object", "-w", "--stdin"],
            input=b"other",
            capture_output=True,
            check=True,
        )
        .stdout.decode()
        .strip()
    )
    for damage in ((tmp_path / "objects" / other[:2] / other[2:]).read_bytes(), b"x", b"", file.read_bytes()[:8]):
        file.write_bytes(damage)
        fresh = Objects(tmp_path / "objects")
        with pytest.raises(GitError):
            fresh.read(name)
        fresh.close()
    objects.close()


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO0Tzqvne3TT8jPOl4i8vGWqUWkJ4XhXcH1v0N8iV1cE"
KEY2 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP1dNrz9n3vHkmxq9XqX7gC3Qn1bY9w7wXJ5J5mQx3eB"


def test_keys_that_share_a_name_are_one_person() -> None:
    text = (
        f'# us\nann@x,ann@y {KEY} laptop\n\nann@y,ann@z namespaces="git,file" {KEY2}\nbob@x namespaces="file" {KEY2}\n'
    )
    signers = read_signers(text, file="signers")
    assert len(signers.keys) == 2
    assert {person.names for person in signers.keys.values()} == {frozenset({"ann@x", "ann@y", "ann@z"})}
    assert signers.named("ANN@Z") is not None
    assert signers.named("bob@x") is None


@pytest.mark.parametrize(
    "line",
    [
        f"*@x {KEY}",
        f"!ann@x {KEY}",
        f"ann@x cert-authority {KEY}",
        f'ann@x valid-before="20200101" {KEY}',
        "ann@x ssh-dss AAAA",
        "ann@x",
        "ann@x ssh-ed25519 !!!!",
        "ann@x ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIO0Tzqvne3TT8jPOl4i8vGWqUWkJ4XhXcH1v0N8iV1cE",
        f"ann@x {KEY}\nbob@x {KEY}",
    ],
)
def test_a_line_that_names_nobody_in_particular_is_refused(line: str) -> None:
    with pytest.raises(InvalidProtection):
        read_signers(line, file="signers")


def signed(tmp_path: Path, bits: int, namespace: str) -> tuple[bytes, str]:
    made = rsa.generate_private_key(65537, bits)
    key = tmp_path / "key"
    key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    key.chmod(0o600)
    public = made.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    done = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(key)],
        input=b"text",
        capture_output=True,
        check=True,
    )
    return done.stdout, public


def test_signatures_of_openssh_are_verified(tmp_path: Path) -> None:
    signature, public = signed(tmp_path, 2048, "git")
    signers = read_signers(f"ann@x {public}", file="signers")
    assert verify(b"text", signature, signers) == ("good", signers.named("ann@x"))
    assert verify(b"other", signature, signers) == ("bad", None)
    assert verify(b"text", None, signers) == ("missing", None)
    assert verify(b"text", b"-----BEGIN PGP SIGNATURE-----\n", signers) == ("missing", None)
    assert verify(b"text", signature, read_signers(f"bob@x {KEY}", file="signers")) == ("unknown", None)
    lines = signature.splitlines()
    for broken in (signature[:-30], signature.replace(lines[1], lines[1][::-1]), lines[0] + b"\n" + lines[-1] + b"\n"):
        assert verify(b"text", broken, signers) == ("bad", None)


def test_a_signature_for_another_purpose_does_not_count(tmp_path: Path) -> None:
    signature, public = signed(tmp_path, 2048, "file")
    assert verify(b"text", signature, read_signers(f"ann@x {public}", file="signers")) == ("bad", None)
