"""What scans know: advisories, kept for a while, waivers of a file, images looked into when asked.

Advisories are read again after `scanning.advisories_refresh`, since whoever keeps them up to date does so beside us; in
between the index stays in memory. What can't be read raises, so the check is asked again, and at last says `skipped`.
"""

import asyncio
import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chimera.adapters.runtimes import lock_of
from chimera.adapters.scanners.advisory_files import load_advisories
from chimera.adapters.scanners.looking import look_into
from chimera.agents import yaml
from chimera.agents.compile import CanonicalDefinition
from chimera.delivery.scanning.advisories import Advisories
from chimera.delivery.scanning.errors import InvalidWaivers
from chimera.delivery.scanning.model import Scanner
from chimera.delivery.scanning.scan import Knowledge, custom_images
from chimera.delivery.scanning.settings import ScanningSettings, below
from chimera.delivery.scanning.waivers import Waiver, read_waivers
from chimera.kernel.clock import Clock

MOST_WAIVERS = 4 * 1024**2
WAIVERS = "waivers.yaml"

Manifest = Callable[[CanonicalDefinition], Mapping[str, Any] | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where files are that settings name without a whole path; by default, below where this process was started.

    Where settings name none, waivers are `WAIVERS` in `files`, and advisories those in the folder `advisories`, if
    these are there. A cluster mounts them, so they may come and go.
    """

    files: Path = Path()
    secrets: Path = Path()
    advisories: Path | None = None
    mounted: bool = False


class Knowing:
    """Knowledge by the settings of the group `scanning`."""

    def __init__(
        self, settings: ScanningSettings, clock: Clock, manifest_of: Manifest, places: Places | None = None
    ) -> None:
        """Nothing is read before somebody asks."""
        self._settings = settings
        self._places = places or Places()
        self._clock = clock
        self._manifest_of = manifest_of
        self._index: Advisories | None = None
        self._read = 0.0
        self._lock = asyncio.Lock()

    async def knowledge(self, scanner: Scanner, values: Sequence[CanonicalDefinition]) -> Knowledge:
        """What `scanner` needs to judge `values`; raises `ScanningError`."""
        settings, now = self._settings, self._clock.wall()
        found = Knowledge(
            advisories=await self._advisories(now) if scanner in ("dependencies", "images") else None,
            now=now,
            advisories_age=settings.advisories_days * 86_400,
            lock_of=lock_of,
            pickle_globals=frozenset(settings.pickle_globals),
            trusted_hosts=settings.trusted_hosts,
            manifest_of=self._manifest_of,
        )
        if scanner != "images" or not (names := custom_images(values)):
            return found
        credentials = self._places.secrets / settings.registry_config if settings.registry_config else None
        images = await look_into(
            names,
            found.against,
            found.pickle_globals,
            only=settings.registries,
            credentials=credentials,
            largest=settings.image_bytes,
        )
        return found.with_images(images)

    async def waivers(self, today: datetime.date) -> tuple[Waiver, ...]:
        """See `Waives`."""
        return await asyncio.to_thread(self._waivers, today)

    def _waivers(self, today: datetime.date) -> tuple[Waiver, ...]:
        if self._settings.waivers:
            return waivers_of(self._places.files / self._settings.waivers, today)
        given = self._places.files / WAIVERS
        return waivers_of(given, today) if self._places.mounted and given.exists() else ()

    def _sources(self) -> list[str]:
        """Where advisories are, with their whole paths."""
        given = self._places.advisories
        if not self._settings.advisories and given is not None and given.is_dir():
            return [str(given)]
        return [below(self._places.files, name) for name in self._settings.advisories]

    async def _advisories(self, now: float) -> Advisories | None:
        if not (sources := await asyncio.to_thread(self._sources)):
            return None
        async with self._lock:
            if self._index is None or now - self._read > self._settings.advisories_refresh:
                self._index = await load_advisories(sources, now=now)
                self._read = now
            return self._index


def waivers_of(file: Path, today: datetime.date) -> tuple[Waiver, ...]:
    """The waivers of a YAML file; raises `InvalidWaivers`, or `UnreadableText` where it is no YAML."""
    try:
        data = yaml.load(yaml.decode(file.read_bytes(), file=str(file), limit=MOST_WAIVERS), file=str(file))
    except OSError as error:
        raise InvalidWaivers(f"{file}: {error.strerror}", next_step="name a file that can be read") from None
    return read_waivers(data, file=str(file), today=today)
