"""What an agent is told of an event that starts it: a template whose fields are the event's; pure.

    {type} {source} {subject} {id} {time} {tenant}    attributes; empty where the event has none
    {data}                                            the data, as JSON or as the text that it is
    {data.order.state}                                a part of JSON data by its path; numbers count lists from 0

Nothing else in braces is touched, so that JSON can stand in a template. What comes from the event is put in once and
not looked at again: braces in it stay braces.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

FIELDS = ("type", "source", "subject", "id", "time", "tenant", "data")
DEFAULT = "An event has happened.\ntype: {type}\nsource: {source}\nsubject: {subject}\ndata: {data}"

_FIELD = re.compile(r"\{([a-z][a-z0-9]*)((?:\.[A-Za-z0-9_-]+)*)\}")


def unknown_fields(template: str) -> list[str]:
    """What stands in braces as a field does, and is none."""
    return [
        found.group()[1:-1]
        for found in _FIELD.finditer(template)
        if found[1] not in FIELDS or (found[2] and found[1] != "data")
    ]


def filled(template: str, attributes: Mapping[str, str], data: Any) -> str:
    """The template with the event's attributes and data, which was decoded where it is JSON."""

    def value(found: "re.Match[str]") -> str:
        name, path = found[1], found[2]
        if name == "data":
            return text_of(at(data, path[1:])) if path else text_of(data)
        return attributes.get(name, "") if name in FIELDS and not path else found.group()

    return _FIELD.sub(value, template)


def at(data: Any, path: str) -> Any:
    """The part of decoded JSON at a path with dots; None where there is nothing."""
    for name in path.split("."):
        if isinstance(data, Mapping):
            data = data.get(name)
        elif isinstance(data, list) and name.isascii() and name.isdigit() and len(name) < 10 and int(name) < len(data):
            data = data[int(name)]
        else:
            return None
    return data


def text_of(value: Any) -> str:
    """A value as the agent reads it: texts as they are, anything else as JSON, nothing as nothing."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
