"""Delivery: change requests, the pipeline and rollouts, put together.

Whatever does a stage's work is named here, in `Parts`; a stage that nothing does is not in the pipeline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.changes.people import StoredPeople
from chimera.adapters.storage.changes.store import ChangeStorage
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.rollouts.store import StoredRollouts
from chimera.adapters.storage.sides.store import SideStorage
from chimera.delivery.evidence.service import BillCheck, Evidence
from chimera.delivery.pipeline import Parts, Pipeline
from chimera.delivery.ports import Check
from chimera.delivery.rollout.changes import ChangeRollouts
from chimera.delivery.rollout.model import Policy
from chimera.delivery.rollout.service import RolloutService
from chimera.delivery.service import Changes
from chimera.delivery.settings import DeliverySettings
from chimera.jaegis.reviewing import EcosystemCheck, EcosystemReviewer, QualityReviewer
from chimera.jaegis.service import Jaegis
from chimera.kernel.clock import SystemClock
from chimera.kernel.settings import load_group


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """What the control plane serves of delivery, and the loop behind it."""

    changes: Changes
    pipeline: Pipeline
    rollouts: RolloutService


def parts_of(jaegis: Jaegis, evidence: Evidence, scanners: Sequence[Check]) -> Parts:
    """What judges changes: scanners and own tests, the bill of materials, JAEGIS as a check and as who may approve."""
    clock = SystemClock()
    return Parts(
        checks=[EcosystemCheck(jaegis, clock), *scanners, BillCheck(evidence, clock)],
        reviewers=[QualityReviewer(jaegis, clock), EcosystemReviewer(jaegis, clock)],
    )


def make_delivery(
    database: Database,
    catalogue: Catalogue,
    settings: dict[str, Any],
    changed: Callable[[], None],
    parts: Parts | None = None,
    *,
    max_hosts: int,
    rolls: bool = True,
) -> Delivery:
    """Delivery on `database`; `changed` is called when something became live. Raises `SettingsError`.

    `max_hosts` is the platform's bound of a shared cell. Where changes don't roll, production makes all live at once.
    """
    clock = SystemClock()
    store = ChangeStorage(database, catalogue, clock)
    loaded = load_group(DeliverySettings, settings, where="delivery")
    kept = StoredRollouts(database)
    sides = SideStorage(database, max_hosts=max_hosts, unservable=catalogue.unservable)
    rollouts = RolloutService(kept, sides, kept, policy_of(loaded), changed)
    parts = parts or Parts()
    if rolls:
        parts.rollouts = ChangeRollouts(rollouts)
    pipeline = Pipeline(store, parts, clock, loaded, changed)

    changes = Changes(store, StoredPeople(database), clock, pipeline.poke)
    return Delivery(changes=changes, pipeline=pipeline, rollouts=rollouts)


def policy_of(settings: DeliverySettings) -> Policy:
    """How rollouts go where nothing else is said."""
    values = {name: getattr(settings, f"rollout_{name}") for name in Policy.__struct_fields__}
    return msgspec.convert(values, Policy)
