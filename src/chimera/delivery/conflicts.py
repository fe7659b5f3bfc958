"""What stands against a change: another one in flight on the same agents, or agents that were changed meanwhile."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from chimera.delivery.errors import ChangeConflicts
from chimera.delivery.model import NOT_MOVING, ChangeItem, State

_SHOWN = 3


class Other(Struct, frozen=True, kw_only=True):
    """A change in flight that touches some of the same agents."""

    id: str
    state: State
    author_person: str
    agents: tuple[str, ...]


def gives_way(other: Other, person: str) -> bool:
    """Whether `other` may be superseded by a change of `person`: it is theirs, and production has nothing of it."""
    return other.author_person == person and other.state in NOT_MOVING


def stale(items: Sequence[ChangeItem], live: Mapping[str, str]) -> list[ChangeItem]:
    """Items that were made against another revision than the one that is `live` now (by agent; none: not there)."""
    return [item for item in items if live.get(item.agent) != item.before and live.get(item.agent) != item.revision]


def is_live(items: Sequence[ChangeItem], live: Mapping[str, str]) -> bool:
    """Whether all that `items` say is true already."""
    return all(live.get(item.agent) == item.revision for item in items)


def stale_text(stale_items: Sequence[ChangeItem], live: Mapping[str, str]) -> str:
    """Which agents were changed meanwhile, in words."""
    told = [
        f"{item.agent} ({_short(item.before)} is now {_short(live.get(item.agent))})" for item in stale_items[:_SHOWN]
    ]
    more = f" and {len(stale_items) - _SHOWN} more" if len(stale_items) > _SHOWN else ""
    return f"changed after this change was made: {', '.join(told)}{more}"


def refuse(others: Sequence[Other]) -> None:
    """Raise `ChangeConflicts` that names each of `others`; nothing where there are none."""
    if not others:
        return
    first = others[0]
    agents = ", ".join(first.agents[:_SHOWN]) + (
        f" and {len(first.agents) - _SHOWN} more" if len(first.agents) > _SHOWN else ""
    )
    more = f"; {len(others) - 1} other changes are in the way too" if len(others) > 1 else ""
    raise ChangeConflicts(
        f"the change {first.id} ({first.state}) touches {agents}{more}",
        next_step=f"wait for it, abort it (`chimera change abort {first.id}`), or put both into one change; "
        "your own that production hasn't begun give way with --supersede",
    )


def _short(digest: str | None) -> str:
    return "not there" if digest is None else digest.removeprefix("sha256:")[:8]
