"""The criteria of a definition's quality: each a pure function of the definition, with a reason and a next step.

A criterion looks at what is written, not at how the agent behaves: that its tests pass is the build stage's to see, and
that its answers are any good its evaluation cases'. What can't be told from the text alone is not guessed. A field that
was left at its default counts as not decided.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from chimera.agents.cases import AgentTest, Expectation
from chimera.agents.compile import CanonicalDefinition
from chimera.agents.quantities import seconds
from chimera.agents.spec import ServiceLevelObjective
from chimera.jaegis.quality.model import Twin
from chimera.jaegis.words import telling, words
from chimera_host.contract.tools import AgentTool, FunctionTool, McpTool, MessageTool


class Judged(NamedTuple):
    """How far a criterion is met (0 to 1), why, and what would meet it."""

    score: float
    reason: str
    next_step: str = ""


class Subject(NamedTuple):
    """What criteria look at: a definition, and the agents that are nearly it."""

    value: CanonicalDefinition
    twins: tuple[Twin, ...] = ()


Criterion = Callable[[Subject], Judged]

_PLACEHOLDER = re.compile(
    r"\b(?:todo|tbd|fixme|xxx|lorem|ipsum|foo|bar|asdf|placeholder|changeme)\b|^\W*$", re.IGNORECASE
)
_OCCASION = re.compile(
    r"\b(?:when(?:ever)?|if|once|after|before|during|while|until|in case|in order to|so that|use (?:it|this|for|to|me)|"
    r"for (?:a|an|the|any|all|every|each|those|people|users|customers|requests|questions)|on (?:request|demand))\b",
    re.IGNORECASE,
)
_ENOUGH_WORDS = 6
_ENOUGH_TESTS = 3
_MOST_SHOWN = 3
_WIDE = re.compile(r"^\*\.[^.]+$|^\*\.(?:co|com|org|net|gov|ac|edu)\.[a-z]{2}$", re.IGNORECASE)
"""A pattern of hosts that takes in everybody's: `*.com`, `*.co.uk`."""


def purpose(subject: Subject) -> Judged:
    """The description says in words of its own what the agent is for."""
    agent = subject.value.agent
    described = agent.description.strip()
    if _PLACEHOLDER.search(described):
        return Judged(0.0, "the description is a placeholder", "say in a sentence what the agent is for")
    named = set(telling(agent.name.replace("-", " ")))
    own = [word for word in dict.fromkeys(telling(described)) if word not in named]
    if not own:
        return Judged(0.0, "the description says no more than the name", "say in a sentence what the agent is for")
    said = len(set(telling(described)))
    if said < _ENOUGH_WORDS:
        return Judged(
            0.5 if said * 2 >= _ENOUGH_WORDS else 0.25,
            f"the description has {said} telling words",
            f"say what it takes, what it gives and for whom; {_ENOUGH_WORDS} telling words or more",
        )
    return Judged(1.0, f"the description says what it is for, in {said} telling words")


def occasion(subject: Subject) -> Judged:
    """The description, or a function, says when the agent is to be called: whoever chooses among thousands needs it."""
    agent = subject.value.agent
    if found := next((text for text in (agent.description, *agent.primary_functions) if _OCCASION.search(text)), None):
        match = _OCCASION.search(found)
        return Judged(1.0, f"it says on which occasion to call it ({match[0] if match else ''!r})")
    if subject.value.subscriptions:
        return Judged(1.0, "its subscriptions say what starts it")
    return Judged(
        0.0,
        "nothing says when to call it and when not",
        "add to the description for which requests it is the right one",
    )


def functions(subject: Subject) -> Judged:
    """The primary functions say one thing each, in more than a word."""
    listed = subject.value.agent.primary_functions
    short = [text for text in listed if len(words(text)) < 2]
    kinds = {tuple(sorted(set(telling(text)))) for text in listed}
    if len(kinds) < len(listed):
        return Judged(0.5, "two primary functions say the same", "keep one of them")
    if short:
        return Judged(
            1.0 - len(short) / len(listed),
            f"{_listed(short)} is one word",
            "say what is done to what: 'Compare an invoice with its order'",
        )
    return Judged(1.0, f"{_count(len(listed), 'function')} in words of their own")


def unique(subject: Subject) -> Judged:
    """No other agent says nearly the same."""
    if not subject.twins:
        return Judged(1.0, "no other agent says nearly the same")
    nearest = subject.twins[0]
    where = "live" if nearest.live else "in the same change"
    measure = (
        f"{nearest.similarity:.0%} alike"
        if nearest.similarity >= nearest.containment
        else f"it says {nearest.containment:.0%} of what that one says, and more"
    )
    more = f", and {len(subject.twins) - 1} more" if len(subject.twins) > 1 else ""
    differs = f"; only one of them says {', '.join(nearest.differs)}" if nearest.differs else ""
    return Judged(
        0.0,
        f"{nearest.agent} is {where} and nearly the same ({measure}{more}){differs}",
        f"use {nearest.agent}, or say in the description what sets this one apart",
    )


def tests(subject: Subject) -> Judged:
    """The agent brings tests that can fail."""
    real = [test for test in subject.value.tests if _can_fail(test)]
    if not real:
        reason = "its tests expect nothing" if subject.value.tests else "it has no tests"
        return Judged(0.0, reason, "add `tests`: an input, and what the answer must contain or be like")
    inputs = len({test.input.strip().lower() for test in real})
    if inputs < _ENOUGH_TESTS:
        return Judged(
            0.5 + 0.5 * (inputs - 1) / (_ENOUGH_TESTS - 1),
            f"{_count(inputs, 'test')} that can fail",
            f"add cases up to {_ENOUGH_TESTS}, one that it should refuse or can't know among them",
        )
    return Judged(1.0, f"{_count(inputs, 'test')} that can fail")


def limits(subject: Subject) -> Judged:
    """What it may cost in a day and how often it may be called are bounded."""
    value = subject.value
    function = value.agent.behaviour.function
    asks_no_model = function is not None and function.endpoint is not None
    budget = value.tokens_per_day is not None or value.usd_per_day is not None or asks_no_model
    rate = value.calls_per_minute is not None
    if budget and rate:
        return Judged(1.0, "its cost in a day and its calls in a minute are bounded")
    missing = [
        text
        for given, text in ((budget, "`budget.tokens_per_day` or `usd_per_day`"), (rate, "`scaling.calls_per_minute`"))
        if not given
    ]
    reason = "nothing bounds what it may cost in a day" if not budget else "nothing bounds how often it may be called"
    return Judged(0.7 * budget + 0.3 * rate, reason, f"set {' and '.join(missing)}")


def owner(subject: Subject) -> Judged:
    """A team answers for it, and can be reached."""
    found = subject.value.owner
    if found is None:
        return Judged(0.0, "nobody answers for it", "set `owner.team` and `owner.contact`")
    if found.contact is None:
        return Judged(0.6, f"{found.team} answers for it, and nothing says how to reach them", "set `owner.contact`")
    return Judged(1.0, f"{found.team} answers for it")


def tools(subject: Subject) -> Judged:
    """The model is told of each tool what it does; a called agent and an MCP server say that themselves."""
    listed = [one for one in subject.value.agent.tools if isinstance(one, FunctionTool | MessageTool)]
    bare = [one.name for one in listed if not (one.description or "").strip()]
    if bare:
        return Judged(
            1.0 - len(bare) / len(listed),
            f"{_listed(bare)} has no description in the definition",
            "set `description` of the tool: what it does, when to use it, what it answers",
        )
    if not subject.value.agent.tools:
        return Judged(1.0, "it has no tools")
    return Judged(1.0, "the definition, the agent or the server says of each tool what it does")


def reach(subject: Subject) -> Judged:
    """It may reach what it uses, and no more."""
    agent = subject.value.agent
    wide = sorted({host for tool in agent.tools for host in tool.limits.egress if _WIDE.match(host)})
    plain = sorted(
        one.name for one in agent.tools if isinstance(one, McpTool) and (one.url or "").lower().startswith("http://")
    )
    calls = any(isinstance(one, AgentTool | MessageTool) for one in agent.tools)
    found: list[tuple[float, str, str]] = []
    if wide:
        found.append((0.5, f"{_listed(wide)} is anybody's host", "name the hosts under `limits.egress`"))
    if plain:
        found.append((0.5, f"{_listed(plain)} is reached without encryption", "use an https address"))
    if agent.tools and not agent.reach:
        found.append((0.3, "nothing says what it may reach", "list its tools under `capabilities.integration_points`"))
    if "service:agents" in agent.reach and not calls:
        found.append((0.3, "it may reach agents and has no tool that does", "take `service:agents` out"))
    if not found:
        return Judged(1.0, "it may reach what it uses and no more")
    return Judged(
        max(0.0, 1.0 - sum(part for part, _, _ in found)),
        "; ".join(reason for _, reason, _ in found),
        "; ".join(step for _, _, step in found),
    )


def objective(subject: Subject) -> Judged:
    """Somebody decided what callers may expect. An objective equal to the default can't be told from none."""
    default = ServiceLevelObjective()
    value = subject.value
    if (value.availability, value.latency_p95) == (default.availability, seconds(default.latency_p95)):
        return Judged(
            0.0,
            f"its objective is the default ({default.availability:.0%} in {default.latency_p95})",
            "set `service_level_objective` to what its callers need",
        )
    return Judged(1.0, f"{value.availability:.4g} of calls succeed, 95% within {value.latency_p95:g} s")


def findable(subject: Subject) -> Judged:
    """Tags say what it can do and in which domain, so that it is found among thousands."""
    missing = [
        kind for kind in ("capability:", "domain:") if not any(tag.startswith(kind) for tag in subject.value.tags)
    ]
    if missing:
        return Judged(
            1.0 - len(missing) / 2, f"it has no tag {' and no tag '.join(missing)}…", f"add tags {', '.join(missing)}"
        )
    return Judged(1.0, "its tags say what it can do and in which domain")


CRITERIA: dict[str, Criterion] = {
    "purpose": purpose,
    "occasion": occasion,
    "functions": functions,
    "unique": unique,
    "tests": tests,
    "limits": limits,
    "owner": owner,
    "tools": tools,
    "reach": reach,
    "objective": objective,
    "findable": findable,
}
"""Every criterion by its name, which is also that of its weight in the settings."""


def _can_fail(test: AgentTest) -> bool:
    return any(_asks(expect) for expect in (test.expect, *(turn.expect for turn in test.then)))


def _asks(expect: Expectation) -> bool:
    return any((expect.contains, expect.excludes, expect.json_schema, expect.rubric, expect.check))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:60] for name in names[:_MOST_SHOWN])
    return f"{shown} and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else shown
