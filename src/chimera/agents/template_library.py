"""The templates that a definition may extend: behaviours for the common cases of each framework.

A template is a partial definition in `templates/<name>.yaml`. In its texts `{description}` and `{functions}` stand
for the agent's own description and primary functions, so that the same crew or graph serves any subject.
"""

import difflib
import importlib.resources
from collections.abc import Mapping
from functools import cache
from typing import Any

from chimera.agents import yaml
from chimera.agents.errors import Fault, InvalidDefinition
from chimera.agents.merge import merge


@cache
def template_names() -> tuple[str, ...]:
    """All templates, sorted."""
    folder = importlib.resources.files("chimera.agents") / "templates"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


@cache
def template(name: str) -> Mapping[str, Any]:
    """A template as data; raises `InvalidDefinition` for a name that isn't there."""
    if name not in template_names():
        near = difflib.get_close_matches(name, template_names(), n=1)
        raise InvalidDefinition(
            [
                Fault(
                    path="extends",
                    message=f"there is no template {name!r}",
                    allowed=", ".join(template_names()),
                    suggestion=near[0] if near else None,
                )
            ]
        )
    entry = importlib.resources.files("chimera.agents") / "templates" / f"{name}.yaml"
    data = yaml.load(entry.read_text(encoding="utf-8"), file=entry.name)
    assert isinstance(data, dict)
    return data


def extend(data: dict[str, Any]) -> dict[str, Any]:
    """`data` laid over the template that it extends, with the template's places filled in; else `data` itself."""
    name = data.get("extends")
    if not isinstance(name, str):
        return data
    return extend_with(template(name), data)


def extend_with(under: Mapping[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """`data` laid over the template `under`."""
    metadata, capabilities = data.get("metadata"), data.get("capabilities")
    description = metadata.get("description") if isinstance(metadata, dict) else None
    functions = capabilities.get("primary_functions") if isinstance(capabilities, dict) else None
    filled = _fill(
        under,
        {
            "{description}": str(description or "").strip(),
            "{functions}": ", ".join(map(str, functions)) if isinstance(functions, list) else "",
        },
    )
    return merge(filled, data)


def _fill(value: Any, places: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for place, text in places.items():
            value = value.replace(place, text)
        return value
    if isinstance(value, list):
        return [_fill(item, places) for item in value]
    if isinstance(value, Mapping):
        return {key: _fill(item, places) for key, item in value.items()}
    return value
