"""Git's commits, tags and trees, read strictly from their bytes.

What is decided by them (who made a commit, what a signature covers) must not depend on how lenient a reader is, so
there is one way to read each, and everything else is refused. A name in a tree that could lead out of its folder is
refused as well: nothing here is ever written to a file system, and what reads it later may do so.
"""

import hashlib
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from chimera.delivery.git.errors import BadTree, MalformedObject

Kind = Literal["commit", "tree", "blob", "tag"]
FOLDER, LINK, SUBMODULE = 0o040000, 0o120000, 0o160000
SIGNATURE = b"-----BEGIN SSH SIGNATURE-----\n"

_ID = re.compile(rb"[0-9a-f]{40}")
_PERSON = re.compile(rb"[^<>\n\0]*<([^<>\n\0]*)> ([0-9]{1,12}) [+-][0-9]{4}")
_SIGNED_OFF = re.compile(r"^signed-off-by:[^<\n]*<([^<>\n]+)>\s*$", re.MULTILINE | re.IGNORECASE)
_CO_AUTHOR = re.compile(r"^co-authored-by:[^<\n]*<([^<>\n]+)>\s*$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """A commit; addresses are in lower case. `signature` covers `payload`."""

    id: str
    tree: str
    parents: tuple[str, ...]
    author: str
    committer: str
    at: int
    message: str
    payload: bytes
    signature: bytes | None

    @property
    def subject(self) -> str:
        """The first line of the message."""
        return self.message.partition("\n")[0][:100]

    @property
    def signed_off(self) -> frozenset[str]:
        """Who signed it off, as it says."""
        return frozenset(found.lower() for found in _SIGNED_OFF.findall(self.message))

    @property
    def co_authors(self) -> frozenset[str]:
        """Who else made it, as it says."""
        return frozenset(found.lower() for found in _CO_AUTHOR.findall(self.message))


@dataclass(frozen=True, kw_only=True, slots=True)
class Tag:
    """An annotated tag: its own name, what it names, and its message's first line. `signature` covers `payload`."""

    id: str
    target: str
    target_kind: str
    name: str
    at: int
    word: str
    payload: bytes
    signature: bytes | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One entry of a folder."""

    name: str
    mode: int
    id: str

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_IFMT(self.mode) == FOLDER

    @property
    def is_file(self) -> bool:
        """Whether it is a plain file."""
        return stat.S_IFMT(self.mode) == stat.S_IFREG

    @property
    def is_executable(self) -> bool:
        """Whether it is a plain file that can be run."""
        return self.is_file and bool(self.mode & stat.S_IXUSR)

    @property
    def kind(self) -> str:
        """What it is, in a word."""
        names = {FOLDER: "folder", LINK: "link", SUBMODULE: "submodule", stat.S_IFREG: "file"}
        return names.get(stat.S_IFMT(self.mode), "thing")


def object_id(kind: Kind, raw: bytes) -> str:
    """The id that Git gives to an object of these bytes."""
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(raw)) + raw, usedforsecurity=False).hexdigest()


def parse_commit(name: str, raw: bytes) -> Commit:
    """Read a commit; raises `MalformedObject`."""
    headers, message = _split(name, raw)
    fields = _fields(name, headers)
    order = [key for key, _ in fields]
    parents = order.count(b"parent")
    if order[: parents + 3] != [b"tree", *[b"parent"] * parents, b"author", b"committer"]:
        raise _malformed(name, "its headers don't stand in Git's order")
    signatures = [value for key, value in fields if key == b"gpgsig"]
    rest = order[parents + 3 :]
    if len(signatures) > 1 or len(set(rest)) != len([key for key in rest if key != b"mergetag"]) + (
        b"mergetag" in rest
    ):
        raise _malformed(name, "a header stands twice in it")
    author, committer = fields[parents + 1][1], fields[parents + 2][1]
    return Commit(
        id=name,
        tree=_id(name, fields[0][1]),
        parents=tuple(_id(name, value) for key, value in fields if key == b"parent"),
        author=_address(name, author)[0],
        committer=_address(name, committer)[0],
        at=_address(name, committer)[1],
        message=message.decode("utf-8", "replace"),
        payload=_without_signature(headers) + b"\n" + message,
        signature=signatures[0] + b"\n" if signatures else None,
    )


def parse_tag(name: str, raw: bytes) -> Tag:
    """Read an annotated tag; raises `MalformedObject`."""
    headers, message = _split(name, raw)
    fields = _fields(name, headers)
    if [key for key, _ in fields] != [b"object", b"type", b"tag", b"tagger"]:
        raise _malformed(name, "its headers don't stand in Git's order")
    if message.count(SIGNATURE) > 1:
        raise _malformed(name, "it holds two signatures")
    body, found, signature = message.partition(SIGNATURE)
    if found and body and not body.endswith(b"\n"):
        raise _malformed(name, "its signature begins within a line")
    return Tag(
        id=name,
        target=_id(name, fields[0][1]),
        target_kind=fields[1][1].decode("ascii", "replace"),
        name=fields[2][1].decode("utf-8", "replace"),
        at=_address(name, fields[3][1])[1],
        word=body.decode("utf-8", "replace").strip().partition("\n")[0].strip(),
        payload=headers + b"\n" + body,
        signature=found + signature if found else None,
    )


def parse_tree(name: str, raw: bytes, path: str) -> tuple[Entry, ...]:
    """Read a folder, which is at `path`; raises `MalformedObject`, and `BadTree` for names that lead elsewhere."""
    entries: list[Entry] = []
    at = 0
    while at < len(raw):
        space, end = raw.find(b" ", at, at + 8), raw.find(b"\0", at)
        if space < 0 or end < space or end + 21 > len(raw):
            raise _malformed(name, "it is no list of entries")
        mode, file = raw[at:space], raw[space + 1 : end]
        if not mode.isdigit() or not re.fullmatch(rb"[0-7]{5,6}", mode):
            raise _malformed(name, "an entry's mode is no number")
        entries.append(Entry(name=_name(file, path), mode=int(mode, 8), id=raw[end + 1 : end + 21].hex()))
        at = end + 21
    if len({entry.name for entry in entries}) != len(entries):
        raise BadTree(f"{path or 'the root'}: a name stands twice in this folder", next_step="make the commit with Git")
    return tuple(entries)


def _name(raw: bytes, path: str) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadTree(f"{path or 'the root'}: the name {raw!r} is not UTF-8", next_step="rename the file") from None
    if not name or "/" in name or name in (".", "..") or name.casefold() == ".git" or not name.isprintable():
        raise BadTree(
            f"{path or 'the root'}: the name {name!r} leads elsewhere, or can't be shown",
            next_step="take the entry out of the commit",
        )
    return name


def _split(name: str, raw: bytes) -> tuple[bytes, bytes]:
    headers, blank, message = raw.partition(b"\n\n")
    if not blank and not raw.endswith(b"\n"):
        raise _malformed(name, "it has no headers")
    if b"\0" in headers:
        raise _malformed(name, "its headers hold a NUL")
    return (headers + b"\n", message) if blank else (raw, b"")


def _fields(name: str, headers: bytes) -> Sequence[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, bytes]] = []
    for line in headers[:-1].split(b"\n"):
        if line.startswith(b" "):
            if not fields:
                raise _malformed(name, "it begins within a header")
            key, value = fields[-1]
            fields[-1] = (key, value + b"\n" + line[1:])
            continue
        key, space, value = line.partition(b" ")
        if not key or not space:
            raise _malformed(name, "a header has no value")
        fields.append((key, value))
    return fields


def _without_signature(headers: bytes) -> bytes:
    kept: list[bytes] = []
    within = False
    for line in headers[:-1].split(b"\n"):
        within = line.startswith(b"gpgsig ") or (within and line.startswith(b" "))
        if not within:
            kept.append(line)
    return b"\n".join(kept) + b"\n"


def _id(name: str, value: bytes) -> str:
    if not _ID.fullmatch(value):
        raise _malformed(name, "it names an object that has no id of 40 digits")
    return value.decode("ascii")


def _address(name: str, value: bytes) -> tuple[str, int]:
    found = _PERSON.fullmatch(value)
    if found is None:
        raise _malformed(name, "it doesn't say in Git's form who made it and when")
    return found[1].decode("utf-8", "replace").strip().lower(), int(found[2])


def _malformed(name: str, what: str) -> MalformedObject:
    return MalformedObject(f"the object {name[:12]} is not as Git writes it: {what}", next_step="make it with Git anew")
