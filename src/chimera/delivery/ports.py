"""What the pipeline needs of the parts that do a stage's work.

All of it is level-triggered: the pipeline may ask again for what it asked before, after a crash or from another control
plane. So each part finds what it has begun, and goes on with it; asking twice does nothing twice. Checks and staging
find it by `change.work_key`, since a change that failed may be sent again as it was; rollouts by the change and its
content. A part that raises is asked again; one that says `failed` is not.

A stage whose part isn't installed isn't in the pipeline.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

from chimera.agents.compile import CanonicalDefinition, CompiledAgent
from chimera.delivery.model import Change, ChangeItem, ChangeRow, Moved, Verdict
from chimera.delivery.policy import DeliveryPolicy
from chimera.kernel.leases import Lease


class Revision(Struct, frozen=True, kw_only=True):
    """One agent of a change with what its digests stand for; `compiled` is None where the agent is taken out."""

    item: ChangeItem
    compiled: CompiledAgent | None
    before: CanonicalDefinition | None


class Progress(Struct, frozen=True, kw_only=True):
    """How far long work is. `verdicts` are those of the work so far; `detail` is one sentence for people."""

    state: Literal["running", "passed", "failed"]
    detail: str = ""
    next_step: str = ""
    verdicts: tuple[Verdict, ...] = ()


class RolloutView(Struct, frozen=True, kw_only=True):
    """How a rollout is: `moved` of `agents` have their new revision for all calls. `asked` is what it was told last."""

    state: Literal["rolling-out", "paused", "done", "rolled-back", "aborted", "failed"]
    agents: int
    moved: int
    detail: str = ""
    next_step: str = ""
    asked: Literal["run", "pause", "abort"] = "run"


class Check(Protocol):
    """Something that the build stage asks of definitions: a scanner, the agents' own tests, a bill of materials."""

    @property
    def name(self) -> str:
        """The name under which its verdicts stand."""

    async def run(self, change: Change, revisions: Sequence[Revision]) -> list[Verdict]:
        """Look at all of them, in batches; at least one verdict, with stage `build` and this check's name.

        An agent without a verdict is well if the change as a whole passed (`agent` None). The pipeline cancels it past
        the deadline of a check.
        """


class Reviewer(Protocol):
    """Something that may approve a change by itself: the quality of definitions, the look at the whole ecosystem."""

    @property
    def name(self) -> str:
        """The name under which its verdicts stand."""

    async def review(self, change: Change, revisions: Sequence[Revision]) -> list[Verdict]:
        """Verdicts with stage `approval`; where one didn't pass, people decide. Otherwise as a check."""


class Staging(Protocol):
    """The environment that is made as production is, and what is validated there.

    Nothing is made or taken away where `held`, the pipeline's lease, is another's by now: `LeaseLost` is raised.
    """

    async def advance(self, change: Change, revisions: Sequence[Revision], *, held: Lease | None = None) -> Progress:
        """Do the next bit of deploying and validating, and say how far it is; asked until it isn't running."""

    async def remove(self, change: Change, *, held: Lease | None = None) -> None:
        """Take away what the change has in staging, if anything."""

    async def rest(self) -> None:
        """End what this process does for changes, and leave what they have there: another one may have taken over.

        Asked when the pipeline's lease is given up or lost. Work that went on would take away, at its end, what the
        other one validates in.
        """


class Rollouts(Protocol):
    """What brings a change to production bit by bit, watches it, and keeps it or takes it back."""

    async def start(self, change: Change, *, held: Lease | None) -> None:
        """Begin; nothing where it has begun. Raises `LeaseLost` where `held`, the pipeline's, is another's by now.

        Else a pipeline that comes late would roll out a change which another has ended since.
        """

    async def look(self, change: Change) -> RolloutView | None:
        """How it is; None where it never began."""

    async def pause(self, change: Change, *, by: str, reason: str) -> None:
        """Begin no further agents and raise no share; go on watching, and take back what gets worse all the same."""

    async def resume(self, change: Change, *, by: str) -> None:
        """Go on."""

    async def abort(self, change: Change, *, by: str, reason: str) -> None:
        """Take back what was moved; `look` says `aborted` when it is done."""


class LiveAgent(Struct, frozen=True, kw_only=True):
    """The revision that is live, and the resource of a cluster that owns the agent, if one does."""

    revision: str
    owner: str | None


class StoredDeliveryPolicy(Struct, frozen=True, kw_only=True):
    """A tenant's policy as it is kept; version 0 is the default, which nobody has put."""

    policy: DeliveryPolicy
    version: int
    updated: float
    by: str


class InFlight(Struct, frozen=True, kw_only=True):
    """A change in flight, or one that has something in staging; its version says whether it is as it was."""

    tenant: str
    id: str
    version: int
    content: str


class Flight(Struct, frozen=True, kw_only=True):
    """Changes to work on, oldest first. The two numbers grow with each change of the catalogue, and of any policy."""

    changes: tuple[InFlight, ...]
    sequence: int
    policies: int


class ChangeStore(Protocol):
    """Where changes are kept. Each write is one transaction, with its fact and its entry of the audit log.

    A write gives the change as it was read; it raises `ChangedMeanwhile` where it was written by somebody else since,
    and `LeaseLost` where `held` is another's by now.
    """

    async def batch(self, tenant: str, batch: str) -> list[ChangeItem]:
        """What a batch of definitions would change, against what is live; raises what a commit of it would."""

    async def live(self, tenant: str, names: Sequence[str]) -> dict[str, LiveAgent]:
        """Those of these agents that are live."""

    async def revisions(self, tenant: str, items: Sequence[ChangeItem]) -> list[Revision]:
        """What the digests of `items` stand for; raises `RevisionGone` for one that isn't here."""

    async def create(
        self,
        opened: Moved,
        *,
        batch: str | None,
        supersede: bool,
        key: str | None = None,
        held: Lease | None = None,
    ) -> Change:
        """Keep a new change, made from `batch`, which ends; the one that was made of it or by `key` before, if it was.

        Raises `ChangeConflicts` for others in flight that touch its agents; with `supersede` those give way that may.
        """

    async def change(self, tenant: str, change: str) -> Change | None:
        """A change with all that belongs to it."""

    async def of_key(self, tenant: str, key: str) -> Change | None:
        """The one that was opened with this key, if there is one."""

    async def page(
        self, tenant: str, *, state: str | None, agent: str | None, after: str | None, limit: int
    ) -> list[ChangeRow]:
        """Changes, the newest first, behind the id `after`; `state` may also be `in-flight`."""

    async def in_flight_of(self, tenant: str, author: str) -> list[ChangeRow]:
        """The changes in flight that `author` opened, the newest first."""

    async def in_flight(self) -> Flight:
        """All that the pipeline has to do with, on one snapshot; nothing of tenants that are suspended."""

    async def counts(self) -> dict[str, int]:
        """How many changes there are in each state of those in flight, over all tenants."""

    async def save(
        self, before: Change, after: Moved | Change, *, batch: str | None = None, held: Lease | None = None
    ) -> Change:
        """Keep what a change has become; a plain one is told to nobody. Other items come from `batch`, which ends."""

    async def put_verdicts(
        self, change: Change, check: str, verdicts: Sequence[Verdict], *, held: Lease | None
    ) -> None:
        """Keep what a check says of this content, in place of what it said before; nothing where it has another."""

    async def produce(self, before: Change, done: Moved, *, held: Lease | None) -> int:
        """Make all of a change live in one transaction, and keep what it has become; the catalogue's sequence.

        Raises `ChangeConflicts` where an agent isn't any more what the change was made from.
        """

    async def policy(self, tenant: str) -> StoredDeliveryPolicy:
        """The tenant's delivery policy, or the default."""

    async def put_policy(self, tenant: str, policy: DeliveryPolicy, *, expect: int | None, by: str) -> int:
        """Keep a policy; its version. Raises `ChangedMeanwhile` where `expect` is not the version that it replaces."""


class People(Protocol):
    """Who stands behind a name in facts."""

    async def person_of(self, actor: str) -> str:
        """The user who made a key, and whoever made the key that made it; other names stand for themselves.

        Behind a key that a removed key made stands nobody: the name is none of a user's or a key's then.
        """
