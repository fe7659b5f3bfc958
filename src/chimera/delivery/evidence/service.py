"""Evidence as it is made, kept and given: bills of materials, and statements of provenance that are signed.

A bill is made when a change is built, and kept; for a revision that came another way it is made when somebody asks. A
statement is signed by a loop, once a change has passed its build, and anew whenever more was decided about it. The loop
is level-triggered: it asks which changes have no statement of their newest version, so a crash or a key that is away
costs nothing but time.
"""

import asyncio
import hashlib
import logging
from collections.abc import Sequence

import msgspec

from chimera.agents.compile import CompiledAgent
from chimera.delivery.evidence.bom import Materials, bill_of_materials
from chimera.delivery.evidence.envelope import Envelope, Signing, seal
from chimera.delivery.evidence.errors import EvidenceMissing
from chimera.delivery.evidence.ports import (
    PROVENANCE,
    SBOM,
    Due,
    EvidenceStore,
    Kept,
    KeyRing,
    Kind,
    MaterialsOf,
)
from chimera.delivery.evidence.statement import statement
from chimera.delivery.model import Change, ChangeItem, Verdict
from chimera.delivery.ports import Revision
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease, Leases, work_while_held
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

LEASE = "provenance"
BILL = "bill-of-materials"
PAUSE = 5.0
MARGIN = 60.0
"""Seconds that clocks of control planes may differ by, and a transaction may take."""
CHUNK = 500
"""Bills that are in memory at once: each has 15 to 30 KB."""
AT_ONCE = 20
"""Changes whose statements are made in one look."""


class Evidence:
    """Evidence of revisions. `release` is this release's version."""

    def __init__(
        self, store: EvidenceStore, materials: MaterialsOf, ring: KeyRing, clock: Clock, *, release: str
    ) -> None:
        """Keep it in `store`; sign by `ring`."""
        self._store = store
        self._materials = materials
        self._ring = ring
        self._clock = clock
        self._release = release
        self._since = 0.0

    # -- bills of materials --------------------------------------------------------------------------------------------

    async def bill(self, agent: CompiledAgent) -> bytes:
        """The bill of a revision: the one that was kept when it was built, else made now."""
        tenant = agent.value.agent.tenant
        kept = await self._store.newest(tenant, agent.digest, SBOM)
        return kept.data if kept is not None else await self.make_bill(agent)

    async def make_bill(self, agent: CompiledAgent) -> bytes:
        """The bill as this release makes it."""
        materials = await self._materials.materials(agent)
        return await asyncio.to_thread(bill_of_materials, agent, materials)

    async def keep_bills(
        self, change: Change, agents: Sequence[CompiledAgent], lease: Lease | None = None
    ) -> list[str]:
        """Make and keep bills of a change's revisions; their digests, in hexadecimal."""
        digests: list[str] = []
        for start in range(0, len(agents), CHUNK):
            chunk = agents[start : start + CHUNK]
            materials = [await self._materials.materials(agent) for agent in chunk]
            bills = await asyncio.to_thread(_made, chunk, materials)
            now = self._clock.wall()
            kept = [_kept(change, agent, SBOM, data, now) for agent, data in zip(chunk, bills, strict=True)]
            await self._store.put(kept, held=lease)
            digests += [hashlib.sha256(data).hexdigest() for data in bills]
        return digests

    # -- provenance ----------------------------------------------------------------------------------------------------

    def keys(self) -> list[str]:
        """The ids of all public keys, which hold the keys themselves."""
        return list(self._ring.public())

    async def provenance(self, tenant: str, revision: str) -> Envelope:
        """The last signed statement on a revision; raises `EvidenceMissing`."""
        kept = await self._store.newest(tenant, revision, PROVENANCE)
        if kept is None:
            raise EvidenceMissing(
                f"no statement is kept on the revision {revision[:19]}",
                next_step="what is applied directly has none: deliver it by `chimera change open`",
            )
        return msgspec.json.decode(kept.data, type=Envelope)

    async def while_held(self, leases: Leases, owner: str, life: float) -> None:
        """Sign whenever this process holds the lease; until cancelled."""
        await work_while_held(leases, LEASE, owner, life, self.run)

    async def run(self, lease: Lease | None = None) -> None:
        """Look after look, until cancelled."""
        self._since = 0.0
        told = ""
        while True:
            try:
                more = await self.look(lease)
                told = ""
            except ProblemError as error:
                more = False
                if error.detail != told:  # once, and not every few seconds for as long as it lasts
                    told = error.detail
                    extra = {"problem": error.detail, "next_step": error.next_step}
                    log.warning("provenance is not signed", extra=extra)
            if not more:
                await asyncio.sleep(PAUSE)

    async def look(self, lease: Lease | None = None) -> bool:
        """Sign what is due, a bounded part of it; whether there was as much as that bound."""
        signer = await asyncio.to_thread(self._ring.signer)
        if signer is None:
            return False
        began = self._clock.wall()
        found = await self._store.due(self._since, AT_ONCE)
        for one in found:
            await self._sign(one, signer, lease)
        # What couldn't be signed is passed over from here on, or a change whose revisions are gone would come for ever.
        full = len(found) == AT_ONCE
        self._since = found[-1].updated if full else max(self._since, began - MARGIN)
        return full

    async def _sign(self, due: Due, signer: Signing, lease: Lease | None) -> None:
        try:
            read = await self._store.read(due.tenant, due.change)
        except ProblemError as error:
            log.info("a change has no statement", extra={"change": due.change, "problem": error.detail})
            return
        if read is None:
            return
        change, revisions = read
        agents = [(one.item, one.compiled) for one in revisions if one.compiled is not None]
        bills = await self._bills(change, [agent for _, agent in agents], lease)
        now = self._clock.wall()

        def said() -> list[Kept]:
            return [
                _kept(
                    change, agent, PROVENANCE, self._signed(change, item, agent, bills[agent.digest], now, signer), now
                )
                for item, agent in agents
            ]

        # In one transaction: a part of them would pass for all.
        await self._store.put(await asyncio.to_thread(said), held=lease)

    def _signed(
        self, change: Change, item: ChangeItem, agent: CompiledAgent, bill: str, now: float, signer: Signing
    ) -> bytes:
        said = statement(change, item, agent, bom=bill, release=self._release, at=now)
        return msgspec.json.encode(seal(said, signer))

    async def _bills(self, change: Change, agents: Sequence[CompiledAgent], lease: Lease | None) -> dict[str, str]:
        """The digests of bills, by revision; those that are not kept yet are made."""
        digests: dict[str, str] = {}
        for start in range(0, len(agents), CHUNK):
            chunk = agents[start : start + CHUNK]
            kept = await self._store.newest_of(change.tenant, [agent.digest for agent in chunk], SBOM)
            digests |= {digest: hashlib.sha256(one.data).hexdigest() for digest, one in kept.items()}
            without = [agent for agent in chunk if agent.digest not in kept]
            made = await self.keep_bills(change, without, lease)
            digests |= {agent.digest: digest for agent, digest in zip(without, made, strict=True)}
        return digests


def _made(agents: Sequence[CompiledAgent], materials: Sequence[Materials]) -> list[bytes]:
    return list(map(bill_of_materials, agents, materials))


def _kept(change: Change, agent: CompiledAgent, kind: Kind, data: bytes, at: float) -> Kept:
    return Kept(
        tenant=change.tenant,
        revision=agent.digest,
        kind=kind,
        change=change.id,
        version=change.version,
        at=at,
        data=data,
    )


class BillCheck:
    """A `Check` of the build stage: the bill of materials of each revision is made and kept."""

    name = BILL

    def __init__(self, evidence: Evidence, clock: Clock) -> None:
        """Keep bills in `evidence`."""
        self._evidence = evidence
        self._clock = clock

    async def run(self, change: Change, revisions: Sequence[Revision]) -> list[Verdict]:
        """See `Check`."""
        agents = [one.compiled for one in revisions if one.compiled is not None]
        digests = await self._evidence.keep_bills(change, agents)
        now = self._clock.wall()
        whole = Verdict(
            stage="build",
            check=self.name,
            outcome="passed",
            detail=f"{len(agents)} bills of materials are kept",
            at=now,
        )
        rows = [
            Verdict(
                stage="build",
                check=self.name,
                agent=agent.value.agent.name,
                outcome="passed",
                detail="its bill of materials is kept",
                evidence={"sha256": digest, "revision": agent.digest},
                at=now,
            )
            for agent, digest in zip(agents, digests, strict=True)
        ]
        return [whole, *rows]
