"""An installation whose choices are names of values, and what each choice that may be left out changes.

The renderer (`chimera.adapters.substrates.knative.installation`) passes most of what it is told through: a name in, the
same name in the manifests. So it is run with marked expressions for values, and what comes out has them in their
places. Where it decides (is there a Secret for the database?) it is run twice, and the places that differ become
conditions. What it can't be asked in this way fails here, when the chart is generated, and not in a cluster.
"""

import dataclasses
import json
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_origin

import msgspec

from chimera.adapters.substrates.knative.installation import Installation, objects, told
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.adapters.substrates.knative.telling import Said

Json = Any
Path = tuple[str | int, ...]

OPEN, CLOSE, EACH = "\u27e6", "\u27e7", "each "
MARK = re.compile(f"{OPEN}([^{CLOSE}]*){CLOSE}")
VALUES = "$.Values"


class Absent:
    """What isn't there."""


ABSENT = Absent()


@dataclass(frozen=True)
class When:
    """`yes` where the condition holds, else `no`."""

    condition: str
    yes: Any
    no: Any


def mark(expression: str) -> str:
    """The expression, to be found again."""
    return f"{OPEN}{expression}{CLOSE}"


class Number(str):
    """A number's expression. As text, where the renderer makes text of it, it is another expression."""

    def __str__(self) -> str:
        """The number's digits as a text."""
        (expression,) = MARK.findall(self)
        return mark(f"{expression} | toJson")

    def __add__(self, other: Any) -> "Number":
        """The sum's expression."""
        return Number(mark(f"addf {_number(self)} {_number(other)}"))

    def __ceil__(self) -> "Number":
        """The expression of the next whole number."""
        return Number(mark(f"ceil {_number(self)} | int"))


def _number(value: Any) -> str:
    return f"({MARK.findall(value)[0]})" if isinstance(value, Number) else json.dumps(value)


class OpenMapping(dict[str, Any]):
    """A mapping of the user's: itself as a whole, or one of its groups."""

    def __init__(self, expression: str) -> None:
        """Stand for `expression`."""
        super().__init__({mark(expression): None})
        self._expression = expression

    def get(self, name: str, default: Any = None) -> Any:
        """One group, empty where the user has none; or one number, the default where the user says none."""
        if isinstance(default, float):
            key = json.dumps(name)
            found = f"{self._expression} {key}"
            return Number(mark(f"ternary (get {found}) {json.dumps(default)} (hasKey {found})"))
        return OpenMapping(f"(get {self._expression} {msgspec.json.encode(name).decode()} | default dict)")


def _knative() -> KnativeSettings:
    hints = typing.get_type_hints(KnativeSettings)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(KnativeSettings):
        expression = f"{VALUES}.knative.{field.name}"
        whole = get_origin(hints[field.name]) is tuple
        one = Number(mark(expression)) if hints[field.name] in (int, float) else mark(expression)
        found[field.name] = (mark(EACH + expression),) if whole else one
    # Where the gateway is follows from its namespace, so it is no value.
    return KnativeSettings(**{**found, "platform_url": ""})


SCALARS = ("database", "database_secret", "image", "namespace", "replicas", "database_port", "priority_class")
SCALARS += ("monitoring", "ingress_namespace", "advisories_claim", "repositories_size", "scans_size")
SCALARS += ("control_plane_memory",)
MAPPINGS = ("models", "issuers", "settings", "retention", "upkeep", "delivery", "operator", "jaegis", "node_selector")
MAPPINGS += ("scanning", "trials", "sync")
LISTS = ("hosts", "tolerations", "egress")
SWITCHES = ("strict_spread", "eventing", "monitors")
OFF: dict[str, Any] = {
    "database_secret": None,
    "node_selector": {},
    "tolerations": (),
    "priority_class": "",
    "strict_spread": False,
    "eventing": False,
    "monitors": False,
    "egress": (),
    "advisories_claim": "",
}
"""Choices that may be left out, and what they are then."""
KNATIVE_OFF: dict[str, Any] = {"pull_secrets": (), "most_pods": 0}
"""The same of the group `knative`."""


def symbolic() -> Installation:
    """An installation in which everything is chosen, by name."""
    made: dict[str, Any] = {"knative": _knative(), "revision": ""}
    made |= {name: mark(f"{VALUES}.{name}") for name in SCALARS}
    made |= {name: OpenMapping(f"{VALUES}.{name}") for name in MAPPINGS}
    made |= {name: (mark(f"{VALUES}.{name}"),) for name in LISTS}
    made |= dict.fromkeys(SWITCHES, True)
    if missing := set(Installation.__struct_fields__) - made.keys():
        raise AssertionError(f"say in {__name__} how a chart names {', '.join(sorted(missing))}")
    return Installation(**made)


def variants() -> Iterator[tuple[str, Installation]]:
    """For each choice that may be left out: its condition, and the installation without it."""
    whole = symbolic()
    for name, off in OFF.items():
        yield f"{VALUES}.{name}", msgspec.structs.replace(whole, **{name: off})
    for name, off in KNATIVE_OFF.items():
        without = dataclasses.replace(whole.knative, **{name: off})
        yield f"{VALUES}.knative.{name}", msgspec.structs.replace(whole, knative=without)


def words() -> dict[str, Said]:
    """In place of what processes are told: the templates that say it."""
    return {
        name: Said(
            text=mark(f'include "chimera.text" (list $ "{name}")'),
            digest=mark(f'include "chimera.digest" (list $ "{name}")'),
        )
        for name in told(symbolic())
    }


def told_tree() -> Json:
    """What each process is told, with conditions."""
    return conditional(told(symbolic()), [(condition, told(one)) for condition, one in variants()])


def object_trees() -> dict[str, Json]:
    """All objects by their identity, in order, with conditions."""
    said = words()
    whole = by_identity(objects(symbolic(), said))
    others = [(condition, by_identity(objects(one, said))) for condition, one in variants()]
    found: dict[str, Json] = conditional(whole, others)
    return found


def by_identity(found: list[Json]) -> dict[str, Json]:
    """Objects by kind, namespace and name."""
    made = {identity(one): one for one in found}
    assert len(made) == len(found)
    return made


def identity(one: Json) -> str:
    """`Kind namespace/name`."""
    meta = one["metadata"]
    return f"{one['kind']} {meta.get('namespace', '')}/{meta['name']}"


def conditional(whole: Json, others: list[tuple[str, Json]]) -> Json:
    """`whole`, with conditions at the places in which the others differ from it."""
    changed = [(condition, path, other) for condition, one in others for path, other in differences(whole, one)]
    tree = _copied(whole)
    for condition, path, other in changed:
        *before, last = path
        place = tree
        for step in before:
            place = place.yes[step] if isinstance(place, When) else place[step]
        place[last] = When(condition, place[last], other)
    return tree


def differences(whole: Json, other: Json, path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Where `other` differs from `whole`: the path, and what is there in its place."""
    if whole == other:
        return
    if isinstance(whole, Mapping) and isinstance(other, Mapping) and other.keys() <= whole.keys():
        for name, value in whole.items():
            if name in other:
                yield from differences(value, other[name], (*path, name))
            else:
                yield (*path, name), ABSENT
    elif isinstance(whole, (list, tuple)) and isinstance(other, (list, tuple)):
        yield from _list_differences(list(whole), list(other), path)
    elif isinstance(whole, (Mapping, list, tuple)) or isinstance(other, (Mapping, list, tuple)):
        raise AssertionError(f"at {path}: no condition can say {other!r} in place of {whole!r}")
    else:
        yield path, other


def _list_differences(whole: list[Json], other: list[Json], path: Path) -> Iterator[tuple[Path, Json]]:
    if len(whole) == len(other):
        for at, (one, changed) in enumerate(zip(whole, other, strict=True)):
            yield from differences(one, changed, (*path, at))
        return
    left = list(other)
    for at, one in enumerate(whole):
        if left and left[0] == one:
            left.pop(0)
        else:
            yield (*path, at), ABSENT
    if left:
        raise AssertionError(f"at {path}: {left!r} is in none of the places of {whole!r}")


def _copied(value: Json) -> Json:
    if isinstance(value, OpenMapping):
        return value
    if isinstance(value, Mapping):
        return {name: _copied(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(one) for one in value]
    return value
