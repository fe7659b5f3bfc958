"""Server-side apply, as the cluster in memory does it: fields that each manager owns, merged, taken and let go.

Lists are replaced whole, but for those whose entries have names (`BY_NAME`).
"""

import copy
from typing import Any

Json = dict[str, Any]
BY_NAME = frozenset({"webhooks"})
"""Lists whose entries are merged by their names; all others are replaced whole."""


def _by_key(name: str, part: Any) -> Json | None:
    """A mapping, or a list whose entries are merged by their names, as one; None for anything else."""
    if isinstance(part, dict):
        return part
    if name in BY_NAME and isinstance(part, list):
        return {entry["name"]: entry for entry in part}
    return None


def merge(value: Json, wanted: Json) -> None:
    """Set what is wanted, and leave the rest."""
    for name, part in wanted.items():
        inner, below = _by_key(name, part), _by_key(name, value.get(name))
        if inner is None or below is None:
            value[name] = copy.deepcopy(part)
            continue
        merge(below, inner)
        if isinstance(part, list):
            value[name] = list(below.values())


def remove(value: Json, before: Json, wanted: Json, others: list[Json]) -> None:
    """Take out what this manager applied before and applies no more, unless somebody else owns it too."""
    for name, part in before.items():
        owned = [other[name] for other in others if name in other]
        if name not in wanted:
            if not owned:
                value.pop(name, None)
            continue
        inner, now, there = (_by_key(name, one) for one in (part, wanted[name], value.get(name)))
        if inner is not None and now is not None and there is not None:
            remove(there, inner, now, [found for other in owned if (found := _by_key(name, other)) is not None])
            if isinstance(part, list):
                value[name] = list(there.values())


def differences(other: Json, wanted: Json, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Fields that somebody else owns with another value."""
    found: list[tuple[str, ...]] = []
    for name, part in other.items():
        if name not in wanted or (path == () and name in ("apiVersion", "kind")):
            continue
        inner, now = _by_key(name, part), _by_key(name, wanted[name])
        if inner is not None and now is not None:
            found.extend(differences(inner, now, (*path, name)))
        elif part != wanted[name]:
            found.append((*path, name))
    return found


def managed_fields(applied: dict[str, Json], *, foreign: bool) -> list[Json]:
    """Who has set fields of an object, as coarse as anybody looks: whether the spec's are among them."""
    found = [
        {"manager": name, "operation": "Apply", "fieldsV1": {"f:spec": {}} if "spec" in value else {}}
        for name, value in applied.items()
    ]
    return found + ([{"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {}}}] if foreign else [])
