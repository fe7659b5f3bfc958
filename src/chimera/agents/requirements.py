"""The requirements file of a source folder: a lock, in which every line names one version and its hashes.

Such a file makes a runtime class of its own: agents with the same lock share an environment. So its digest is taken
over what is locked, not over how it is written: comments, order, spelling of names and line breaks don't count. Only
locked requirements are taken; an option (another index, another file) or an address would bring code without a hash.
`uv pip compile --generate-hashes` and `pip-compile --generate-hashes` write such files.
"""

import hashlib
import re
from collections.abc import Iterator

from msgspec import Struct

from chimera.agents.errors import Fault, InvalidDefinition

FILE_NAME = "requirements.txt"
MAX_BYTES = 1024 * 1024
MAX_REQUIREMENTS = 2_000

_PINNED = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?)"
    r"\s*(?P<extras>\[[A-Za-z0-9._, -]{0,200}\])?"
    r"\s*==\s*(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]{0,99})"
    r"\s*(?:;\s*(?P<marker>[^#]{1,500}?))?"
)
_HASH = re.compile(r"\s--hash[=\s]\s*(\S+)")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_COMMENT = re.compile(r"(^|\s)#.*$")
_HOW = "write it by `uv pip compile --generate-hashes`"


class Lock(Struct, frozen=True, kw_only=True):
    """A checked requirements file: its lines in one way of writing, and their digest."""

    digest: str
    lines: tuple[str, ...]


def read_lock(text: str, *, file: str) -> Lock:
    """Check a requirements file; raises `InvalidDefinition` with every line that isn't locked."""
    if len(text) > MAX_BYTES:
        raise InvalidDefinition([_fault(file, None, "the file is too long", f"up to {MAX_BYTES:,} characters")])
    faults: list[Fault] = []
    found: dict[str, str] = {}
    for line, entry in _logical_lines(text):
        read = _requirement(entry)
        if isinstance(read, Fault):
            faults.append(_fault(file, line, read.message, read.allowed))
            continue
        key = re.sub(r"==\S+", "", read.partition(" --hash")[0])
        if key in found:
            faults.append(
                _fault(file, line, f"{key} stands twice", "each requirement once, or under different markers")
            )
        found[key] = read
    if len(found) > MAX_REQUIREMENTS:
        faults.append(_fault(file, None, f"{len(found):,} requirements are too many", f"up to {MAX_REQUIREMENTS:,}"))
    if faults:
        raise InvalidDefinition(faults)
    lines = tuple(sorted(found.values()))
    return Lock(digest="sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest(), lines=lines)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines joined where one ends with a backslash, without comments, each with the number of its first line."""
    start, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        start = start or number
        plain = _COMMENT.sub("", line)
        goes_on = plain.endswith("\\")
        parts.append(plain.removesuffix("\\"))
        if goes_on:
            continue
        if joined := " ".join(parts).strip():
            yield start, joined
        start, parts = 0, []
    if joined := " ".join(parts).strip():
        yield start, joined


def _requirement(entry: str) -> str | Fault:
    if entry.startswith("-"):
        option = entry.split("=")[0].split()[0]
        return Fault(message=f"the option {option} is not taken", allowed="locked requirements alone")
    plain, hashes = _HASH.sub("", entry).strip(), _HASH.findall(entry)
    match = _PINNED.fullmatch(plain)
    if match is None:
        return Fault(message=f"{plain[:80]!r} doesn't name one version", allowed=f"name==version --hash=…; {_HOW}")
    if not hashes:
        return Fault(message=f"{match['name']} has no hash", allowed=f"--hash=sha256:…; {_HOW}")
    for digest in hashes:
        if _DIGEST.fullmatch(digest) is None:
            return Fault(
                message=f"{match['name']}: {digest[:80]!r} is no hash that counts", allowed="sha256, sha384 or sha512"
            )
    name = re.sub(r"[-_.]+", "-", match["name"]).lower()
    extras = ",".join(sorted({part.strip().lower() for part in (match["extras"] or "[]")[1:-1].split(",")} - {""}))
    marker = " ".join(match["marker"].split()) if match["marker"] else ""
    head = name + (f"[{extras}]" if extras else "") + f"=={match['version']}" + (f" ; {marker}" if marker else "")
    return " ".join([head, *(f"--hash={digest}" for digest in sorted(set(hashes)))])


def _fault(file: str, line: int | None, message: str, allowed: str | None) -> Fault:
    return Fault(file=file, line=line, column=None if line is None else 1, message=message, allowed=allowed)
