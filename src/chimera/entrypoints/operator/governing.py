"""Which Rollout governs an Agent: a watch of Rollouts, and what they select. Loops are told when it may be another."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec

from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.resources.carrying import Governor
from chimera.adapters.substrates.knative.resources.kinds import ROLLOUTS, Key, Rollout
from chimera.adapters.substrates.knative.resources.rollouts import governing, policy_fault
from chimera.delivery.rollout.api import policy_with
from chimera.delivery.rollout.model import Policy


@dataclass(kw_only=True, slots=True)
class Group:
    """The Agents that a Rollout governs: how many, how many wait to be rolled out, and how many were refused."""

    selected: int = 0
    waiting: int = 0
    refused: int = 0
    problem: str = ""


class Rollouts:
    """Rollouts of all namespaces, oldest first in each. Run what is followed."""

    def __init__(self, api: Kubernetes, policy: Policy) -> None:
        """Know nothing yet; `policy` is the platform's."""
        self.rollouts: Following[Rollout] = Following(api, ROLLOUTS, namespace=None, selector="")
        self.rollouts.on_change(self._changed)
        self.groups: Mapping[str, Group] | None = None
        self._policy = policy
        self._by_namespace: dict[str, list[tuple[Rollout, Governor]]] = {}
        self._specs: dict[Key, object] = {}
        self._on_change: list[Callable[[], None]] = []
        self._on_count: list[Callable[[], None]] = []

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever an Agent may be governed otherwise than before."""
        self._on_change.append(callback)

    def on_count(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever other numbers of a Rollout's Agents wait."""
        self._on_count.append(callback)

    def counted(self, groups: Mapping[str, Group]) -> None:
        """The Agents of Rollouts were counted."""
        self.groups = groups
        for callback in self._on_count:
            callback()

    def governor_of(self, key: Key, labels: Mapping[str, str]) -> Governor | None:
        """The Rollout that governs an Agent: the oldest of its namespace that selects it."""
        for one, governor in self._by_namespace.get(key[0], ()):
            if governing(one.spec.agents, key[1], labels):
                return governor
        return None

    def governor(self, key: Key) -> Governor | None:
        """A Rollout as a governor."""
        return next((found for one, found in self._by_namespace.get(key[0], ()) if one.key == key), None)

    def _changed(self, _: Iterable[Rollout]) -> None:
        there = {
            key: (one.metadata.uid, one.metadata.creation_timestamp, one.spec)
            for key, one in self.rollouts.objects.items()
            if one.metadata.deletion_timestamp is None
        }
        if there == self._specs:
            return  # it was a status
        self._specs = dict(there)
        found: dict[str, list[tuple[Rollout, Governor]]] = {}
        for key in there:
            one = self.rollouts.objects[key]
            found.setdefault(key[0], []).append((one, self._governor(one)))
        for some in found.values():
            some.sort(key=lambda pair: (pair[0].metadata.creation_timestamp or "", pair[0].key))
        self._by_namespace = found
        for callback in self._on_change:
            callback()

    def _governor(self, one: Rollout) -> Governor:
        policy, problem = self._policy, ""
        try:
            policy = policy_with(self._policy, one.spec.policy)
        except msgspec.ValidationError as error:
            problem = policy_fault(error)
        return Governor(
            resource="/".join(one.key), state=one.spec.state, attempt=one.spec.attempt, policy=policy, problem=problem
        )
