"""What the pipeline needs of the parts that do a stage's work.

All of it is level-triggered: the pipeline may ask again for what it asked before, after a crash or from another control
plane. So each part finds by `change.id` and `change.content` what it has begun, and goes on with it; asking twice does
nothing twice. A part that raises is asked again; one that says `failed` is not.

A stage whose part isn't installed isn't in the pipeline.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

from chimera.agents.compile import CanonicalDefinition, CompiledAgent
from chimera.delivery.model import Change, ChangeItem, Verdict


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
    """How a rollout is: `moved` of `agents` have their new revision for all their calls."""

    state: Literal["rolling-out", "paused", "done", "rolled-back", "aborted", "failed"]
    agents: int
    moved: int
    detail: str = ""
    next_step: str = ""


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
    """The environment that is made as production is, and what is validated there."""

    async def advance(self, change: Change, revisions: Sequence[Revision]) -> Progress:
        """Do the next bit of deploying and validating, and say how far it is; asked until it isn't running."""

    async def remove(self, change: Change) -> None:
        """Take away what the change has in staging, if anything."""


class Rollouts(Protocol):
    """What brings a change to production bit by bit, watches it, and keeps it or takes it back."""

    async def start(self, change: Change) -> None:
        """Begin; nothing where it has begun."""

    async def look(self, change: Change) -> RolloutView | None:
        """How it is; None where it never began."""

    async def pause(self, change: Change, *, by: str, reason: str) -> None:
        """Move no further, and take nothing back."""

    async def resume(self, change: Change, *, by: str) -> None:
        """Go on."""

    async def abort(self, change: Change, *, by: str, reason: str) -> None:
        """Take back what was moved; `look` says `aborted` when it is done."""
