"""How a definition extends a template: one rule for every field.

Mappings are merged key by key, the definition's side winning; lists and plain values are replaced whole, and a value
of null takes a field of the template away. So a result can be read off both texts without knowing any type.
"""

from collections.abc import Mapping
from typing import Any


def merge(template: Mapping[str, Any], definition: Mapping[str, Any]) -> dict[str, Any]:
    """The definition laid over the template; neither is changed."""
    merged = dict(template)
    for key, value in definition.items():
        below = merged.get(key)
        if value is None:
            merged.pop(key, None)
        elif isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged
