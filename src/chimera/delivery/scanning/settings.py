"""Settings of security scanning."""

from dataclasses import dataclass
from typing import Literal

from chimera.kernel.settings import setting


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
    registry_config: str = setting(
        "", "A file of registries' credentials as `docker login` writes it (`config.json`, `auths`)."
    )
