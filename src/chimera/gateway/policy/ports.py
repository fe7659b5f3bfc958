"""What decisions stand on: the engine that knows Cedar."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from chimera.gateway.policy.model import Decision
from chimera.gateway.policy.vocabulary import Hierarchy

Statement = Mapping[str, Any]
"""One policy in Cedar's JSON form."""


class PolicySet(Protocol):
    """A few policies, parsed and ready."""

    def decide(self, asked: Hierarchy) -> Decision:
        """What they say to `asked`, with Cedar's rules: a forbid beats a permit, and without either it is no.

        `errors` has a line for each policy that failed; whether that refuses is for the caller to say. Raises whatever
        goes wrong.
        """


class PolicyEngine(Protocol):
    """Cedar."""

    def parse(self, text: str) -> list[Statement]:
        """The policies in `text`, in order. Raises `InvalidPolicy`."""

    def check(self, text: str) -> list[str]:
        """What is wrong with `text` by the schema; empty: nothing."""

    def make(self, statements: Sequence[tuple[str, Statement]]) -> PolicySet:
        """A set of policies, each under its id."""
