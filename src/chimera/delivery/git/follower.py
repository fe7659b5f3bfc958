"""Following branches: one loop over the sources of all tenants, while this process holds the lease.

A look at a source asks where its branch is. Where that is the commit that is delivered already, it only looks for
drift, and for that only where the catalogue has changed. Else the commit is fetched, compared with the delivered one,
and the definitions that differ are read, checked and staged; nothing of that changes anything that is live. What
becomes live becomes so in one transaction, with the state that says so. So a look costs what differs, and a look that
is killed is made again.

Whatever is wrong with a source stands in its state, in a phase with a reason and what to do. What was delivered last
stays live meanwhile.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from chimera.agents.catalogue import StagedItem, compiler_id
from chimera.agents.compile import Bundle
from chimera.agents.errors import Fault
from chimera.agents.intake import Taken, take_in
from chimera.delivery.git.addresses import check_address
from chimera.delivery.git.definitions import placed, touched
from chimera.delivery.git.errors import (
    AddressRefused,
    BadTree,
    MalformedObject,
    RepositoryTooLarge,
    SourceChanged,
    Unreachable,
)
from chimera.delivery.git.ports import (
    CommitTold,
    Delivery,
    Handover,
    ReadFile,
    Remote,
    Repositories,
    Row,
    SourceStore,
)
from chimera.delivery.git.rules import must_read_all, named, next_look, plan, removal_problem, trial, wanted_digest
from chimera.delivery.git.settings import SyncSettings
from chimera.delivery.git.sources import CONFIRMED, MOST_DRIFT, MOST_FAULTS, STOPPED, Phase, Source, SourceState
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

LEASE = "sync"
PATIENCE = 5
"""So often a commit that is live and that the branch has left is tried to be read; then the newer one is."""
Secrets = Callable[[str], Awaitable[str]]
Unpack = Callable[[bytes, str], Bundle]
_PHASES: dict[type[ProblemError], Phase] = {
    Unreachable: "unreachable",
    RepositoryTooLarge: "unreachable",
    AddressRefused: "refused",
    MalformedObject: "unreadable",
    BadTree: "unreadable",
}


class _Read(Struct):
    """What was read of a commit: rows to be, faults in words, and the batch where the definitions are staged."""

    rows: list[Row]
    faults: list[str]
    batch: str | None = None
    position: int = 0


class _Look:
    """One look at a source: what is known of it so far.

    `behind` is a commit that a change request made live and the branch has left since: it is recorded first, so that
    what comes after is compared with what is live.
    """

    def __init__(self, source: Source) -> None:
        self.source, self.state = source, source.state
        self.behind: str | None = None


class _Stop(Exception):
    """The look ends here, in this phase."""

    def __init__(self, phase: Phase, reason: str, step: str, faults: Sequence[str] = (), removals: int = 0) -> None:
        super().__init__(reason)
        self.phase, self.reason, self.next_step = phase, reason, step
        self.faults, self.removals = tuple(faults)[:MOST_FAULTS], removals


class Follower:
    """Follows the sources of one database."""

    def __init__(
        self,
        store: SourceStore,
        repositories: Repositories,
        delivery: Delivery,
        clock: Clock,
        settings: SyncSettings,
        *,
        secrets: Secrets,
        unpack: Unpack,
        changed: Callable[[], None],
    ) -> None:
        """`secrets` gives a reference's value, `unpack` looks into code, `changed` is called after a delivery."""
        self._store = store
        self._repositories = repositories
        self._delivery = delivery
        self._clock = clock
        self._settings = settings
        self._secrets = secrets
        self._unpack = unpack
        self._changed = changed

    async def run(self, held: Lease) -> None:
        """Look at what is due, until cancelled; a slow source keeps its place and no other's."""
        running: dict[tuple[str, str], asyncio.Task[None]] = {}
        try:
            while True:
                await self._begin(running, held)
                if running:
                    await asyncio.wait(running.values(), timeout=self._settings.poll)
                else:
                    await asyncio.sleep(self._settings.poll)
                for key in [key for key, task in running.items() if task.done()]:
                    await running.pop(key)
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)

    async def _begin(self, running: dict[tuple[str, str], "asyncio.Task[None]"], held: Lease) -> None:
        if len(running) >= self._settings.at_once:
            return
        for source in await self._store.due(self._clock.wall(), self._settings.at_once + len(running)):
            key = (source.tenant, source.name)
            if key not in running and len(running) < self._settings.at_once:
                running[key] = asyncio.create_task(self.follow(source, held), name=f"sync-{key[0]}-{key[1]}")

    async def follow(self, source: Source, held: Lease) -> None:
        """Look at one source, and keep what came of it."""
        look = _Look(source)
        try:
            try:
                await self._follow(look, held)
            except _Stop as stop:
                await self._stopped(look, stop, held)
            except MalformedObject as error:
                await self._unreadable(look, error, held)
            except SourceChanged:
                raise
            except ProblemError as error:
                phases = (name for kind, name in _PHASES.items() if isinstance(error, kind))
                phase: Phase = next(phases, "refused")
                told = [str(fault.get("message", "")) for fault in error.errors or ()]
                await self._stopped(look, _Stop(phase, error.detail, error.next_step or "", told), held)
            except Exception as error:  # one source's fault is no other's
                log.exception("a source could not be followed", extra={"source": source.name, "tenant": source.tenant})
                reason = f"something went wrong inside: {type(error).__name__}"
                await self._stopped(look, _Stop("refused", reason, "see the control plane's log"), held)
        except SourceChanged:
            log.info("a source was changed meanwhile", extra={"source": source.name, "tenant": source.tenant})

    async def _stopped(self, look: _Look, stop: _Stop, held: Lease) -> None:
        state = replace(
            look.state,
            phase=stop.phase,
            reason=stop.reason,
            next_step=stop.next_step,
            faults=stop.faults,
            removals=stop.removals,
        )
        await self._keep(look.source, state, held, failed=stop.phase in ("unreachable", "refused"))

    async def _unreadable(self, look: _Look, error: MalformedObject, held: Lease) -> None:
        """The copy here may be what is damaged: it is made anew once, before the commit is given up."""
        await self._repositories.forget(_key(look.source))
        before = look.source.state
        if (before.phase, before.seen) != ("unreadable", look.state.seen):
            look.state = replace(look.state, tried="")
        await self._stopped(look, _Stop("unreadable", error.detail, error.next_step or ""), held)

    async def _follow(self, look: _Look, held: Lease) -> None:
        source, state = look.source, look.state
        remote = await self._remote(source)
        tip = await self._repositories.tip(remote)
        compiler, wanted = compiler_id(), wanted_digest(source.spec)
        if await self._waits(look, tip, held):
            return
        if look.behind is not None:
            tip = look.behind
        tried = _trial(source, tip)
        look.state = replace(look.state, seen=tip, tried=tried)
        all_of_it = must_read_all(look.state, compiler, wanted)
        if tip == state.commit and not all_of_it:
            await self._check_drift(look, remote, held)
            return
        if tried == state.tried and state.phase in STOPPED | CONFIRMED:
            await self._keep(source, look.state, held)
            return
        before = state.commit if state.wanted == wanted else None
        told = await self._repositories.fetch(_key(source), remote, tip, before)
        if told.forward is False and state.confirmed_rewrite != tip:
            raise _Stop(
                "rewritten",
                f"the branch was rewritten: {tip[:12]} doesn't follow {(before or '')[:12]}, which is live"
                + (f", as far as was read: {told.unread}" if told.unread else ""),
                f"see what happened there; if it is meant: chimera sync run {source.name} --allow-rewrite {tip}",
            )
        await self._deliver(look, told, None if all_of_it or told.forward is False else before, held)

    async def _remote(self, source: Source) -> Remote:
        spec = source.spec
        address = check_address(spec.url, self._settings)
        password = await self._secrets(spec.credential) if spec.credential is not None else None
        return Remote(
            url=spec.url, branch=spec.branch, folder=address.folder, username=spec.username, password=password
        )

    async def _deliver(
        self, look: _Look, told: CommitTold, before: str | None, held: Lease, *, only: Sequence[str] | None = None
    ) -> None:
        """Deliver a commit: what differs from `before`, all of it where that is None; or `only` these files of it."""
        source, spec = look.source, look.source.spec
        files = only if only is not None else await self._differing(source, told.commit, before)
        read = await self._read(source, told.commit, files)
        if read.faults:
            raise _Stop(
                "broken",
                f"{told.commit[:12]}: definitions are not valid, nothing of the commit was applied",
                "mend them in the repository",
                read.faults,
            )
        rows = await self._store.rows(source, None if before is None else files)
        holders = await self._store.holders(source.tenant, [row.agent for row in read.rows])
        decided = plan(source.name, rows, read.rows, holders)
        if decided.twice:
            raise _Stop("refused", decided.twice[0], "give each agent one definition", decided.twice)
        agents = await self._store.count(source)
        gone = decided.gone if spec.prune else ()
        problem = removal_problem(spec, len(gone), agents)
        if problem and look.state.confirmed_prune != told.commit:
            raise _Stop(
                "held",
                f"{told.commit[:12]}: {problem}; nothing of the commit was applied",
                f"if it is meant: chimera sync run {source.name} --allow-prune {told.commit}",
                gone,
                len(gone),
            )
        now = self._clock.wall()
        handover = Handover(
            source=source,
            commit=told.commit,
            subject=told.subject,
            author=told.author,
            contributors=told.contributors,
            unread=told.unread,
            batch=read.batch,
            deletions=gone,
            rows=decided.rows,
            files=None if before is None else tuple(files),
        )
        state = SourceState(
            phase="current",
            seen=look.state.seen,
            commit=told.commit,
            subject=told.subject,
            author=told.author,
            delivered=now,
            looked=now,
            agents=agents - len(rows) + len(decided.rows),
            removals=len(gone),
            compiler=compiler_id(),
            wanted=wanted_digest(spec),
        )
        if look.behind is not None:
            await self._delivery.record(handover, state, now, held)
            return
        await self._delivery.deliver(handover, state, self._next(source, 0), held)
        self._changed()

    async def _differing(self, source: Source, commit: str, before: str | None) -> tuple[str, ...]:
        """Files whose definitions differ; those that are gone are among them."""
        differs = await self._repositories.compare(_key(source), before, commit, source.spec.path)
        folders = await self._store.folders(source) if before is not None else {}
        return named(touched((*differs.changed, *differs.gone), folders))

    async def _read(self, source: Source, commit: str, files: Sequence[str]) -> _Read:
        """Read, check and stage the definitions in `files`."""
        found = _Read(rows=[], faults=[])
        async for some in self._repositories.read(_key(source), commit, files):
            bundles = await self._keep_code(source.tenant, some)
            items = [one.item for file in some for one in file.definitions]
            taken = await asyncio.to_thread(take_in, items, tenant=source.tenant, first=found.position, bundles=bundles)
            _collect(some, taken, found)
            staged = [item for item in taken.staged if item.compiled is not None]
            if staged and not found.faults:
                await self._stage(source.tenant, found, staged)
            found.position += len(items)
        return found

    async def _stage(self, tenant: str, found: _Read, staged: list[StagedItem]) -> None:
        if found.batch is None:
            found.batch = await self._store.open_batch(tenant)
        await self._store.stage(tenant, found.batch, staged)

    async def _keep_code(self, tenant: str, files: Sequence[ReadFile]) -> dict[str, Bundle]:
        bundles: dict[str, Bundle] = {}
        for file in files:
            for one in file.definitions:
                if one.code is not None and one.code.digest not in bundles:
                    bundle = await asyncio.to_thread(self._unpack, one.code.data, one.code.digest)
                    await self._store.put_code(tenant, one.code, bundle.requirements)
                    bundles[one.code.digest] = bundle
        return bundles

    async def _check_drift(self, look: _Look, remote: Remote, held: Lease) -> None:
        """Look for agents that aren't as the delivered commit says, and bring them back where that is wanted."""
        source, state = look.source, look.state
        sequence = await self._store.sequence()
        if sequence == state.sequence and state.phase == "current":
            await self._keep(source, state, held)
            return
        drifted, drift = await self._store.drift(source, MOST_DRIFT)
        commit = state.commit or ""
        if drifted and source.spec.drift == "mend":
            log.info("drift is mended", extra={"source": source.name, "tenant": source.tenant, "agents": drifted})
            agents = {one.agent for one in drift}
            files = named(row.file for row in await self._store.rows(source, None) if row.agent in agents)
            told = await self._repositories.fetch(_key(source), remote, commit, commit)
            await self._deliver(look, told, commit, held, only=files)
            return
        if state.change is not None and not drifted:
            await self._record_mended(look, commit, held)
            return
        reason = f"{drifted:,} agents are not as {commit[:12]} says" if drifted else ""
        step = "put what is meant into the repository, or have drift mended: --drift mend" if drifted else ""
        found = replace(
            state,
            phase="current",
            reason=reason,
            next_step=step,
            faults=(),
            removals=0,
            drifted=drifted,
            drift=tuple(drift),
            sequence=sequence,
            change=None,
        )
        await self._keep(source, found, held)

    async def _record_mended(self, look: _Look, commit: str, held: Lease) -> None:
        """Pin to the commit what a change request has brought back to it."""
        source, state = look.source, look.state
        handover = Handover(
            source=source,
            commit=commit,
            subject=state.subject,
            author=state.author,
            contributors=(),
            unread="",
            batch=None,
            deletions=(),
            rows=tuple(await self._store.rows(source, None)),
            files=None,
        )
        kept = replace(
            state,
            phase="current",
            reason="",
            next_step="",
            faults=(),
            removals=0,
            drifted=0,
            drift=(),
            failures=0,
            change=None,
            looked=self._clock.wall(),
        )
        await self._delivery.record(handover, kept, self._next(source, 0), held)

    async def _waits(self, look: _Look, tip: str, held: Lease) -> bool:
        """Whether a source only waits for a change request; what it waits for otherwise is out of the way then."""
        source, state = look.source, look.state
        ahead = await self._delivery.withdraw(source, tip, held)
        if ahead is not None:
            waits = replace(
                state,
                phase="waiting",
                reason=f"{tip[:12]} waits for the change {ahead.change} of {ahead.commit[:12]}, which is on its way "
                "into production",
                next_step=f"see `chimera change show {ahead.change}`",
                faults=(),
                seen=ahead.commit,
                change=ahead.change,
            )
            await self._keep(source, waits, held)
            return True
        if state.change is None:
            return False
        outcome = await self._delivery.outcome(source.tenant, state.change)
        if outcome.state == "flight" and tip == state.seen:
            await self._keep(source, state, held)
            return True
        if outcome.state == "over" and tip == state.seen and state.tried:
            raise _Stop(
                "refused",
                f"the change {state.change} of {tip[:12]} did not become live: {outcome.reason}",
                "mend it in the repository, or open the change anew: chimera sync run " + source.name,
            )
        if outcome.state == "done":
            self._left(look, tip)
        else:
            look.state = replace(state, change=None)
        return False

    def _left(self, look: _Look, tip: str) -> None:
        """See to a change that is live: the branch may have left its commit before that was recorded."""
        state = look.state
        if state.seen == tip:
            return
        as_it_was = state.seen is not None and state.tried == _trial(look.source, state.seen)
        patient = state.phase == "waiting" or (state.phase == "unreachable" and state.failures < PATIENCE)
        if as_it_was and patient and state.seen != state.commit:
            look.behind = state.seen
        elif state.seen == state.commit:
            look.state = replace(state, change=None)
        else:
            # What is live is no commit's that is known here: all of the newer one is read, whatever differs.
            look.state = replace(state, change=None, compiler="")

    async def _keep(self, source: Source, state: SourceState, held: Lease, *, failed: bool = False) -> None:
        failures = state.failures + 1 if failed else 0
        if state.phase in CONFIRMED or state.phase in STOPPED:
            failures = 0
        state = replace(state, looked=self._clock.wall(), failures=failures)
        await self._store.put_state(source, state, self._next(source, failures), held)

    def _next(self, source: Source, failures: int) -> float:
        return next_look(source.spec, failures, self._clock.wall(), self._settings.longest_wait)


def _trial(source: Source, commit: str) -> str:
    return trial(commit, compiler_id(), wanted_digest(source.spec))


def _key(source: Source) -> str:
    """The name of a source's copy, which no other source and no other address has."""
    return f"{source.tenant}.{source.name}.{wanted_digest(source.spec)}"


def _collect(files: Sequence[ReadFile], taken: Taken, found: _Read) -> None:
    """Take the rows and faults of some files together; `taken` has their definitions in order."""
    position = 0
    for file in files:
        found.faults += _told(file.faults)
        for one in file.definitions:
            staged, result = taken.staged[position], taken.results[position]
            position += 1
            if staged.compiled is None:
                found.faults += _told([placed(fault, one.first_line) for fault in result.faults])
                continue
            row = Row(
                agent=staged.compiled.value.agent.name,
                file=file.file,
                number=one.number,
                revision=staged.compiled.digest,
                folder=one.folder,
            )
            found.rows.append(row)


def _told(faults: Sequence[Fault]) -> list[str]:
    return [str(fault)[:500] for fault in faults if fault.severity == "error"]
