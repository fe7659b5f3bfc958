"""Signed notes (C2SP signed-note), the form in which checkpoints are signed; the format of Go's checksum database.

    <text, any lines>
    <empty line>
    — <key name> <base64 of the key's id (4 bytes) and the signature>

A key has a name, which says whose it is, and an id, which tells it from others of its name. As texts, keys have the
forms of Go's `golang.org/x/mod/sumdb/note`, so that its tools read them: `<name>+<id>+<base64>` for the public one.

What Ed25519 itself computes is asked of a port: the library lives in an adapter.
"""

import base64
import binascii
import hashlib
from typing import Protocol

from msgspec import Struct

from chimera.immune.audit.errors import InvalidNote

ED25519 = b"\x01"
KEY_BYTES = 32
SIGNATURE_BYTES = 64
LARGEST_NOTE = 65_536
_MOST_SIGNATURES = 16
_DASH = "— "


class PublicKey(Struct, frozen=True, kw_only=True):
    """An Ed25519 key that checks signatures; `key` are its 32 bytes."""

    name: str
    key: bytes

    @property
    def id(self) -> bytes:
        """Four bytes that tell it from other keys of its name."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.key).digest()[:4]

    def __str__(self) -> str:
        """As a text that `parse_public_key` reads."""
        return f"{self.name}+{self.id.hex()}+{_base64(ED25519 + self.key)}"


class Signature(Struct, frozen=True, kw_only=True):
    """One signature line of a note."""

    name: str
    key_id: bytes
    signature: bytes


class Signer(Protocol):
    """Whatever holds the private key."""

    @property
    def public(self) -> PublicKey:
        """The key that checks what it signs."""

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature (64 bytes)."""


class Checker(Protocol):
    """Whatever can check a signature."""

    def __call__(self, key: bytes, signature: bytes, message: bytes) -> bool:
        """Whether `signature` is `key`'s on `message`."""


def check_name(name: str) -> str:
    """A key's name as it is; raises `InvalidNote` where it can't be one (empty, with spaces or a plus)."""
    if not name or "+" in name or any(character.isspace() or ord(character) < 32 for character in name):
        raise InvalidNote(f"{name[:100]!r} can't be the name of a key", next_step="use a name without spaces and `+`")
    return name


def parse_public_key(text: str) -> PublicKey:
    """A public key from its text; raises `InvalidNote`."""
    parts = text.strip().split("+", 2)
    if len(parts) == 3:
        name, key_id, encoded = parts
        raw = _bytes(encoded)
        if raw is not None and len(raw) == 1 + KEY_BYTES and raw[:1] == ED25519:
            key = PublicKey(name=check_name(name), key=raw[1:])
            if key.id.hex() == key_id.lower():
                return key
    raise InvalidNote(
        f"{text[:100]!r} is no public key of a log",
        next_step="give `<name>+<id>+<base64>`, as `chimera audit key` prints it",
    )


def sign(text: str, signer: Signer) -> str:
    """The note of `text`, which ends with a newline, with the one signature of `signer`."""
    _check_text(text)
    public = signer.public
    signature = public.id + signer.sign(text.encode())
    return f"{text}\n{_DASH}{public.name} {_base64(signature)}\n"


def parse(note: str) -> tuple[str, tuple[Signature, ...]]:
    """A note's text and its signatures, none of them checked; raises `InvalidNote`."""
    if len(note) > LARGEST_NOTE:
        raise _invalid("it is too long")
    text, separator, lines = note.rpartition("\n\n")
    if not separator or not lines.endswith("\n"):
        raise _invalid("it has no signatures")
    text += "\n"
    _check_text(text)
    found = []
    for line in lines[:-1].split("\n"):
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        raw = _bytes(encoded)
        if not line.startswith(_DASH) or raw is None or len(raw) < 5:
            raise _invalid(f"{line[:100]!r} is no signature")
        found.append(Signature(name=check_name(name), key_id=raw[:4], signature=raw[4:]))
    if len(found) > _MOST_SIGNATURES:
        raise _invalid("it has too many signatures")
    return text, tuple(found)


def open_note(note: str, key: PublicKey, check: Checker) -> str | None:
    """The text of a note that `key` has signed; None for one it hasn't. Raises `InvalidNote`."""
    text, signatures = parse(note)
    for one in signatures:
        if (one.name, one.key_id) == (key.name, key.id) and len(one.signature) == SIGNATURE_BYTES:
            return text if check(key.key, one.signature, text.encode()) else None
    return None


def _check_text(text: str) -> None:
    if not text.endswith("\n") or any(character < " " and character != "\n" for character in text):
        raise _invalid("its text has control characters, or does not end with a newline")


def _invalid(why: str) -> InvalidNote:
    return InvalidNote(f"this is no signed note: {why}", next_step="give the text of a checkpoint, unchanged")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(encoded: str) -> bytes | None:
    try:
        return base64.b64decode(encoded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return None
