"""The groups of JAEGIS' settings, each declared beside the component that it is of."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from chimera.jaegis.creator.settings import CreatorSettings
from chimera.jaegis.quality.criteria import CRITERIA
from chimera.jaegis.quality.settings import QualitySettings
from chimera.kernel.settings import SettingsError, load_group


@dataclass(frozen=True, kw_only=True, slots=True)
class JaegisSettings:
    """All groups."""

    quality: QualitySettings = field(default_factory=QualitySettings)
    creator: CreatorSettings = field(default_factory=CreatorSettings)


def jaegis_groups() -> dict[str, type]:
    """Every group of JAEGIS' settings by its name in the file."""
    return get_type_hints(JaegisSettings)


def load_jaegis(values: Mapping[str, Mapping[str, Any]], *, where: str = "") -> JaegisSettings:
    """The groups from what is set; raises `SettingsError` with all that is wrong."""
    groups = jaegis_groups()
    made: dict[str, Any] = {
        one.name: load_group(groups[one.name], values.get(one.name, {}), where=where + one.name)
        for one in fields(JaegisSettings)
    }
    found = JaegisSettings(**made)
    if unknown := sorted(set(found.quality.required) - CRITERIA.keys()):
        known = ", ".join(CRITERIA)
        raise SettingsError([f"{where}quality: required: there is no criterion {unknown[0]!r}; known: {known}"])
    return found
