"""Which of an agent's earlier inputs are replayed, and what stands in for what a replay doesn't touch: pure rules.

An input is what somebody said, with the conversation before it: a turn of a session, or what a task asked. Of many the
change's content draws some, so whoever goes on with the work draws the same. Each session gives one turn before any
gives a second, and what was asked in the same words counts once.

Not every agent's inputs may be replayed (`why_not`): the tenant's policy says by class of data, and a replay has no
effects beyond its environment. No tool of the agent is run. In their places stand the answers that the agent's own
tests give for them, and for calls that none fits a failure that says why.
"""

import hashlib
import string
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from chimera.agents.cases import AgentTest, Expectation
from chimera.agents.compile import CanonicalDefinition
from chimera.delivery.policy import ReplayPolicy
from chimera_host.contract.call import Message
from chimera_host.contract.tools import McpTool, full_name
from chimera_host.contract.trial import ToolAnswer

NOT_RUN = "This tool is not run here. Answer as well as you can without it."
TOOL_BYTES = 65_536
"""What tests' answers of tools may add to each call of a replay; those beyond it are left out."""
MOST_MARKS = 40
MOST_ASKED = 4
"""Expectations of an agent that cost a call each, and are asked of a replay."""
PLACES = 6
"""Characters by which names are told apart when a place among them is looked for."""
_KINDS = (frozenset(string.digits), frozenset(string.ascii_lowercase), frozenset(string.ascii_uppercase))
_ENCODER = msgspec.json.Encoder(order="deterministic")


class Earlier(Struct, frozen=True, kw_only=True):
    """An earlier input: `messages` end with what is to be answered.

    It stands in the session or task called `name`; of a session `place` is the place of its last message. `subject` is
    the person whom it is of.
    """

    agent: str
    kind: str
    name: str
    messages: tuple[Message, ...]
    place: int = 0
    subject: str | None = None

    @property
    def digest(self) -> str:
        """Of what is said."""
        return hashlib.sha256(_ENCODER.encode(self.messages)).hexdigest()

    @property
    def reference(self) -> str:
        """Where it stands, for people who may look there; of a person's nothing is told."""
        if self.subject is not None:
            return f"a {self.kind} of a person"
        return f"session {self.name}, message {self.place + 1}" if self.kind == "session" else f"task {self.name}"


def evaluated(value: CanonicalDefinition) -> tuple[AgentTest, ...]:
    """The tests that an agent is evaluated by: its integration tests, else those with a real model."""
    integration = tuple(test for test in value.tests if test.integration)
    return integration or tuple(test for test in value.tests if not test.is_scripted)


def size_of(messages: Sequence[Message]) -> int:
    """The bytes of what is said."""
    return sum(len(one.content.encode("utf-8", "replace")) for one in messages)


def turns_of(
    agent: str, session: str, messages: Sequence[Message], subject: str | None, most_bytes: int
) -> Iterator[Earlier]:
    """The inputs of a conversation that were answered, with what came before each; none longer than `most_bytes`."""
    size = 0
    for place, one in enumerate(messages):
        size += size_of((one,))
        if size > most_bytes:
            return
        if one.role == "user" and place + 1 < len(messages) and messages[place + 1].role == "assistant":
            said = tuple(messages[: place + 1])
            yield Earlier(agent=agent, kind="session", name=session, messages=said, place=place, subject=subject)


def between(first: str, last: str, share: float) -> str:
    """A name about this share of the way from `first` to `last`: a place to begin to look at names.

    Names are chosen by callers, begin alike, and go on with numbers or letters: what they have in common is kept, and
    the way between them is counted in the kinds of characters that the two go on with.
    """
    common = 0
    while common < min(len(first), len(last)) and first[common] == last[common]:
        common += 1
    tails = (first[common : common + PLACES], last[common : common + PLACES])
    found = set("".join(tails))
    letters = "".join(sorted(found.union(*(kind for kind in _KINDS if not found.isdisjoint(kind)))))
    if not letters:
        return first
    low, high = (_number(tail, letters) for tail in tails)
    number, made = low + int((high - low) * share), ""
    for _ in range(PLACES):
        number, place = divmod(number, len(letters))
        made = letters[place] + made
    return first[:common] + made.rstrip(letters[0])


def _number(text: str, letters: str) -> int:
    number = 0
    for letter in text.ljust(PLACES, letters[0]):
        number = number * len(letters) + letters.index(letter)
    return number


def draw(found: Sequence[Earlier], want: int, seed: str) -> list[Earlier]:
    """`want` of them, or as many as there are."""

    def chance(one: Earlier) -> bytes:
        return hashlib.sha256(f"{seed}\0{one.kind}\0{one.name}\0{one.place}".encode()).digest()

    rank: dict[tuple[str, str], int] = {}
    ranked: list[tuple[int, bytes, Earlier]] = []
    for one in sorted(found, key=chance):
        nth = rank.get((one.kind, one.name), 0)
        rank[one.kind, one.name] = nth + 1
        ranked.append((nth, chance(one), one))
    drawn: dict[str, Earlier] = {}
    for _, _, one in sorted(ranked, key=lambda row: row[:2]):
        if len(drawn) == want:
            break
        drawn.setdefault(one.digest, one)
    return list(drawn.values())


def why_not(new: CanonicalDefinition, live: CanonicalDefinition, policy: ReplayPolicy) -> str | None:
    """Why nothing of an agent may be replayed to these revisions; None where it may."""
    for one in (new, live):
        if one.data_class not in policy.data_classes:
            return f"the policy replays nothing of {one.data_class} data"
        function = one.agent.behaviour.function
        if function is not None and function.endpoint is not None:
            return "a function elsewhere answers, which would be called"
        if one.agent.source is not None and one.agent.source.entrypoint is not None and not policy.own_code:
            return "code of its own answers, which may reach out by itself"
    return None


def stand_ins(value: CanonicalDefinition, tests: Sequence[AgentTest]) -> tuple[ToolAnswer, ...]:
    """What the agent's tools answer in a replay: what `tests` say, then a failure for each tool."""
    names: list[str] = []
    for tool in value.agent.tools:
        names += [full_name(tool.name, one) for one in tool.allow] if isinstance(tool, McpTool) else [tool.name]
    said = (answer for test in tests for answer in test.tools if answer.tool in names)
    told = {_ENCODER.encode(answer): answer for answer in said}
    answers: list[ToolAnswer] = []
    room = TOOL_BYTES
    for size, answer in sorted(
        ((len(key), one) for key, one in told.items()), key=lambda row: row[1].arguments is None
    ):
        room -= size
        if room >= 0:
            answers.append(answer)  # those for some arguments before those for any
    return (*answers, *(ToolAnswer(tool=name, error=NOT_RUN) for name in dict.fromkeys(names)))


class Mark(Struct, frozen=True, kw_only=True):
    """One thing that tests expect of an answer, of the test `test`; `label` says it in words."""

    label: str
    test: AgentTest
    expect: Expectation

    @property
    def costs(self) -> bool:
        """Whether a call has to be made to know whether an answer meets it."""
        return self.expect.check is not None or self.expect.rubric is not None


def marks_of(tests: Sequence[AgentTest], *, judge: bool) -> tuple[Mark, ...]:
    """What `tests` expect, each thing once; rubrics only where a `judge` is there.

    Some of it is meant for one input alone ("contains Monday"). Such a thing is met by both revisions' answers to other
    inputs or by neither, and where it is by chance, it is by either with the same probability: it decides nothing.
    """
    found: dict[bytes, Mark] = {}
    asked = 0
    for test in tests:
        for turn in test.turns:
            for label, expect in _parts(turn.expect):
                key = _ENCODER.encode(expect)
                mark = Mark(label=label[:120], test=test, expect=expect)
                if key in found or (expect.rubric is not None and not judge) or len(found) == MOST_MARKS:
                    continue
                if mark.costs and asked == MOST_ASKED:
                    continue
                asked += mark.costs
                found[key] = mark
    return tuple(found.values())


def _parts(expect: Expectation) -> Iterator[tuple[str, Expectation]]:
    for text in expect.contains:
        yield f"contains {text!r}", Expectation(contains=(text,))
    for text in expect.excludes:
        yield f"doesn't contain {text!r}", Expectation(excludes=(text,))
    if expect.json_schema is not None:
        yield "is JSON of the schema", Expectation(json_schema=expect.json_schema)
    if expect.check is not None:
        yield f"passes the check {expect.check}", Expectation(check=expect.check)
    if expect.rubric is not None:
        yield f"meets the rubric {expect.rubric!r}", Expectation(rubric=expect.rubric)
