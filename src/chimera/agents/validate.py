"""From a text to a checked definition; in the bad case, to every fault at once, each with its place.

The good case is one fast parse, one conversion, the schema's yes and the rules: no positions. When anything is wrong
the text is read again with positions, and the schema and the rules both report all they find. The conversion and the
schema accept the same data but for a few corners of Python's patterns (`$` also matches before a final line break),
where the schema, which costs microseconds, has the last word (a property test holds them to each other).
"""

import copy
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from chimera.agents import semantics, yaml
from chimera.agents.code import missing_code
from chimera.agents.errors import Fault, InvalidDefinition
from chimera.agents.merge import merge
from chimera.agents.schema import Place, allows, violations
from chimera.agents.spec import SCHEMA_VERSION, Definition
from chimera.agents.template_library import extend

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A definition that passed, with its template merged in, and what it is warned of."""

    definition: Definition
    warnings: tuple[Fault, ...] = ()


def check_text(
    text: str, *, file: str | None = None, first_line: int = 0, files: Sequence[str] | None = None
) -> Checked:
    """Check one YAML document; `first_line` counts the lines before it in `file`.

    `files` are the paths in its source folder, where that is at hand: then what it names must be among them.

    Raises `UnreadableText` for a text that isn't YAML, `InvalidDefinition` with every fault otherwise.
    """
    data = yaml.load(text, file=file)
    try:
        return check_data(data, file=file, files=files)
    except InvalidDefinition as error:
        positions = yaml.load_with_positions(text, file=file)[1]
        placed = [_placed(fault, positions, file, first_line) for fault in error.faults]
        raise InvalidDefinition(sorted(placed, key=lambda fault: (fault.line or 0, fault.column or 0))) from None


def check_data(data: Any, *, file: str | None = None, files: Sequence[str] | None = None) -> Checked:
    """Check a definition that is data already (JSON); faults carry paths, and no lines."""
    if not isinstance(data, dict):
        raise InvalidDefinition(
            [Fault(message="a definition is a mapping", file=file, allowed="schema_version, metadata, …")]
        )
    merged = extend(data)
    try:
        definition = msgspec.convert(merged, Definition, strict=True)
    except msgspec.ValidationError as error:
        raise _all_faults(merged, file, str(error)) from None
    if not allows(merged):
        raise _all_faults(merged, file, "the schema refuses it")
    faults = semantics.check(definition)
    if files is not None:
        faults += missing_code(definition, files)
    if errors := _errors(faults, file):
        raise InvalidDefinition(errors)
    return Checked(definition=definition, warnings=tuple(faults))


def _all_faults(merged: dict[str, Any], file: str | None, message: str) -> InvalidDefinition:
    """What the schema and the rules find; `message` if they find nothing, since something was wrong."""
    found = list(violations(merged))
    faults = [msgspec.structs.replace(one.fault, path=path_text(one.place), file=file) for one in found]
    # A part that lacks a field is judged without it, where the stand-in has one.
    judged = {one.place for one in found if one.lacking and one.place in _FILLED}
    faults += _rules_on_the_rest(merged, [one.place for one in found if one.place not in judged], file)
    return InvalidDefinition(faults or [Fault(message=message, file=file)])


def _errors(faults: list[Fault], file: str | None) -> list[Fault]:
    return [msgspec.structs.replace(fault, file=file) for fault in faults if fault.severity == "error"]


def _rules_on_the_rest(merged: dict[str, Any], places: list[Place], file: str | None) -> list[Fault]:
    """Faults that the rules find once what breaks the schema is left out, so that they needn't wait for its repair.

    What is left out must not make other parts look wrong: without its tools a behaviour isn't judged either.
    """
    rest = copy.deepcopy(merged)
    bad = {str(place[0]) for place in places if place}
    sections = {name for name in bad if any(place[0] == name and _crosses_list(place) for place in places if place)}
    sections |= {"behaviour"} if sections & {"tools", "behaviour"} or "tools" in bad else set()
    for name in sections:
        rest.pop(name, None)
    for *before, last in sorted(filter(None, places), key=len, reverse=True):
        parent: Any = rest
        for part in before:
            parent = parent.get(part) if isinstance(parent, dict) else None
        if isinstance(parent, dict) and isinstance(last, str):
            parent.pop(last, None)
    behaviour = rest.get("behaviour")
    section = next(iter(behaviour), "") if isinstance(behaviour, dict) else ""
    filled = merge({**_STAND_IN, "specification": {"framework": _FRAMEWORKS.get(section, "function")}}, rest)
    try:
        found = _errors(semantics.check(msgspec.convert(filled, Definition, strict=True)), file)
    except msgspec.ValidationError:
        return []
    # A point may name a tool that was left out.
    hidden = ("capabilities.integration_points",) if "tools" in bad else ()
    return [fault for fault in found if not fault.path.startswith(hidden)] if hidden else found


_STAND_IN: dict[str, Any] = {
    "schema_version": SCHEMA_VERSION,
    "metadata": {"name": "stand-in", "version": "0.0.0", "description": "?"},
    "capabilities": {"primary_functions": ["?"]},
}
_FILLED = {(), ("metadata",), ("specification",), ("capabilities",)}
_FRAMEWORKS = {"autogen": "AutoGen", "crewai": "CrewAI", "langgraph": "LangGraph"}


def _crosses_list(place: Place) -> bool:
    return any(isinstance(part, int) for part in place)


def path_text(place: Place) -> str:
    """`("tools", 0, "name")` as `tools[0].name`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text


def place_of(path: str) -> Place:
    """`tools[0].name` as `("tools", 0, "name")`."""
    return tuple(int(number) if number else name for name, number in _STEP.findall(path))


def _placed(fault: Fault, positions: yaml.Positions, file: str | None, first_line: int) -> Fault:
    place = place_of(fault.path)
    # A field that the template gave, or one that is missing, has no place: its nearest parent in the text has.
    while place and place not in positions:
        place = place[:-1]
    line, column = positions.get(place, (1, 1))
    return msgspec.structs.replace(fault, file=file, line=line + first_line, column=column)
