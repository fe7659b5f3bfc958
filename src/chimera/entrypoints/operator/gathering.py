"""When Agents that go together are all there: a folder that is applied file by file becomes one change, or one rollout.

Each group waits by itself, so that one tenant's Agents hold no other's up; and not for ever, so that an Agent which
changes all the time doesn't hold up those that go with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chimera.adapters.substrates.knative.resources.carrying import Want
from chimera.adapters.substrates.knative.resources.plan import Place

Group = tuple[str, str]
"""Whose agents go together: a tenant, and the Rollout, or nothing for those of a change."""
MOST = 6
"""A group that changes all the time is begun after this many times the while in which none of it should change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Waiting:
    """What a group wants, since when any of it waits, and since when it is as it is."""

    wanted: frozenset[tuple[Place, str | None]]
    first: float
    last: float


class Gathering:
    """The groups that wait."""

    def __init__(self, quiet: float) -> None:
        """None does yet; a group is complete when nothing of it has changed for `quiet` seconds."""
        self._quiet = quiet
        self._waiting: dict[Group, _Waiting] = {}

    def due(self, groups: Mapping[Group, Sequence[Want]], now: float) -> dict[Group, float]:
        """When each of the groups that wait is to be begun, if nothing of it changes until then."""
        found: dict[Group, _Waiting] = {}
        for key, wants in groups.items():
            wanted = frozenset((want.place, want.revision) for want in wants)
            before = self._waiting.get(key)
            first = now if before is None else before.first
            last = now if before is None or before.wanted != wanted else before.last
            found[key] = _Waiting(wanted=wanted, first=first, last=last)
        self._waiting = found
        return {key: min(one.last + self._quiet, one.first + MOST * self._quiet) for key, one in found.items()}

    def begun(self, key: Group) -> None:
        """What comes of this group from now on waits anew."""
        self._waiting.pop(key, None)
