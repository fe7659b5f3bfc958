"""What evidence needs from outside: where it is kept, what goes into a revision, and the key."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct

from chimera.agents.compile import CompiledAgent
from chimera.delivery.evidence.bom import Materials
from chimera.delivery.evidence.envelope import Signing
from chimera.delivery.model import Change
from chimera.delivery.ports import Revision
from chimera.kernel.leases import Lease

Kind = Literal["sbom", "provenance"]
SBOM: Kind = "sbom"
PROVENANCE: Kind = "provenance"


class Kept(Struct, frozen=True, kw_only=True):
    """One piece of evidence. `change` is empty where no change request brought the revision."""

    tenant: str
    revision: str
    kind: Kind
    change: str
    version: int
    at: float
    data: bytes


class Due(Struct, frozen=True, kw_only=True):
    """A change that was built, and of which more is to be said than is signed; `updated` is when it was changed."""

    tenant: str
    change: str
    updated: float


class EvidenceStore(Protocol):
    """Where evidence is kept, beside the changes that it is about."""

    async def put(self, kept: Sequence[Kept], *, held: Lease | None) -> None:
        """Keep all in one transaction, each in place of what the same change said before."""

    async def newest(self, tenant: str, revision: str, kind: Kind) -> Kept | None:
        """What was kept last of a revision."""

    async def newest_of(self, tenant: str, revisions: Sequence[str], kind: Kind) -> Mapping[str, Kept]:
        """The same of many revisions, those that have any."""

    async def due(self, since: float, limit: int) -> list[Due]:
        """Changes that were changed since a time and have passed their build, whose statements are missing or old."""

    async def read(self, tenant: str, change_id: str) -> tuple[Change, list[Revision]] | None:
        """A change with its revisions; raises `RevisionGone`."""


class MaterialsOf(Protocol):
    """Who knows what goes into a revision."""

    async def materials(self, agent: CompiledAgent) -> Materials:
        """The lock of its runtime, its own, and what is known of its model."""


class KeyRing(Protocol):
    """The key that signs now, and all that have. Its methods may block: they are called in threads."""

    def signer(self) -> Signing | None:
        """The key, None where this machine has none; raises `EvidenceKeyUnusable`."""

    def public(self) -> Mapping[str, bytes]:
        """Public keys by their ids, the ones of older signatures too."""
