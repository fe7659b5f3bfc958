"""Ed25519 (RFC 8032) by `cryptography`, and the file that holds a signing key.

The file has one line, in the form of Go's `note` package: `PRIVATE+KEY+<name>+<id>+<base64>`. Its mode is 0600 and it
lies outside the database, so that whoever can write the database, or has a copy of it, can't sign. It may lie on
another machine altogether (`chimera audit checkpoint --sign`).
"""

import base64
import binascii
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from chimera.immune.audit.errors import AuditKeyUnusable
from chimera.immune.audit.note import ED25519, KEY_BYTES, PublicKey, check_name

_PREFIX = "PRIVATE+KEY+"


class Ed25519Signer:
    """A private key in memory."""

    def __init__(self, name: str, seed: bytes) -> None:
        """A key from its 32 secret bytes."""
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = PublicKey(name=check_name(name), key=self._key.public_key().public_bytes_raw())

    @property
    def public(self) -> PublicKey:
        """See `Signer`."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """See `Signer`."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        """Its public part alone."""
        return f"<signer {self._public}>"


def check_signature(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is `key`'s on `message` (the port `Checker`)."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def make_key(file: Path, name: str) -> Ed25519Signer:
    """Make a key of this name in `file`; raises `AuditKeyUnusable` where something is there already."""
    seed = os.urandom(KEY_BYTES)
    signer = Ed25519Signer(name, seed)
    encoded = base64.b64encode(ED25519 + seed).decode()
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        raise AuditKeyUnusable(
            f"the audit key can't be made at {file}: {error.strerror}",
            next_step="give a path where nothing is, in a folder that you may write",
        ) from None
    try:
        os.write(descriptor, f"{_PREFIX}{name}+{signer.public.id.hex()}+{encoded}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return signer


def read_key(file: Path) -> Ed25519Signer:
    """The key in `file`; raises `AuditKeyUnusable`, also where others than its owner may read it."""
    try:
        with file.open("rb") as source:
            mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode)
            text = source.read(4096).decode("ascii", "replace").strip()
    except OSError as error:
        raise AuditKeyUnusable(
            f"the audit key {file} can't be read: {error.strerror}",
            next_step="bring it back from where it is kept; a key made anew can't vouch for what is signed already",
        ) from None
    if mode & 0o077:
        raise AuditKeyUnusable(
            f"the audit key {file} can be read by others (mode {mode:04o})", next_step=f"chmod 600 {file}"
        )
    name, _, rest = text.removeprefix(_PREFIX).partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raw = b""
    if text.startswith(_PREFIX) and len(raw) == 1 + KEY_BYTES and raw[:1] == ED25519:
        signer = Ed25519Signer(name, raw[1:])
        if signer.public.id.hex() == key_id:
            return signer
    raise AuditKeyUnusable(f"{file} holds no audit key", next_step="see `chimera audit key --help`")
