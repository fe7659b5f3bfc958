"""From criteria to a score: a weighted mean, a grade, and whether that is good enough without a person."""

from collections.abc import Mapping, Sequence

from chimera.agents.compile import CompiledAgent
from chimera.jaegis.duplicates import Index, Near
from chimera.jaegis.ecosystem import Ecosystem, Member, member_of
from chimera.jaegis.quality.criteria import CRITERIA, Subject
from chimera.jaegis.quality.model import Assessment, Finding, Twin, grade_of
from chimera.jaegis.quality.settings import QualitySettings

HALF = 0.5
MOST_TWINS = 5
_MOST_WORDS = 6


def assess(agent: CompiledAgent, twins: Sequence[Twin], settings: QualitySettings) -> Assessment:
    """The quality of one definition."""
    subject = Subject(agent.value, tuple(twins))
    findings = []
    for name, criterion in CRITERIA.items():
        judged = criterion(subject)
        score = round(judged.score, 3)
        findings.append(
            Finding(
                criterion=name,
                score=score,
                weight=getattr(settings, name),
                reason=judged.reason,
                next_step=judged.next_step,
            )
        )
    total = sum(one.weight for one in findings)
    score = round(100.0 * sum(one.weight * one.score for one in findings) / total, 1) if total else 100.0
    lacking = tuple(one.criterion for one in findings if one.criterion in settings.required and one.score < HALF)
    return Assessment(
        agent=agent.value.agent.name,
        revision=agent.digest,
        score=score,
        grade=grade_of(score),
        passed=score >= settings.passing and not lacking,
        lacking=lacking,
        findings=tuple(findings),
        twins=tuple(twins)[:MOST_TWINS],
    )


def assess_all(
    agents: Sequence[CompiledAgent], ecosystem: Ecosystem, settings: QualitySettings, *, gone: Sequence[str] = ()
) -> list[Assessment]:
    """The quality of many definitions beside all live ones and beside each other.

    An agent is no twin of its own live revision, nor of one that `gone` names, which the same change takes out. Where
    its text is what it was, its twins were weighed when it came; then it has none.
    """
    members = [member_of(one.value, one.digest) for one in agents]
    twins = _twins(members, ecosystem, settings, frozenset(gone))
    return [assess(one, twins.get(position, ()), settings) for position, one in enumerate(agents)]


def _twins(
    members: Sequence[Member], ecosystem: Ecosystem, settings: QualitySettings, gone: frozenset[str]
) -> Mapping[int, Sequence[Twin]]:
    known = ecosystem.members
    asked = [
        position
        for position, one in enumerate(members)
        if (live := known.get(one.name)) is None or sorted(live.terms) != sorted(one.terms)
    ]
    texts = [members[position].terms for position in asked]
    changed = {one.name for one in members} | gone
    bounds = {"similarity": settings.similarity, "containment": settings.containment}
    lives = ecosystem.index.nearest(texts, **bounds)
    beside = Index(texts, like=ecosystem.index).nearest(texts, **bounds)
    found: dict[int, list[Twin]] = {}
    for place, position in enumerate(asked):
        mine = members[position]
        pairs = [(one, known[ecosystem.names[one.place]], True) for one in lives[place]]
        pairs = [pair for pair in pairs if pair[1].name not in changed]
        pairs += [(one, members[asked[one.place]], False) for one in beside[place] if one.place != place]
        found[position] = [
            _twin(near, other, mine, ecosystem.index, live=live) for near, other, live in _ordered(pairs)
        ]
    return found


def _ordered(pairs: list[tuple[Near, Member, bool]]) -> list[tuple[Near, Member, bool]]:
    return sorted(pairs, key=lambda pair: (-max(pair[0].similarity, pair[0].containment), pair[1].name))


def _twin(near: Near, other: Member, mine: Member, index: Index, *, live: bool) -> Twin:
    apart = set(other.terms) ^ set(mine.terms)
    heaviest = sorted(apart, key=lambda word: (-index.weight(word), word))
    return Twin(
        agent=other.name,
        similarity=near.similarity,
        containment=near.containment,
        live=live,
        differs=tuple(heaviest[:_MOST_WORDS]),
    )
