"""The page of events, from the catalogue of facts and the types of their data."""

import typing

import msgspec

from chimera.events.catalogue import FACTS
from chimera.events.cloudevents import TYPE_PREFIX, schema_name
from docs.generator.tables import code, head, table


def page() -> str:
    """The whole page."""
    rows = [
        (
            code(TYPE_PREFIX + one.name),
            one.doc,
            code(one.subject),
            f"[{one.data.__name__}](#{one.data.__name__.lower()})",
        )
        for one in FACTS.values()
    ]
    parts = [head("Events"), _INTRODUCTION, table(("type", "meaning", "subject", "data"), rows), "## Data\n"]
    for kind in dict.fromkeys(one.data for one in FACTS.values()):
        parts.append(f"### {kind.__name__}\n\n{kind.__doc__}\n")
        hints = typing.get_type_hints(kind)
        parts.append(
            table(("field", "type", ""), [_field(one, hints[one.name]) for one in msgspec.structs.fields(kind)])
        )
    return "\n".join(parts)


def _field(one: msgspec.structs.FieldInfo, hint: typing.Any) -> tuple[str, str, str]:
    optional = one.default is not msgspec.NODEFAULT
    return code(one.name), _kind(hint), "may be absent or null" if optional and one.default is None else ""


def _kind(hint: typing.Any) -> str:
    options = [option for option in typing.get_args(hint) if option not in (type(None), Ellipsis)]
    if typing.get_origin(hint) is tuple:
        return f"list of {_kind(options[0])}"
    if options:
        return _kind(options[0])
    return {str: "text", int: "whole number", float: "number"}.get(hint, str(hint))


_INTRODUCTION = f"""\
Every kind of fact that is told as a CloudEvent ([guide](../guides/events.md)). `GET /v1/event-types` serves the same
with the JSON Schema of each type's data; `dataschema` of an event names it: `{schema_name("task.failed")}`. Fields may
be added to a type; none is removed, renamed or given another meaning.
"""
