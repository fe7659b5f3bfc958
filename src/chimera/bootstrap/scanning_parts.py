"""Security scanning put together: a check of the pipeline for each scanner, and the processes that they ask."""

from typing import Any

from chimera.adapters.scanners.apart import ScansApart
from chimera.adapters.scanners.knowing import Places
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.substrates.knative.render import HostBounds
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.bootstrap.scanner import ScannerConfig, make_knowing
from chimera.bootstrap.substrate_parts import host_bounds, knative_settings
from chimera.delivery.ports import Check
from chimera.delivery.scanning.checking import checks
from chimera.delivery.scanning.settings import ScanningSettings
from chimera.delivery.settings import DeliverySettings
from chimera.kernel.clock import SystemClock
from chimera.kernel.settings import load_group

PROGRAM = ("-m", "chimera.bootstrap.scanner")


def make_scanning(
    catalogue: Catalogue,
    scanning: dict[str, Any],
    knative: dict[str, Any] | None,
    gateway: dict[str, dict[str, Any]],
    delivery: dict[str, Any],
    places: Places | None = None,
) -> tuple[list[Check], ScansApart]:
    """Checks by the settings of `scanning`, and the processes that they ask, to be closed; raises `SettingsError`.

    Pods are judged as the settings of a cluster render them, or the defaults. `places` are where it mounts the files
    that settings name.
    """
    settings, places = load_group(ScanningSettings, scanning, where="scanning"), places or Places()
    config = ScannerConfig(
        scanning=settings,
        rendering=KnativeSettings() if knative is None else knative_settings(knative),
        bounds=HostBounds() if knative is None else host_bounds(gateway),
        files=str(places.files),
        secrets=str(places.secrets),
        advisories=None if places.advisories is None else str(places.advisories),
        mounted=places.mounted,
        seconds=load_group(DeliverySettings, delivery, where="delivery").check_seconds,
    )
    scans = ScansApart(PROGRAM, config)
    knowing = make_knowing(config)
    made = checks(catalogue, scans, knowing, SystemClock(), fails_at=settings.fails_at, only=settings.wanted())
    return made, scans
