"""The keys of provenance: the one that signs, in a file of mode 0600, and the public ones of all that have signed.

The files have the forms of the audit log's (`ed25519`). A key is read when something is signed, so one that was put in
its place counts from then on; its public part is added to the others', which stay, so that what they signed can be
checked. Take out the line of a key that was stolen.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from chimera.adapters.signing.ed25519 import Ed25519Signer, make_key, read_key
from chimera.delivery.evidence.errors import EvidenceKeyUnusable
from chimera.immune.audit.errors import AuditError, AuditKeyUnusable
from chimera.immune.audit.note import KEY_BYTES, PublicKey, parse_public_key

KEY, PUBLIC_KEYS = "provenance.key", "provenance/public-keys"
_NAME = "chimera-provenance"
_PURPOSE = b"chimera provenance v1\0"


class RingSigner:
    """A key as evidence takes it (the port `Signing`)."""

    def __init__(self, signer: Ed25519Signer) -> None:
        """Sign by `signer`."""
        self._signer = signer

    @property
    def key_id(self) -> str:
        """See `Signing`: the public key as a text, which holds the key."""
        return str(self._signer.public)

    def sign(self, message: bytes) -> bytes:
        """See `Signing`."""
        return self._signer.sign(message)


class FileRing:
    """A key ring of files (the port `KeyRing`). Without a home there is none, and nothing is signed."""

    def __init__(self, home: Path | None) -> None:
        """The keys of `home`."""
        self._key = None if home is None else home / KEY
        self._public = None if home is None else home / PUBLIC_KEYS

    def signer(self) -> RingSigner | None:
        """See `KeyRing`; the home's key is made where none has signed yet."""
        if self._key is None:
            return None
        try:
            if not self._key.exists() and not self._lines():
                make_key(self._key, f"{_NAME}-{os.urandom(8).hex()}")
            signer = read_key(self._key)
        except AuditError as error:
            raise _unusable(error) from None
        self._note(signer.public)
        return RingSigner(signer)

    def public(self) -> Mapping[str, bytes]:
        """See `KeyRing`."""
        return ring_of(self._lines())

    def rotate(self) -> str:
        """Put a new key in the place of the home's; the new one's id. Raises `EvidenceKeyUnusable`."""
        if self._key is None:
            raise EvidenceKeyUnusable("there is no home, and so no key", next_step="name one with --home")
        fresh = self._key.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        try:
            signer = make_key(fresh, f"{_NAME}-{os.urandom(8).hex()}")
        except AuditError as error:
            raise _unusable(error) from None
        # Published before it signs, so that nothing is signed by a key that nobody knows.
        self._note(signer.public)
        fresh.rename(self._key)
        return str(signer.public)

    def _note(self, public: PublicKey) -> None:
        if self._public is None or str(public) in self._lines():
            return
        self._public.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._public.open("a", encoding="utf-8") as target:
            target.write(f"{public}\n")

    def _lines(self) -> list[str]:
        if self._public is None or not self._public.exists():
            return []
        return self._public.read_text("utf-8").splitlines()


class PublicKeys(Protocol):
    """Where public keys are kept, a line for each, beside the database. Its methods may block."""

    def lines(self) -> list[str]:
        """All that are there."""

    def add(self, line: str) -> None:
        """Add one that isn't there yet; it is kept when this returns."""


class SecretRing:
    """A key ring whose key is made of a secret text that several machines have (the port `KeyRing`).

    Another text is another key. Public keys are noted in `kept` before anything is signed, and stay there.
    """

    def __init__(self, file: Path, kept: PublicKeys | None = None) -> None:
        """The secret is in `file`, which a cluster mounts; without `kept` nobody notes older keys."""
        self._file = file
        self._kept = kept
        self._noted = ""

    def signer(self) -> RingSigner:
        """See `KeyRing`."""
        signer = RingSigner(self._current())
        if self._kept is not None and self._noted != signer.key_id:
            self._kept.add(signer.key_id)
            self._noted = signer.key_id
        return signer

    def public(self) -> Mapping[str, bytes]:
        """See `KeyRing`."""
        older = [] if self._kept is None else self._kept.lines()
        return ring_of([*older, str(self._current().public)])

    def _current(self) -> Ed25519Signer:
        try:
            return secret_signer(self._file, _NAME, _PURPOSE)
        except AuditError as error:
            raise _unusable(error) from None


def secret_signer(file: Path, name: str, purpose: bytes) -> Ed25519Signer:
    """The key of this name that a secret text makes for a purpose; raises `AuditKeyUnusable`."""
    try:
        text = file.read_bytes().strip()
    except OSError as error:
        raise AuditKeyUnusable(
            f"the secret of the audit key {file} can't be read: {error.strerror}",
            next_step="see that the Secret is there and mounted",
        ) from None
    if len(text) < KEY_BYTES:
        raise AuditKeyUnusable(
            f"the secret of the audit key has {len(text)} characters", next_step=f"give it {KEY_BYTES} or more"
        )
    return Ed25519Signer(name, hashlib.sha256(purpose + text).digest())


def ring_of(lines: list[str]) -> dict[str, bytes]:
    """Public keys by their ids, of the lines of a file; raises `EvidenceKeyUnusable` for one that is none."""
    try:
        keys = [parse_public_key(line) for line in lines if line.strip() and not line.startswith("#")]
    except AuditError as error:
        raise _unusable(error) from None
    return {str(key): key.key for key in keys}


def _unusable(error: AuditError) -> EvidenceKeyUnusable:
    return EvidenceKeyUnusable(error.detail.replace("audit key", "provenance key"), next_step=error.next_step)
