"""Runs of tests, their cases and results, as values. Times are seconds since the epoch, lengths seconds."""

from typing import Literal

from msgspec import Struct

from chimera.agents.cases import AgentTest
from chimera.delivery.model import Outcome

RunState = Literal["waiting", "running", "done", "cancelled", "failed"]
UNFINISHED: frozenset[RunState] = frozenset({"waiting", "running"})
Tools = Literal["scripted", "real"]


class Candidate(Struct, frozen=True, kw_only=True):
    """An agent that is to be tested, as the revision with this digest."""

    agent: str
    revision: str


class Case(Struct, frozen=True, kw_only=True):
    """One test of one agent. `revision` is production's digest, by which its calls are told apart from another's."""

    agent: str
    revision: str
    test: AgentTest

    @property
    def tools(self) -> Tools:
        """Who answers for the agent's tools: the test, or they do."""
        return "real" if self.test.integration else "scripted"


class Try(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run of a case. `reasons` say what was wrong, `judged` what a judging model gave as its reasons.

    `seconds` is the time in hosts of all its turns, `answer` the beginning of the last answer.
    """

    outcome: Outcome
    reasons: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    seconds: float = 0.0
    tokens: int = 0
    answer: str = ""
    problem: str | None = None


class CaseResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a case: passed if enough of its runs did."""

    agent: str
    case: str
    revision: str
    outcome: Outcome
    detail: str
    tries: tuple[Try, ...] = ()


class Counts(Struct, frozen=True, kw_only=True):
    """Cases by what came of them; `total` are all."""

    total: int = 0
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def finished(self) -> int:
        """Those that are over."""
        return self.passed + self.failed + self.skipped


class Run(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run of agents' own tests: `agents` of them, of which `untested` declare no tests.

    `problem` says why a run that failed could not be run at all.
    """

    run: str
    tenant: str
    state: RunState
    by: str
    created: float
    updated: float
    agents: int
    untested: int = 0
    counts: Counts = Counts()
    problem: str | None = None
