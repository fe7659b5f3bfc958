"""Delivery: change requests and the pipeline, put together.

Whatever does a stage's work is named here, in `Parts`; a stage that nothing does is not in the pipeline.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.changes.people import StoredPeople
from chimera.adapters.storage.changes.store import ChangeStorage
from chimera.adapters.storage.database import Database
from chimera.delivery.evidence.service import BillCheck, Evidence
from chimera.delivery.pipeline import Parts, Pipeline
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


def parts_of(jaegis: Jaegis, evidence: Evidence) -> Parts:
    """What judges changes: the bill of materials, and JAEGIS as a check and as the one who may approve by itself."""
    clock = SystemClock()
    return Parts(
        checks=[EcosystemCheck(jaegis, clock), BillCheck(evidence, clock)],
        reviewers=[QualityReviewer(jaegis, clock), EcosystemReviewer(jaegis, clock)],
    )


def make_delivery(
    database: Database,
    catalogue: Catalogue,
    settings: dict[str, Any],
    changed: Callable[[], None],
    parts: Parts | None = None,
) -> Delivery:
    """Delivery on `database`; `changed` is called when something became live. Raises `SettingsError`."""
    clock = SystemClock()
    store = ChangeStorage(database, catalogue, clock)
    loaded = load_group(DeliverySettings, settings, where="delivery")
    pipeline = Pipeline(store, parts or Parts(), clock, loaded, changed)
    return Delivery(changes=Changes(store, StoredPeople(database), clock, pipeline.poke), pipeline=pipeline)
