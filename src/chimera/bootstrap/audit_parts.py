"""The audit log put together: where its key and files are, and what makes its checkpoints.

In the home: `audit.key` (the signing key), `audit/public-keys` (one line for each key that checks), `audit/checkpoints`
and `audit/archive`. `chimera up` makes the key at its first start. Several control planes on one database sign with one
key, which each is given as a file.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chimera.adapters.signing.ed25519 import check_signature, make_key, read_key
from chimera.adapters.signing.files import FileOfCheckpoints, FolderArchive
from chimera.adapters.storage.audit import AuditStorage
from chimera.immune.audit.checkpointer import Checkpointer
from chimera.immune.audit.errors import AuditKeyUnusable
from chimera.immune.audit.model import AuditRecord
from chimera.immune.audit.note import PublicKey, Signer, parse_public_key
from chimera.immune.audit.settings import AuditSettings
from chimera.kernel.clock import Clock

ELSEWHERE = "elsewhere"


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditPlaces:
    """Files of the audit log; `key` is None where another machine signs."""

    key: Path | None
    public_keys: Path
    checkpoints: Path
    copy: Path | None
    archive: Path


def places(home: Path, settings: AuditSettings) -> AuditPlaces:
    """Where everything is."""
    folder = home / "audit"
    return AuditPlaces(
        key=None if settings.key == ELSEWHERE else Path(settings.key) if settings.key else home / "audit.key",
        public_keys=folder / "public-keys",
        checkpoints=folder / "checkpoints",
        copy=Path(settings.copy) if settings.copy else None,
        archive=Path(settings.archive) if settings.archive else folder / "archive",
    )


def ensure_key(home: Path, settings: AuditSettings) -> AuditPlaces:
    """Make the key where the settings name no other and none is there, and write down its public part.

    A home that has checkpoints and no key gets none: a key made anew couldn't vouch for what is signed already.
    """
    where = places(home, settings)
    where.public_keys.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if where.key is None:
        return where
    if not settings.key and not where.key.exists() and not where.checkpoints.exists():
        make_key(where.key, f"chimera-audit-{os.urandom(8).hex()}")
    known = public_keys(where)
    public = read_key(where.key).public
    if public not in known:
        with where.public_keys.open("a", encoding="utf-8") as target:
            target.write(f"{public}\n")
    return where


def public_keys(where: AuditPlaces) -> tuple[PublicKey, ...]:
    """The keys that check this log's checkpoints; the newest first. Raises `InvalidNote` for a line that is none."""
    try:
        lines = where.public_keys.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return ()
    return tuple(parse_public_key(line) for line in reversed(lines) if line.strip() and not line.startswith("#"))


def make_checkpointer(store: AuditStorage, home: Path, settings: AuditSettings, clock: Clock) -> Checkpointer:
    """What makes the checkpoints; raises `AuditKeyUnusable`."""
    where = ensure_key(home, settings)
    signer: Signer | None = None if where.key is None else read_key(where.key)
    keys = public_keys(where)
    if not keys:
        raise AuditKeyUnusable(
            f"{where.public_keys} names no key",
            next_step="write the signing machine's public key there (`chimera audit key --help`)",
        )
    files = [FileOfCheckpoints(where.checkpoints)]
    if where.copy is not None:
        files.append(FileOfCheckpoints(where.copy))
    return Checkpointer(
        store,
        files=files,
        keys=keys,
        checker=check_signature,
        signer=signer,
        archive=FolderArchive(where.archive),
        clock=clock,
        settings=settings,
    )


def started(process: str, clock: Clock, detail: dict[str, Any]) -> AuditRecord:
    """The entry of a process's start, with the settings that it was given; they name secrets and hold none."""
    return AuditRecord(
        at=clock.wall(),
        tenant="",
        actor=f"system:{process}",
        action="platform.started",
        resource=process,
        outcome="done",
        detail=detail,
    )
