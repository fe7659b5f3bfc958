"""An Agent's spec as a definition: with the resource's name, and laid over the template of its namespace, if any.

The operator and whoever judges a resource before it is stored compose it alike.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from chimera.agents.template_library import extend_with, template_names

Json = dict[str, Any]
_encode = msgspec.json.Encoder(order="sorted").encode


def compose(spec: Json, name: str, templates: Mapping[str, Json]) -> Json:
    """The definition in `spec` of the Agent `name`; `templates` are those of its namespace."""
    metadata = spec.get("metadata")
    if isinstance(metadata, dict):
        spec = {**spec, "metadata": {"name": name, **metadata}}
    extends = spec.get("extends")
    if not isinstance(extends, str) or extends not in templates or name_is_taken(extends):
        return spec
    laid = extend_with(templates[extends], spec)
    # The release's own templates are looked up by this field.
    del laid["extends"]
    return laid


def name_is_taken(template: str) -> bool:
    """Whether the release has a template of this name, which goes before a resource's."""
    return template in template_names()


def digest_of(spec: bytes, name: str, templates: Mapping[str, Json]) -> str:
    """What tells a definition that was applied from one that wasn't: all that `compose` makes it from."""
    data = msgspec.json.decode(spec)
    extends = data.get("extends") if isinstance(data, dict) else None
    template = templates.get(extends) if isinstance(extends, str) else None
    return hashlib.sha256(_encode([data, name, template])).hexdigest()
