"""What changed between two revisions, what kind of change it is, and whether the version number says so.

A change is breaking where a caller or a neighbour can notice a loss (a protocol or tool gone, another framework or
runtime, a smaller budget), a feature where something is offered that was not (a protocol, tool, function), and a fix
otherwise. By semantic versioning a breaking change raises the first number, a feature the second, a fix the third;
below 1.0.0 a breaking change raises the second, anything else the third. After a prerelease any later version will do.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal

from msgspec import Struct

from chimera.agents import quantities
from chimera.agents.compile import CanonicalDefinition, plain

Kind = Literal["breaking", "feature", "fix"]
_ORDER: dict[Kind, int] = {"fix": 0, "feature": 1, "breaking": 2}
_BREAKING = ("agent.framework", "runtime", "isolation", "agent.source.entrypoint", "agent.model.name")
_OFFERS = ("protocols", "agent.primary_functions", "agent.reach")
_BOUNDS = ("tokens_per_day", "usd_per_day", "calls_per_minute", "max_instances", "agent.concurrency", "availability")


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
    was, said = quantities.version(old.agent.version), quantities.version(new.agent.version)
    fits = said.key() >= quantities.version(least).key() or (bool(was.prerelease) and said.key() > was.key())
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
    if isinstance(old, dict) and isinstance(new, dict) and path not in _WHOLE:
        for key in sorted(old.keys() | new.keys()):
            yield from _changes(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif (before := _by_name(old)) is not None and (after := _by_name(new)) is not None:
        for name in sorted(before.keys() | after.keys()):
            yield from _changes(before.get(name), after.get(name), f"{path}[{name}]")
        if before.keys() == after.keys() and list(before) != list(after):
            yield Change(path=path, kind="fix", reason="the order differs", old=list(before), new=list(after))
    else:
        yield _change(path, old, new)


def _by_name(value: Any) -> dict[str, Any] | None:
    """A list of things with names (tools, participants, members, tasks, nodes, tests) by those names; order kept."""
    if value is None:
        return {}
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, dict) and "name" in one for one in value):
        return None
    return {one["name"]: one for one in value}


def _change(path: str, old: Any, new: Any) -> Change:
    kind, reason = _judge(path, old, new)
    return Change(path=path, kind=kind, reason=reason, old=old, new=new)


def _judge(path: str, old: Any, new: Any) -> tuple[Kind, str]:
    if path in _BREAKING:
        return "breaking", "the agent runs as something else"
    if path in _OFFERS:
        if any(item not in (new or ()) for item in old or ()):
            return "breaking", "something that was offered or reached is gone or differs"
        return "feature", "something is offered or reached that was not"
    if path in _BOUNDS:
        if old is None or (new is not None and new < old):
            return "breaking", "a bound is tighter"
        return "feature", "a bound is wider"
    if path == "retirement" and old is None:
        return "breaking", "the agent is to end"
    if path.startswith("subscriptions["):
        if new is None or path.count(".") == 1:
            return "breaking", "an event that started the agent may start it no more"
        return "feature", "an event starts the agent that did not"
    if path.startswith("tests["):
        return "fix", "what is tested differs"
    if _PART.fullmatch(path) and (old is None or new is None):
        if path.startswith("agent.tools") and new is None:
            return "breaking", "a tool is gone"
        return "feature", "the agent has or lacks a part"
    return "fix", "the same is done in another way"


_PART = re.compile(
    r"agent\.behaviour\.\w+|agent\.(?:tools|behaviour\.\w+\.(?:participants|members|tasks|nodes))\[[^\]]*\]"
)
_WHOLE = ("retirement", "owner")
"""Told as one change: a part of them says nothing by itself."""
