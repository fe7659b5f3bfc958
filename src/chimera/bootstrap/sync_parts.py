"""Following branches, put together: who keeps sources, who reads repositories, and how a commit becomes live."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from chimera.adapters.git.workers import WorkerRepositories
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.sources import SourceStorage
from chimera.agents.archive import read_archive
from chimera.agents.bundle import pack_files
from chimera.agents.compile import Bundle
from chimera.delivery.errors import NoChange, WrongState
from chimera.delivery.git.errors import MakersUnknown
from chimera.delivery.git.follower import LEASE, Follower
from chimera.delivery.git.ports import Ahead, ChangeOutcome, Delivered, Handover
from chimera.delivery.git.rules import trial
from chimera.delivery.git.settings import SyncSettings
from chimera.delivery.git.sources import Source, SourceState
from chimera.delivery.model import IN_FLIGHT
from chimera.delivery.service import Asker, Changes, Draft
from chimera.gateway.credentials import Credentials
from chimera.kernel.clock import Clock, SystemClock
from chimera.kernel.ids import new_id
from chimera.kernel.leases import Lease, work_while_held
from chimera.kernel.settings import load_group

LEASE_LIFE = 15.0
COPIES = "git"
SECRETS = "secrets"
SECRET_PREFIX = "CHIMERA_SECRET_"


class ByPolicy:
    """The port `Delivery`: live at once where the tenant's delivery policy says so, else by a change request."""

    def __init__(self, sources: SourceStorage, changes: Changes) -> None:
        """Deliver by one of both."""
        self._sources = sources
        self._changes = changes

    async def deliver(self, handover: Handover, state: SourceState, due: float, held: Lease) -> Delivered:
        """See `Delivery`."""
        source = handover.source
        if (await self._changes.policy(source.tenant)).policy.direct:
            return await self._sources.deliver(handover, state, due, held)
        if handover.unread and await self._changes.contents(source.tenant, handover.batch, handover.deletions):
            raise MakersUnknown(
                f"{handover.commit[:12]} needs approvals, and not all who made it are known: {handover.unread}",
                next_step="raise the setting `sync.history_commits`, or let it be followed while the tenant takes "
                "direct changes, where the branch's own protection approves",
            )
        draft = Draft(
            title=handover.subject or f"{source.name} at {handover.commit[:12]}",
            batch=handover.batch,
            remove=handover.deletions,
            supersede=True,
            origin="git",
            commit=handover.commit,
            repository=source.spec.url,
            contributors=tuple(f"git:{address}" for address in handover.contributors),
        )
        try:
            made = await self._changes.open(source.tenant, _asker(source), draft, key=_once(handover, state), held=held)
        except NoChange:
            await self.record(handover, state, due, held)
            return Delivered(sequence=0)
        waits = replace(
            source.state,
            phase="waiting",
            reason=f"{handover.commit[:12]} waits for the change {made.id}",
            next_step=f"see `chimera change show {made.id}`",
            faults=(),
            seen=handover.commit,
            looked=state.looked,
            failures=0,
            change=made.id,
            tried=trial(handover.commit, state.compiler, state.wanted),
        )
        await self._sources.put_state(source, waits, due, held)
        return Delivered(sequence=0, change=made.id)

    async def withdraw(self, source: Source, tip: str, held: Lease) -> Ahead | None:
        """See `Delivery`."""
        state, asker = source.state, _asker(source)
        # Of a source whose wish was changed since, the commit may be the same and what is wanted of it isn't.
        spared = None if state.seen is None and state.change is not None else tip
        ahead: Ahead | None = None
        for one in await self._changes.in_flight_of(source.tenant, asker.actor):
            if one.commit == spared:
                continue
            try:
                await self._changes.withdraw(source.tenant, asker, one.id, f"the branch is at {tip[:12]}", held=held)
            except WrongState:
                if (await self.outcome(source.tenant, one.id)).state == "flight":
                    ahead = Ahead(change=one.id, commit=one.commit or tip)
        return ahead

    async def record(self, handover: Handover, state: SourceState, due: float, held: Lease) -> None:
        """See `Delivery`."""
        await self._sources.record(handover, state, due, held)

    async def outcome(self, tenant: str, change: str) -> ChangeOutcome:
        """See `Delivery`."""
        found = await self._changes.change(tenant, change)
        if found.state in IN_FLIGHT:
            return ChangeOutcome(state="flight")
        if found.state == "done":
            return ChangeOutcome(state="done")
        return ChangeOutcome(state="over", reason=found.reason or found.state)


def _asker(source: Source) -> Asker:
    return Asker(actor=f"git:{source.name}", roles=frozenset())


def _once(handover: Handover, state: SourceState) -> str:
    """The key of the change that delivers a commit to a source that stands as it does.

    Whoever is killed, or loses the lease, after the change was opened and before that was written down leaves no change
    that another takes the place of, with the approvals that it had by then.
    """
    source, before = handover.source, handover.source.state
    parts = (source.name, source.created, source.version, before.commit, before.looked, before.change)
    named = repr((*parts, handover.commit, handover.deletions, state.wanted, state.compiler))
    return f"sync-{hashlib.sha256(named.encode()).hexdigest()[:48]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncParts:
    """What follows branches, and what keeps them."""

    sources: SourceStorage
    settings: SyncSettings
    repositories: WorkerRepositories
    follower: Follower
    loop: Callable[[], Coroutine[Any, Any, None]]


def make_sync(
    database: Database,
    catalogue: Catalogue,
    changes: Changes,
    changed: Callable[[], None],
    *,
    group: Mapping[str, Any],
    copies: Path,
    secrets: Credentials,
    memory: int,
    clock: Clock | None = None,
) -> SyncParts:
    """Put it together; copies of repositories are in `copies`, which nobody else uses. Raises `SettingsError`.

    `memory` is the part of it that each process that reads a repository may have, in bytes.
    """
    settings = load_group(SyncSettings, group, where="sync")
    clock = clock or SystemClock()
    sources = SourceStorage(database, catalogue, clock)
    repositories = WorkerRepositories(copies, settings, memory=memory)
    follower = Follower(
        sources,
        repositories,
        ByPolicy(sources, changes),
        clock,
        settings,
        secrets=secrets.value,
        unpack=unpacked,
        changed=changed,
    )

    async def loop() -> None:
        try:
            await work_while_held(StoredLeases(database), LEASE, new_id("cp"), LEASE_LIFE, follower.run)
        finally:
            await asyncio.shield(repositories.aclose())

    return SyncParts(sources=sources, settings=settings, repositories=repositories, follower=follower, loop=loop)


def sync_secrets(home: Path, environ: Mapping[str, str]) -> Credentials:
    """Secrets of sources: the home's, else those of the environment."""
    return Credentials(home / SECRETS, _named(environ))


def mounted_secrets(folder: Path, environ: Mapping[str, str]) -> Credentials:
    """Secrets of sources in a cluster: those that are mounted, else those of the environment."""
    return Credentials(folder / SECRETS, _named(environ), [folder])


def _named(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix(SECRET_PREFIX): value for name, value in environ.items() if name.startswith(SECRET_PREFIX)
    }


def unpacked(data: bytes, digest: str) -> Bundle:
    """What is in packed code, for the compiler."""
    name = f"bundle {digest[:19]}"
    return pack_files(read_archive(data, name=f"{name}.tar.gz"), name=name).bundle
