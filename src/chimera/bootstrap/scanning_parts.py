"""Security scanning put together: a check of the pipeline for each scanner, and the processes that they ask."""

import math
from collections.abc import Mapping
from typing import Any

from chimera.adapters.memory import memory_there, share
from chimera.adapters.scanners.apart import ScansApart
from chimera.adapters.scanners.knowing import Places
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.substrates.knative.render import HostBounds
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.bootstrap.scanner import ScannerConfig, make_knowing
from chimera.bootstrap.substrate_parts import host_bounds, knative_settings
from chimera.delivery.git.settings import SyncSettings
from chimera.delivery.ports import Check
from chimera.delivery.scanning.checking import checks
from chimera.delivery.scanning.settings import ScanningSettings
from chimera.delivery.settings import DeliverySettings
from chimera.kernel.clock import SystemClock
from chimera.kernel.settings import load_group

PROGRAM = ("-m", "chimera.bootstrap.scanner")


def readers_memory(scanning: Mapping[str, Any], sync: Mapping[str, Any]) -> int:
    """The part of memory, in bytes, for each process that scans or reads a repository; raises `SettingsError`."""
    processes = load_group(ScanningSettings, scanning, where="scanning").at_once
    processes += load_group(SyncSettings, sync, where="sync").at_once
    return share(memory_there(), processes)


def make_scanning(
    catalogue: Catalogue,
    scanning: dict[str, Any],
    knative: dict[str, Any] | None,
    gateway: dict[str, dict[str, Any]],
    delivery: dict[str, Any],
    places: Places | None = None,
    *,
    memory: int,
) -> tuple[list[Check], ScansApart]:
    """Checks by the settings of `scanning`, and the processes that they ask, to be closed; raises `SettingsError`.

    Pods are judged as the settings of a cluster render them, or the defaults. `places` are where it mounts the files
    that settings name, `memory` the part of it that each process may have, in bytes.
    """
    settings, places = load_group(ScanningSettings, scanning, where="scanning"), places or Places()
    pipeline = load_group(DeliverySettings, delivery, where="delivery")
    config = ScannerConfig(
        scanning=settings,
        rendering=KnativeSettings() if knative is None else knative_settings(knative),
        bounds=HostBounds() if knative is None else host_bounds(gateway),
        files=str(places.files),
        secrets=str(places.secrets),
        advisories=None if places.advisories is None else str(places.advisories),
        mounted=places.mounted,
        memory=min(memory, settings.memory_bytes),
        seconds=pipeline.check_seconds,
    )
    # Whoever waits for its turn behind as many as there can be has as long as each of them.
    rounds = math.ceil(pipeline.parallel / settings.at_once)
    scans = ScansApart(PROGRAM, config, at_once=settings.at_once, seconds=pipeline.check_seconds / rounds)
    knowing = make_knowing(config)
    made = checks(catalogue, scans, knowing, SystemClock(), fails_at=settings.fails_at, only=settings.wanted())
    return made, scans
