"""Slicing: of many policies, the few whose scope can match a question; a pure rule over their JSON form (EST).

A policy's scope says of principal, action and resource each: any, exactly this, in this, of this type. That is all the
index looks at. For each of the three it keeps, as bits of an integer, which policies admit an entity; a question's
slice is the intersection, a dozen look-ups and two ANDs, whatever the number of policies (500 policies are 63 bytes).

The slice holds every policy that Cedar would find satisfied or failing: an unmatched scope makes a policy neither,
since Cedar evaluates a policy as scope && conditions. What isn't understood here admits everything, so an operator that
a later Cedar adds costs time and never a decision.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chimera.gateway.policy.vocabulary import Hierarchy, Uid

PARTS = ("principal", "action", "resource")


class _Part:
    """The bits of the policies that admit an entity in one place of the scope."""

    def __init__(self) -> None:
        self.always = 0
        self.exactly: dict[Uid, int] = {}
        self.within: dict[Uid, int] = {}
        self.of_type: dict[str, int] = {}

    def add(self, constraint: Any, bit: int) -> None:
        """Note the policy of `bit`, whose scope has `constraint` here."""
        match constraint:
            case {"op": "==", "entity": {"type": str(kind), "id": str(name)}}:
                self.exactly[kind, name] = self.exactly.get((kind, name), 0) | bit
            case {"op": "in", "entity": {"type": str(kind), "id": str(name)}}:
                self.within[kind, name] = self.within.get((kind, name), 0) | bit
            case {"op": "in", "entities": [*entities]} if all(map(_is_plain, entities)):
                for entity in entities:
                    uid = (entity["type"], entity["id"])
                    self.within[uid] = self.within.get(uid, 0) | bit
            case {"op": "is", "entity_type": str(kind)}:  # also `is T in e`: its type alone is a superset
                self.of_type[kind] = self.of_type.get(kind, 0) | bit
            case _:
                self.always |= bit

    def admit(self, uid: Uid, above: Iterable[Uid]) -> int:
        """The policies that admit `uid`, which is in each of `above`."""
        bits = self.always | self.exactly.get(uid, 0) | self.of_type.get(uid[0], 0)
        within = self.within
        for one in above:
            bits |= within.get(one, 0)
        return bits


class Index:
    """Policies by their scopes."""

    def __init__(self, policies: Sequence[Mapping[str, Any]]) -> None:
        """Index `policies`, each in Cedar's JSON form; the first has the lowest bit."""
        self._parts = (_Part(), _Part(), _Part())
        for position, policy in enumerate(policies):
            for part, name in zip(self._parts, PARTS, strict=True):
                part.add(policy.get(name), 1 << position)

    def slice(self, asked: Hierarchy) -> int:
        """The bits of the policies that can matter to `asked`."""
        principal, action, resource = self._parts
        return (
            principal.admit(asked.principal, asked.principal_in)
            & action.admit(asked.action, asked.action_in)
            & resource.admit(asked.resource, asked.resource_in)
        )


def positions(bits: int) -> list[int]:
    """The positions of the bits that are set, ascending."""
    found = []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found


def _is_plain(entity: Any) -> bool:
    return isinstance(entity, dict) and isinstance(entity.get("type"), str) and isinstance(entity.get("id"), str)
