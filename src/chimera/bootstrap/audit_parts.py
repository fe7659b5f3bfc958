"""The audit log put together: where its key and files are, and what makes its checkpoints.

In the home: `audit.key` (the signing key), `audit/public-keys` (one line for each key that checks), `audit/checkpoints`
and `audit/archive`. `chimera up` makes the key at its first start. Several control planes on one database sign with one
key, which each is given as a file. In a cluster it is made of a Secret that control planes alone have; public keys and
the newest checkpoints are in the ledger, a ConfigMap, and there is no archive.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chimera.adapters.signing.ed25519 import check_signature, make_key, read_key
from chimera.adapters.signing.files import FileOfCheckpoints, FolderArchive
from chimera.adapters.signing.ring import secret_signer
from chimera.adapters.storage.audit import AuditStorage
from chimera.adapters.substrates.knative.ledger import Ledger, LedgerCheckpoints, LedgerKeys
from chimera.adapters.substrates.knative.places import AUDIT_KEYS, CHECKPOINTS
from chimera.immune.audit.checkpointer import LEASE, Checkpointer, sign
from chimera.immune.audit.errors import AuditKeyUnusable
from chimera.immune.audit.model import AuditRecord
from chimera.immune.audit.note import PublicKey, Signer, parse_public_key
from chimera.immune.audit.settings import AuditSettings
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease, Leases, work_while_held
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

ELSEWHERE = "elsewhere"
CLUSTER_KEY, PURPOSE = "chimera-audit", b"chimera audit v1\0"
KEY_RETRY = 30.0


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
    known = public_keys(where.public_keys)
    public = read_key(where.key).public
    if public not in known:
        with where.public_keys.open("a", encoding="utf-8") as target:
            target.write(f"{public}\n")
    return where


def public_keys(file: Path) -> tuple[PublicKey, ...]:
    """The keys that check this log's checkpoints; the newest first. Raises `InvalidNote` for a line that is none."""
    try:
        return _keys(file.read_text("utf-8").splitlines())
    except FileNotFoundError:
        return ()


def _keys(lines: Sequence[str]) -> tuple[PublicKey, ...]:
    return tuple(parse_public_key(line) for line in reversed(lines) if line.strip() and not line.startswith("#"))


def make_checkpointer(store: AuditStorage, home: Path, settings: AuditSettings, clock: Clock) -> Checkpointer:
    """What makes the checkpoints; raises `AuditKeyUnusable`."""
    where = ensure_key(home, settings)
    signer: Signer | None = None if where.key is None else read_key(where.key)
    keys = public_keys(where.public_keys)
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


def ledger_checkpointer(
    store: AuditStorage, ledger: Ledger, key_file: Path, settings: AuditSettings, clock: Clock
) -> Checkpointer:
    """What makes the checkpoints in a cluster. It blocks: call it in a thread. Raises `AuditKeyUnusable`.

    The public key is in the ledger before anything is signed.
    """
    kept = LedgerKeys(ledger, AUDIT_KEYS)
    signer = None if settings.key == ELSEWHERE else secret_signer(key_file, CLUSTER_KEY, PURPOSE)
    if signer is not None:
        kept.add(str(signer.public))
    keys = _keys(kept.lines())
    if not keys:
        raise AuditKeyUnusable(
            f"the ledger names no key in {AUDIT_KEYS}", next_step="write the signing machine's public key there"
        )
    return Checkpointer(
        store,
        files=[LedgerCheckpoints(ledger, CHECKPOINTS)],
        keys=keys,
        checker=check_signature,
        signer=signer,
        archive=None,
        clock=clock,
        settings=settings,
    )


async def sign_in_cluster(
    store: AuditStorage,
    ledger: Ledger,
    key_file: Path,
    settings: AuditSettings,
    clock: Clock,
    leases: Leases,
    *,
    owner: str,
    life: float,
) -> None:
    """Make checkpoints whenever this owner holds the lease; the ledger, too, is written under it alone."""

    async def work(lease: Lease) -> None:
        while True:
            try:
                made = await asyncio.to_thread(ledger_checkpointer, store, ledger, key_file, settings, clock)
            except ProblemError as error:
                extra = {"problem": error.detail, "next_step": error.next_step}
                log.error("no checkpoints of the audit log are made", extra=extra)
                await asyncio.sleep(KEY_RETRY)
            else:
                await sign(made, leases, lease)

    await work_while_held(leases, LEASE, owner, life, work)


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
