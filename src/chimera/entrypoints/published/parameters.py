"""What the values of parameters may be, as JSON Schema: the OpenAPI document says it, the handlers hold it.

A document that says only "a text" or "a number" is true of nothing that is refused, so callers and tools that make
requests of it learn the bounds by failing.
"""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]
Parameter = tuple[str, "str | Schema", str]
"""Its name, its JSON type or what its value may be, and what it means."""

LARGEST_PAGE = 1_000
DEFAULT_PAGE = 100
SMALLEST_INTEGER, LARGEST_INTEGER = 0, 10**18 - 1

_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


def whole(least: int, most: int = LARGEST_INTEGER, default: int | None = None) -> Schema:
    """A whole number within these bounds; `default` is taken where it isn't given."""
    found: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": most}
    return found if default is None else {**found, "default": default}


def number(least: float, most: float) -> Schema:
    """A number within these bounds."""
    return {"type": "number", "minimum": least, "maximum": most}


def text(most: int, pattern: str | None = None) -> Schema:
    """A text of so many characters at most, which matches."""
    found: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": most}
    return found if pattern is None else {**found, "pattern": pattern}


def one_of(*values: str) -> Schema:
    """One of these texts."""
    return {"type": "string", "enum": list(values)}


LATEST = 253_402_300_799
"""The last second of the year 9999, since the epoch."""
TIME = number(0, LATEST)
"""Seconds since the epoch."""
SUBJECT = text(200)
SESSION = text(128, "^[A-Za-z0-9][A-Za-z0-9._:-]*$")
KEY = text(255, r"^[\x21-\x7e]+$")
HEADER_KEY = "Idempotency-Key"


def page(of: str) -> tuple[Parameter, ...]:
    """The parameters of a list of `of`, in pages."""
    return (
        ("after", "string", "the `next` of the page before"),
        ("limit", whole(1, LARGEST_PAGE, DEFAULT_PAGE), f"most {of} in the page"),
    )


PATHS: Mapping[str, Schema] = {
    "tenant": text(63, rf"^({_LABEL}|\*)$"),
    "agent": text(63, f"^{_LABEL}$"),
    "session": SESSION,
    "subject": SUBJECT,
    "entry": whole(1),
}
"""By the name in a path's braces; any other stands for a text that isn't empty."""
