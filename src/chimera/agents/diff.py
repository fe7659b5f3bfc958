"""What changed between two revisions, what kind of change it is, and whether the version number says so.

A change is breaking where a caller or a neighbour can notice a loss (a protocol or tool gone, another framework or
runtime, a smaller budget), a feature where something is offered that was not (a protocol, tool, function), and a fix
otherwise. By semantic versioning a breaking change raises the first number (below 1.0.0 the second), a feature the
second, a fix the third.
"""

from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct

from chimera.agents import quantities
from chimera.agents.compile import CanonicalDefinition, plain

Kind = Literal["breaking", "feature", "fix"]
_ORDER: dict[Kind, int] = {"fix": 0, "feature": 1, "breaking": 2}
_BREAKING = ("agent.framework", "runtime", "isolation", "agent.source.entrypoint", "agent.model.name")
_OFFERS = ("protocols", "agent.tools", "agent.primary_functions", "agent.reach")
_BOUNDS = ("tokens_per_day", "usd_per_day", "max_instances", "agent.concurrency", "availability")


class Change(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One field that changed. `old` is None where it is new, `new` where it is gone."""

    path: str
    kind: Kind
    reason: str
    old: Any = None
    new: Any = None


class Difference(Struct, frozen=True, kw_only=True):
    """All changes; the largest kind (None without changes); whether the version number was raised enough for it."""

    changes: tuple[Change, ...]
    kind: Kind | None
    old_version: str
    new_version: str
    version_fits: bool
    advice: str


def compare(old: CanonicalDefinition, new: CanonicalDefinition) -> Difference:
    """The semantic difference from `old` to `new`, the version itself apart."""
    changes = tuple(_changes(plain(old), plain(new), ""))
    kinds: list[Kind] = sorted({change.kind for change in changes}, key=_ORDER.__getitem__)
    kind = kinds[-1] if kinds else None
    least = least_version(old.agent.version, kind)
    fits = quantities.version(new.agent.version).key() >= quantities.version(least).key()
    if kind is None:
        advice = "nothing changed"
    elif fits:
        advice = f"{new.agent.version} fits a {kind} change"
    else:
        advice = f"a {kind} change needs at least version {least}; it says {new.agent.version}"
    return Difference(
        changes=changes,
        kind=kind,
        old_version=old.agent.version,
        new_version=new.agent.version,
        version_fits=fits,
        advice=advice,
    )


def least_version(old: str, kind: Kind | None) -> str:
    """The smallest version that says a change of `kind` after `old`."""
    was = quantities.version(old)
    if kind is None:
        return old
    if was.prerelease:
        return f"{was.major}.{was.minor}.{was.patch}"
    if kind == "fix" or (was.major == 0 and kind == "feature"):
        return f"{was.major}.{was.minor}.{was.patch + 1}"
    if kind == "feature" or was.major == 0:
        return f"{was.major}.{was.minor + 1}.0"
    return f"{was.major + 1}.0.0"


def _changes(old: Any, new: Any, path: str) -> Iterator[Change]:
    if old == new or path == "agent.version":
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            inner = f"{path}.{key}" if path else key
            if path in ("agent.behaviour",) and (key in old) != (key in new):
                yield _change(inner, old.get(key), new.get(key))
            else:
                yield from _changes(old.get(key), new.get(key), inner)
    else:
        yield _change(path, old, new)


def _change(path: str, old: Any, new: Any) -> Change:
    kind, reason = _judge(path, old, new)
    return Change(path=path, kind=kind, reason=reason, old=old, new=new)


def _judge(path: str, old: Any, new: Any) -> tuple[Kind, str]:
    if path in _BREAKING:
        return "breaking", "the agent runs as something else"
    if path in _OFFERS and isinstance(old, list) and isinstance(new, list):
        if any(item not in new for item in old):
            return "breaking", "something that was offered or reached is gone or differs"
        return "feature", "something is offered or reached that was not"
    if path in _BOUNDS:
        if old is None or (new is not None and new < old):
            return "breaking", "a bound is tighter"
        return "feature", "a bound is wider"
    if path.startswith("agent.behaviour") and (old is None or new is None):
        return "feature", "the behaviour has or lacks a part"
    return "fix", "the same is done in another way"
