"""What JAEGIS says in the pipeline: a verdict for every agent, with what it rests on."""

from collections.abc import Sequence

import pytest

from chimera.agents.compile import CompiledAgent
from chimera.delivery.model import Change, ChangeItem, content_of
from chimera.delivery.ports import Check, Reviewer, Revision
from chimera.jaegis.ecosystem import LiveRevision
from chimera.jaegis.reviewing import EcosystemCheck, EcosystemReviewer, QualityReviewer
from chimera.jaegis.service import Jaegis
from chimera.testing.clock import ManualClock
from chimera.testing.definitions import compiled
from tests.unit.jaegis.conftest import GOOD


class Live:
    """A catalogue of agents that are live since the beginning."""

    def __init__(self, *agents: CompiledAgent) -> None:
        self._agents = agents

    async def changed_since(self, tenant: str, sequence: int, limit: int) -> Sequence[LiveRevision]:
        rows = [
            LiveRevision(name=one.value.agent.name, sequence=place, revision=one.digest, value=one.value)
            for place, one in enumerate(self._agents, 1)
        ]
        return [row for row in rows if row.sequence > sequence][:limit]


def revision(agent: CompiledAgent | str) -> Revision:
    if isinstance(agent, str):
        return Revision(item=ChangeItem(agent=agent, revision=None, before="sha256:0"), compiled=None, before=None)
    item = ChangeItem(agent=agent.value.agent.name, revision=agent.digest, before=None)
    return Revision(item=item, compiled=agent, before=None)


def change(revisions: Sequence[Revision]) -> Change:
    items = tuple(one.item for one in revisions)
    return Change(
        id="chg-1",
        tenant="default",
        title="A change",
        author="key:a",
        author_person="key:a",
        items=items,
        content=content_of(items),
        risk="low",
        state="building",
        created=1.0,
        updated=1.0,
        since=1.0,
    )


@pytest.fixture
def jaegis() -> Jaegis:
    return Jaegis(Live(compiled("searcher"), compiled("leader", tools=[call("searcher")])), ManualClock())


def call(other: str) -> dict[str, str]:
    return {"type": "agent", "name": "ask", "agent": other}


async def test_what_is_good_passes_and_says_on_what_that_rests(jaegis: Jaegis, good: CompiledAgent) -> None:
    reviewer: Reviewer = QualityReviewer(jaegis, ManualClock())
    revisions = [revision(good)]
    whole, mine = await reviewer.review(change(revisions), revisions)
    assert (whole.stage, whole.check, whole.outcome, whole.agent) == ("approval", "quality", "passed", None)
    assert (mine.agent, mine.outcome, mine.next_step) == ("invoice-auditor", "passed", "")
    assert mine.evidence["score"] == 100.0 and mine.evidence["revision"] == good.digest
    assert mine.evidence["criteria"]["tests"] == 1.0


async def test_one_that_is_not_good_enough_fails_the_review_and_says_what_would_be(jaegis: Jaegis) -> None:
    revisions = [revision(compiled("invoice-auditor", **GOOD)), revision(compiled("bare"))]
    whole, first, second = await QualityReviewer(jaegis, ManualClock()).review(change(revisions), revisions)
    assert (whole.outcome, first.outcome, second.outcome) == ("failed", "passed", "failed")
    assert second.agent == "bare" and "tests" in second.evidence["lacking"]
    assert second.detail and second.next_step


async def test_a_change_that_only_takes_agents_out_has_nothing_to_score(jaegis: Jaegis) -> None:
    revisions = [revision("leader")]
    [whole] = await QualityReviewer(jaegis, ManualClock()).review(change(revisions), revisions)
    assert whole.outcome == "passed"


async def test_what_can_not_work_fails_the_build_and_what_is_odd_the_review_alone(jaegis: Jaegis) -> None:
    check: Check = EcosystemCheck(jaegis, ManualClock())
    reviewer: Reviewer = EcosystemReviewer(jaegis, ManualClock())
    odd = [revision(compiled("searchers"))]
    assert [one.outcome for one in await check.run(change(odd), odd)] == ["passed"]
    whole, mine = await reviewer.review(change(odd), odd)
    assert (whole.outcome, mine.agent, mine.evidence["codes"]) == ("failed", "searchers", ["look-alike"])
    broken = [revision(compiled("clerk", tools=[call("nobody")])), revision("searcher")]
    whole, *others = await check.run(change(broken), broken)
    assert (whole.stage, whole.outcome) == ("build", "failed")
    assert [(one.agent, one.evidence["codes"]) for one in others] == [
        ("clerk", ["unknown-agent"]),
        ("searcher", ["still-needed"]),
    ]
    fine = [revision("leader"), revision("searcher")]
    assert [one.outcome for one in await check.run(change(fine), fine)] == ["passed"]
    assert [one.outcome for one in await reviewer.review(change(fine), fine)] == ["passed"]
