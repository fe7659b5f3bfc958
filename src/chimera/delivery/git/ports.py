"""What following a branch needs of repositories, of what is kept, and of whoever makes definitions live."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from msgspec import Struct

from chimera.agents.api import Item
from chimera.agents.catalogue import StagedItem
from chimera.agents.errors import Fault
from chimera.delivery.git.sources import Drift, Source, SourceState
from chimera.kernel.leases import Lease


class Remote(Struct, frozen=True, kw_only=True):
    """A branch of a repository as it is asked for; `folder` where it is on this machine."""

    url: str
    branch: str
    folder: str | None = None
    username: str = ""
    password: str | None = None


class CommitTold(Struct, frozen=True, kw_only=True):
    """A commit that was fetched. `forward` is whether it follows the one before; None where there was none.

    `contributors` made the commits that are new, or the commit itself where none is: their addresses, as the commits
    say. Where not all that is new was read, some of them are missing, and `unread` says why.
    """

    commit: str
    subject: str
    author: str
    forward: bool | None
    contributors: tuple[str, ...] = ()
    unread: str = ""


class Touched(Struct, frozen=True, kw_only=True):
    """Files of a commit that differ from another's, by path, and those that are gone."""

    changed: tuple[str, ...]
    gone: tuple[str, ...]


class PackedCode(Struct, frozen=True, kw_only=True):
    """A packed source folder."""

    digest: str
    data: bytes


class ReadDefinition(Struct, frozen=True, kw_only=True):
    """A definition out of a commit."""

    number: int
    first_line: int
    item: Item
    folder: str | None = None
    code: PackedCode | None = None


class ReadFile(Struct, frozen=True, kw_only=True):
    """What a file of a commit holds: definitions, or what is wrong with it; nothing where it isn't of that kind."""

    file: str
    definitions: tuple[ReadDefinition, ...] = ()
    faults: tuple[Fault, ...] = ()


class Repositories(Protocol):
    """Repositories elsewhere, each with a copy here under `key`, which may be lost at any time.

    They raise `Unreachable`, `RepositoryTooLarge`, `MalformedObject`, `BadTree`.
    """

    async def tip(self, remote: Remote) -> str:
        """The commit that the branch is at."""

    async def fetch(self, key: str, remote: Remote, commit: str, before: str | None) -> CommitTold:
        """Bring a commit with its history here, and say whether it follows `before`."""

    async def compare(self, key: str, before: str | None, commit: str, path: str) -> Touched:
        """Files below `path` that differ; all of them where there is no commit before."""

    def read(self, key: str, commit: str, files: Sequence[str]) -> AsyncIterator[list[ReadFile]]:
        """What files of a commit hold, a few hundred at once; those that aren't there are passed over."""

    async def forget(self, key: str) -> None:
        """Remove the copy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """An agent of a source: the file and the place in it that it comes from, and what it should be."""

    agent: str
    file: str
    number: int
    revision: str
    folder: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Handover:
    """What a commit makes of a source's agents.

    `batch` holds the definitions that are staged, `deletions` are agents to take out of service. `rows` are put, after
    all rows of `files` were removed (None: of all files). `contributors` and `unread` are those of `CommitTold`.
    """

    source: Source
    commit: str
    subject: str
    author: str
    contributors: tuple[str, ...]
    unread: str
    batch: str | None
    deletions: tuple[str, ...]
    rows: tuple[Row, ...]
    files: tuple[str, ...] | None


class ChangeOutcome(Struct, frozen=True, kw_only=True):
    """`flight`: it is on its way; `done`: all of it is live; `over`: it isn't and won't be, and why."""

    state: Literal["flight", "done", "over"]
    reason: str = ""


class Ahead(Struct, frozen=True, kw_only=True):
    """A change request of another commit than the branch is at, which production has some of already."""

    change: str
    commit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """What became of it: live at once, or a change request that it waits for."""

    sequence: int
    change: str | None = None


class Delivery(Protocol):
    """Whoever makes a commit's definitions live: at once, or by a change request where the tenant wants that."""

    async def deliver(self, handover: Handover, state: SourceState, due: float, held: Lease) -> Delivered:
        """All of it or nothing. What is live at once is written with the rows and the state, in one transaction."""

    async def record(self, handover: Handover, state: SourceState, due: float, held: Lease) -> None:
        """Note the rows and the state of a commit that a change request has made live."""

    async def withdraw(self, source: Source, tip: str, held: Lease) -> Ahead | None:
        """Take back the source's change requests of other commits than `tip`, and of another wish.

        One that production has some of goes on: it is named.
        """

    async def outcome(self, tenant: str, change: str) -> ChangeOutcome:
        """What has become of a change request."""


class SourceStore(Protocol):
    """Where sources are kept. What is written under a lease shows it."""

    async def due(self, now: float, limit: int) -> list[Source]:
        """Sources that are to be looked at, the longest due first."""

    async def put_state(self, source: Source, state: SourceState, due: float, held: Lease) -> None:
        """Keep how it stands, unless it was changed since it was read; tell where its phase changed."""

    async def rows(self, source: Source, files: Sequence[str] | None) -> list[Row]:
        """Its agents that come from these files, or all."""

    async def folders(self, source: Source) -> Mapping[str, list[str]]:
        """Folders of code, with the files of the definitions that name them."""

    async def holders(self, tenant: str, agents: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        """Of these agents, those that some source has: its name, and the file."""

    async def count(self, source: Source) -> int:
        """How many agents it has."""

    async def drift(self, source: Source, limit: int) -> tuple[int, list[Drift]]:
        """How many of its agents aren't live as they should be, and some of them."""

    async def sequence(self) -> int:
        """The number of the catalogue's newest change."""

    async def open_batch(self, tenant: str) -> str:
        """A batch for definitions on their way."""

    async def put_code(self, tenant: str, code: PackedCode, requirements: str | None) -> None:
        """Keep a packed source folder."""

    async def stage(self, tenant: str, batch: str, items: Sequence[StagedItem]) -> None:
        """Keep compiled definitions; nothing points to them yet."""
