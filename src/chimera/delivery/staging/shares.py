"""How the calls that staging of one change may make are shared among its agents: a pure rule.

Every agent that is asked at all gets the least that says something of it, in their order, for as long as there is
enough; what is left is shared evenly, and nobody gets more than it wants. An agent that comes away with nothing isn't
evaluated, which its change says.
"""

from collections.abc import Sequence

from msgspec import Struct

from chimera.agents.cases import AgentTest, Turn


class Want(Struct, frozen=True, kw_only=True):
    """Calls that one agent wants: with fewer than `least` nothing is found out, more than `most` it has no use for."""

    least: int
    most: int


def shares(wants: Sequence[Want], bound: int) -> list[int]:
    """How many calls each of them gets; `bound` at most, together."""
    given = [0] * len(wants)
    left = bound
    for place, want in enumerate(wants):
        if 0 < want.least <= left:
            given[place] = want.least
            left -= want.least
    hungry = [place for place, want in enumerate(wants) if 0 < given[place] < want.most]
    while hungry and left > 0:
        each = max(1, left // len(hungry))
        for place in hungry[:left]:
            more = min(each, wants[place].most - given[place])
            given[place] += more
            left -= more
        hungry = [place for place in hungry if given[place] < wants[place].most]
    return given


def cost_of(turn: Turn) -> int:
    """Calls for one turn of a case: its own, and those of a check and of a judge."""
    return 1 + (turn.expect.check is not None) + (turn.expect.rubric is not None)


def cost_of_rounds(tests: Sequence[AgentTest], rounds: int) -> int:
    """Calls for so many rounds of an agent's cases; a case is run as often as it says itself, at least."""
    return sum(max(rounds, test.runs) * sum(map(cost_of, test.turns)) for test in tests)


def rounds_within(tests: Sequence[AgentTest], share: int, most: int) -> int:
    """How many rounds of these cases, `most` at most, a share of calls is enough for; 0: not for one."""
    found = 0
    while found < most and cost_of_rounds(tests, found + 1) <= share:
        found += 1
    return found
