"""Security scanning put together: a check of the pipeline for each scanner."""

from typing import Any

from chimera.adapters.scanners.knowing import Knowing, Places
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.substrates.knative.render import HostBounds, pod_manifest
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.bootstrap.substrate_parts import host_bounds, knative_settings
from chimera.delivery.ports import Check
from chimera.delivery.scanning.checking import checks
from chimera.delivery.scanning.settings import ScanningSettings
from chimera.kernel.clock import SystemClock
from chimera.kernel.settings import load_group


def make_checks(
    catalogue: Catalogue,
    scanning: dict[str, Any],
    knative: dict[str, Any] | None,
    gateway: dict[str, dict[str, Any]],
    places: Places | None = None,
) -> list[Check]:
    """Checks by the settings of `scanning`; pods are judged as the cluster's settings render them, or the defaults.

    `places` are where a cluster mounts the files that the settings name.
    """
    settings = load_group(ScanningSettings, scanning, where="scanning")
    rendering = KnativeSettings() if knative is None else knative_settings(knative)
    bounds = HostBounds() if knative is None else host_bounds(gateway)
    clock = SystemClock()
    knows = Knowing(settings, clock, lambda value: pod_manifest(value, rendering, bounds), places or Places())
    return checks(catalogue, knows, clock, fails_at=settings.fails_at, only=settings.wanted())
