"""Filling `{name}` in a text of a definition: plain replacement of known names, everything else stays as it is."""

import re
from collections.abc import Mapping

_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_-]{0,62})\}")


def fill(text: str, values: Mapping[str, str]) -> str:
    """`text` with each `{name}` of `values` replaced, once: what is put in is not looked at again."""
    if "{" not in text:
        return text
    return _NAME.sub(lambda match: values.get(match[1], match[0]), text)
