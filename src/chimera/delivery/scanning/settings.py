"""Settings of security scanning."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from chimera.delivery.scanning.model import SCANNERS, Scanner
from chimera.kernel.settings import SettingsError, setting

ADDRESSES = ("https://", "http://")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanningSettings:
    """Security scanning: what is known of vulnerable packages, what is allowed, and from when on a finding fails."""

    advisories: tuple[str, ...] = setting(
        (),
        "Advisories in OSV format: folders, files (`.json`, `.zip`) or addresses, separated by commas. Without them a "
        "change whose agents have dependencies fails, since nobody knows what is vulnerable.",
    )
    advisories_days: float = setting(
        7.0,
        "Advisories of an ecosystem whose newest is older than this are no longer believed, and the scan fails.",
        unit="days",
        minimum=0.01,
    )
    advisories_refresh: float = setting(
        3600.0,
        "Advisories are read again after so long; what was published since isn't known before.",
        unit="s",
        minimum=1,
    )
    scanners: tuple[str, ...] = setting(
        SCANNERS,
        "The scanners that judge change requests: `secrets`, `dependencies`, `models`, `permissions`, `prompts`, "
        "`containers`, `images`. What isn't named here is looked at by nobody.",
    )
    fails_at: Literal["low", "medium", "high", "critical"] = setting(
        "high", "The least severity that fails: `low`, `medium`, `high` or `critical`. Lesser findings are told."
    )
    waivers: str = setting("", "A file of waivers: which findings are accepted, why, and until when.")
    pickle_globals: tuple[str, ...] = setting(
        (),
        "Full names (`module.name`) that pickles in source folders and images may name beside those of plain data, "
        "separated by commas. What a pickle names it may call when it is loaded.",
    )
    trusted_hosts: tuple[str, ...] = setting(
        (),
        "Hosts of your own, or whose owners may see your data, as patterns (`*.example.com`), separated by commas. "
        "Every other public host is outside: what it says is untrusted, and what reaches it is a way out.",
    )
    registries: tuple[str, ...] = setting(
        (),
        "Registries (`registry.example:5000`) from which the images that agents name as their runtime are fetched and "
        "scanned, separated by commas. An image of any other isn't judged, so its change fails.",
    )
    image_bytes: int = setting(
        8 * 1024**3,
        "Largest image, its layers as they are packed, that is fetched from a registry. A larger one isn't judged, so "
        "its change fails.",
        unit="bytes",
        minimum=64 * 1024**2,
        maximum=64 * 1024**3,
    )
    at_once: int = setting(
        2, "Processes that scan, those that wait for work included; other scans wait.", minimum=1, maximum=16
    )
    memory_bytes: int = setting(
        4 * 1024**3,
        "Most memory of a process that scans, and never more than its part of what the machine or the pod has. One "
        "that judges dependencies or images holds about 3 KiB for each advisory.",
        unit="bytes",
        minimum=512 * 1024**2,
    )
    registry_config: str = setting(
        "", "A file of registries' credentials as `docker login` writes it (`config.json`, `auths`)."
    )

    def below(self, folder: Path, fields: Collection[str]) -> "ScanningSettings":
        """The same with the paths of these fields below `folder`, where they aren't whole."""
        placed: dict[str, Any] = {
            "advisories": tuple(below(folder, name) for name in self.advisories),
            "waivers": below(folder, self.waivers),
            "registry_config": below(folder, self.registry_config),
        }
        return replace(self, **{name: value for name, value in placed.items() if name in fields})

    def wanted(self) -> tuple[Scanner, ...]:
        """The scanners that are named; raises `SettingsError` for one that isn't there."""
        if unknown := sorted(set(self.scanners) - set(SCANNERS)):
            known = ", ".join(SCANNERS)
            raise SettingsError(
                [f"scanning: scanners: there is no scanner {name!r}; known: {known}" for name in unknown]
            )
        return tuple(name for name in SCANNERS if name in self.scanners)


def below(folder: Path, name: str) -> str:
    """The path below `folder` that `name` says; a whole path and an address are themselves, and so is nothing."""
    return name if not name or name.startswith(ADDRESSES) else str(folder / name)
