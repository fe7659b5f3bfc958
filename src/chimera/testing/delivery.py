"""Fakes of the parts that do a stage's work, which say what a test wants and write down what they were asked.

They keep to the ports' promises: asking twice does nothing twice, and what was begun is found by the change's id and
content. What they hold stands for what outlives a process, so a test of a crash gives the same ones to the next one.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from chimera.delivery.model import Change, Outcome, Verdict
from chimera.delivery.ports import Progress, Revision, RolloutView
from chimera.kernel.leases import Lease
from chimera_host.contract.problem import ProblemError

Key = tuple[str, str]


@dataclass(kw_only=True)
class FakeCheck:
    """A check, and a reviewer: says `outcome` of the change, or hangs, or raises `fails` so many times first."""

    name: str
    outcome: Outcome = "passed"
    hangs: bool = False
    fails: int = 0
    silent: bool = False
    asked: list[Key] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, change: Change, revisions: Sequence[Revision]) -> list[Verdict]:
        """See `Check`."""
        self.asked.append((change.id, change.content))
        self.begun.set()
        assert [one.item.agent for one in revisions] == list(change.names)
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            self.fails -= 1
            raise RuntimeError("the check broke")
        if self.silent:
            return []
        detail = "" if self.outcome == "passed" else f"{self.name} found something"
        return [Verdict(stage="build", check=self.name, outcome=self.outcome, detail=detail, next_step="mend it")]

    async def review(self, change: Change, revisions: Sequence[Revision]) -> list[Verdict]:
        """See `Reviewer`."""
        return await self.run(change, revisions)


@dataclass(kw_only=True)
class FakeStaging:
    """Staging that is ready after `steps` looks, and then says `outcome`; `held` is what it has of changes.

    `leases` are those that it was shown.
    """

    steps: int = 2
    outcome: Literal["passed", "failed", "running"] = "passed"
    held: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    leases: set[Lease | None] = field(default_factory=set)
    rested: int = 0

    async def advance(self, change: Change, revisions: Sequence[Revision], *, held: Lease | None = None) -> Progress:
        """See `Staging`."""
        self.leases.add(held)
        self.held[change.id] = self.held.get(change.id, 0) + 1
        if self.held[change.id] < self.steps or self.outcome == "running":
            return Progress(state="running", detail="it is deployed")
        said = Verdict(stage="staging", check="latency", outcome=self.outcome, detail="measured")
        return Progress(state=self.outcome, detail="validated", verdicts=(said,))

    async def remove(self, change: Change, *, held: Lease | None = None) -> None:
        """See `Staging`."""
        self.leases.add(held)
        self.held.pop(change.id, None)
        self.removed.append(change.id)

    async def rest(self) -> None:
        """See `Staging`."""
        self.rested += 1


@dataclass
class _Rollout:
    agents: int
    moved: int = 0
    state: Literal["rolling-out", "paused", "done", "rolled-back", "aborted", "failed"] = "rolling-out"
    detail: str = ""
    told: Literal["run", "pause", "abort"] = "run"


@dataclass(kw_only=True)
class FakeRollouts:
    """Rollouts that a test moves on by `step`; each look sees how far they are."""

    rollouts: dict[str, _Rollout] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    refuses: ProblemError | None = None

    async def start(self, change: Change, *, held: Lease | None) -> None:
        """See `Rollouts`."""
        if self.refuses is not None:
            raise self.refuses
        if change.id not in self.rollouts:
            self.rollouts[change.id] = _Rollout(agents=len(change.items))
            self.started.append(change.id)

    async def look(self, change: Change) -> RolloutView | None:
        """See `Rollouts`."""
        one = self.rollouts.get(change.id)
        if one is None:
            return None
        return RolloutView(state=one.state, agents=one.agents, moved=one.moved, detail=one.detail, asked=one.told)

    async def pause(self, change: Change, *, by: str, reason: str) -> None:
        """See `Rollouts`."""
        self._ask("pause", change, "paused")

    async def resume(self, change: Change, *, by: str) -> None:
        """See `Rollouts`."""
        self._ask("resume", change, "rolling-out")

    async def abort(self, change: Change, *, by: str, reason: str) -> None:
        """See `Rollouts`."""
        self._ask("abort", change, "aborted")

    def step(self, change: str) -> None:
        """One agent more has its new revision; with the last one it is done."""
        one = self.rollouts[change]
        if one.state == "rolling-out":
            one.moved += 1
            one.state = "done" if one.moved >= one.agents else "rolling-out"

    def _ask(
        self,
        what: Literal["pause", "resume", "abort"],
        change: Change,
        state: Literal["paused", "rolling-out", "aborted"],
    ) -> None:
        one = self.rollouts[change.id]
        self.asked.append(what)
        one.told = "run" if what == "resume" else what
        if one.state in ("rolling-out", "paused"):
            one.state = state
