"""All tables on one metadata. An area that is not imported here is not in the schema."""

from chimera.adapters.storage.schema import (
    audit,
    catalogue,
    conditions,
    delivery,
    eventing,
    evidence,
    identity,
    journal,
    leases,
    quota,
    rollouts,
    sides,
    sources,
    state,
    subscriptions,
    tasks,
    trials,
    upkeep,
)
from chimera.adapters.storage.schema.base import metadata

AREAS = (
    *(audit, catalogue, conditions, delivery, eventing, evidence, identity, journal, leases, quota, rollouts),
    *(sides, sources, state, subscriptions, tasks, trials, upkeep),
)

__all__ = ["AREAS", "metadata"]
