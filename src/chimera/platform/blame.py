"""Which agent brought a host down: a pure rule over what was running when hosts died.

One running call names its agent at once. With several, a call that had outlived its deadline is named; otherwise the
agent that was there more often than any other when hosts of the cell died lately. What can't be decided stays a list of
suspects, and the next death narrows it: an innocent neighbour is rarely there twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from chimera.platform.ports import HostExit

MEMORY_OF_INCIDENTS = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Incident:
    """An unexpected end of a host. `culprit` is the agent that did it, where that is known."""

    at: float
    host: str
    cell: str
    cause: str
    suspects: tuple[str, ...]
    culprit: str | None


def judge(ended: HostExit, earlier: Sequence[Incident], *, at: float, longest_call: float) -> Incident:
    """The incident that `ended` is, given what happened before; `longest_call` is the deadline of a call in seconds."""
    suspects = tuple(sorted({call.agent for call in ended.calls}))
    return Incident(
        at=at,
        host=ended.host,
        cell=ended.cell,
        cause=ended.cause,
        suspects=suspects,
        culprit=_culprit(ended, suspects, earlier, at, longest_call),
    )


def _culprit(
    ended: HostExit, suspects: tuple[str, ...], earlier: Sequence[Incident], at: float, longest_call: float
) -> str | None:
    if len(suspects) == 1:
        return suspects[0]
    overdue = {call.agent for call in ended.calls if call.seconds > longest_call}
    if len(overdue) == 1:
        return overdue.pop()
    recent = [one for one in earlier if one.cell == ended.cell and at - one.at <= MEMORY_OF_INCIDENTS]
    # Where the culprit is known the others are cleared.
    accused = [(one.culprit,) if one.culprit else one.suspects for one in recent]
    before = {agent: sum(agent in agents for agents in accused) for agent in suspects}
    most = max(before.values(), default=0)
    often = [agent for agent, times in before.items() if times == most]
    return often[0] if most > 0 and len(often) == 1 else None
