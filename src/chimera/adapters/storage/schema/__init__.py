"""The tables, one module an area, on one metadata. The tenant is in every key.

Times are seconds since the epoch. Values that only code reads are bytes (JSON): they are the same on every database,
and no database's JSON type has a say in what they may hold. A module that is not imported here is not in the schema.
"""

from chimera.adapters.storage.schema import (
    audit,
    catalogue,
    identity,
    journal,
    leases,
    quota,
    state,
    subscriptions,
    tasks,
)
from chimera.adapters.storage.schema.base import metadata

AREAS = (audit, catalogue, identity, journal, leases, quota, state, subscriptions, tasks)

__all__ = ["AREAS", "metadata"]
