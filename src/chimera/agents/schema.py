"""The JSON Schema of ADaC v2.0, made from the types, and the checks that find every violation of it.

`python -m chimera.agents.schema --write schemas` writes the published file; a test holds it equal to the types.
An editor uses it by a first line `# yaml-language-server: $schema=…/adac-v2.0.schema.json`.
"""

import argparse
import copy
import difflib
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import msgspec

from chimera.agents.descriptions import FIELDS
from chimera.agents.errors import Fault
from chimera.agents.spec import Definition

SCHEMA_ID = "urn:chimera:schema:adac-v2.0"
FILE_NAME = "adac-v2.0.schema.json"


def definition_schema() -> dict[str, Any]:
    """The schema as JSON data (draft 2020-12), for editors: of a definition as its author writes it."""
    schema = _typed_schema()
    components: dict[str, Any] = copy.deepcopy(schema["$defs"])
    # A template may give the framework, so the file itself need not; the types see it with its template merged in.
    components["Definition"]["required"].remove("specification")
    components["Specification"]["required"].remove("framework")
    with_framework = {"required": ["specification"], "properties": {"specification": {"required": ["framework"]}}}
    return {**schema, "if": {"required": ["extends"]}, "else": with_framework, "$defs": components}


Place = tuple[str | int, ...]


class Violation(NamedTuple):
    """The path of the value at fault, and what is wrong; `lacking` where the value is a mapping without a field."""

    place: Place
    fault: Fault
    lacking: bool = False


@cache
def _typed_schema() -> dict[str, Any]:
    """The schema of a definition with its template merged in: what the types accept, no more and no less."""
    (root,), components = msgspec.json.schema_components([Definition], ref_template="#/$defs/{name}")
    for name, component in components.items():
        component["description"] = inspect.cleandoc(component["description"])
        for field, text in FIELDS.get(name, {}).items():
            component["properties"][field]["description"] = text
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Agent Definition as Code, ADaC v2.0",
        **root,
        "$defs": components,
    }


@cache
def _validator(name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": _typed_schema()["$defs"]})


def allows(data: Any) -> bool:
    """Whether the schema allows `data`, a definition with its template merged in; takes microseconds."""
    return _validator("Definition").is_valid(data)


def violations(data: Any, name: str = "Definition") -> Iterator[Violation]:
    """Every violation of the type `name` of the schema in `data`."""
    for error in _validator(name).iter_errors(data):
        yield from _explain(data, error)


def _explain(data: Any, error: jsonschema_rs.ValidationError) -> Iterator[Violation]:
    path = tuple(error.instance_path)
    schema_path = [str(part) for part in error.schema_path]
    keyword = schema_path[-1] if schema_path else ""
    rule = _at(_typed_schema(), schema_path)
    value = _at(data, path)
    if keyword == "anyOf" and isinstance(rule, list):
        option = _chosen(rule, value)
        if isinstance(option, str):
            for inner in violations(value, option):
                yield inner._replace(place=(*path, *inner.place))
        else:
            yield Violation(path, option)
        return
    if keyword == "additionalProperties" and isinstance(value, dict):
        known = list(_at(_typed_schema(), [*schema_path[:-1], "properties"]) or {})
        for name in value:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                yield Violation(
                    (*path, name),
                    Fault(
                        message=f"unknown field {name!r}",
                        allowed=", ".join(known),
                        suggestion=near[0] if near else None,
                    ),
                )
        return
    if keyword == "required" and isinstance(value, dict):
        # The validator names one missing field an error; the rule is the whole list.
        missing = str(error.message).split('"')[1] if '"' in str(error.message) else str(error.message)
        required = f"required: {', '.join(map(str, rule or []))}"
        yield Violation(path, Fault(message=f"the field {missing!r} is missing", allowed=required), lacking=True)
        return
    holder = _at(_typed_schema(), schema_path[:-1])
    yield Violation(path, _describe(keyword, rule, value, str(error.message), holder))


def _chosen(rule: list[Any], value: Any) -> str | Fault:
    # Of a union, the alternative that the value's `type` names; of an optional field, the one that isn't null.
    names = [str(option["$ref"]).rpartition("/")[2] for option in rule if isinstance(option, dict) and "$ref" in option]
    if len(names) == 1 and isinstance(value, dict):
        return names[0]
    tags = {
        tag: name
        for name in names
        for tag in _typed_schema()["$defs"][name]["properties"].get("type", {}).get("enum", ())
    }
    if tags and isinstance(value, dict):
        kind = value.get("type")
        if isinstance(kind, str) and kind in tags:
            return tags[kind]
        near = difflib.get_close_matches(str(kind), tags, n=1)
        message = "the field 'type' is missing" if kind is None else f"the type {kind!r} is not known"[:200]
        return Fault(message=message, allowed=", ".join(tags), suggestion=near[0] if near else None)
    if tags:
        return Fault(message=f"{_shown(value)} has the wrong type", allowed=f"a mapping with type: {' | '.join(tags)}")
    plain = [option for option in rule if isinstance(option, dict) and option.get("type") not in (None, "null")]
    if len(plain) == 1 and not names:
        error = next(jsonschema_rs.Draft202012Validator(plain[0]).iter_errors(value), None)
        if error is not None and not error.instance_path:
            keyword = str(error.schema_path[-1])
            return _describe(keyword, plain[0].get(keyword), value, str(error.message), plain[0])
    options = ", ".join([*("a mapping" for _ in names), *(str(option["type"]) for option in plain)])
    return Fault(message=f"{_shown(value)} has the wrong type", allowed=options)


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:80]


def _describe(keyword: str, rule: Any, value: Any, message: str, holder: Any) -> Fault:
    shown = _shown(value)
    if keyword in ("enum", "const"):
        options = [str(option) for option in (rule if isinstance(rule, list) else [rule])]
        near = difflib.get_close_matches(str(value), options, n=1, cutoff=0.5)
        return Fault(
            message=f"{shown} is not allowed", allowed=", ".join(options), suggestion=near[0] if near else None
        )
    if keyword == "type":
        # YAML reads 1.0 and true as a number and a truth value, where text was meant.
        meant = f', such as "{shown}"' if rule == "string" and isinstance(value, (int, float)) else ""
        return Fault(message=f"{shown} has the wrong type", allowed=f"{rule}{meant}")
    if keyword == "pattern":
        return Fault(message=f"{shown} doesn't have the right form", allowed=_form(rule, holder))
    limits = {
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "minItems": "at least {} entries",
        "maxItems": "at most {} entries",
        "minimum": "{} or more",
        "maximum": "{} or less",
        "exclusiveMinimum": "more than {}",
        "exclusiveMaximum": "less than {}",
    }
    if keyword in limits:
        return Fault(message=f"{shown} is out of bounds", allowed=limits[keyword].format(rule))
    return Fault(message=message[:300])


def _form(pattern: Any, holder: Any) -> str:
    """The form of a text in words: examples say it better than a pattern."""
    examples = holder.get("examples") if isinstance(holder, dict) else None
    return f"such as {', '.join(map(str, examples))}" if examples else f"the pattern {pattern}"


def _at(data: Any, path: Any) -> Any:
    for part in path:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and str(part).isdigit() and int(part) < len(data):
            data = data[int(part)]
        else:
            return None
    return data


def main() -> int:
    """Write the schema's file, or say whether it is what the types say."""
    parser = argparse.ArgumentParser(prog="python -m chimera.agents.schema", description=main.__doc__)
    parser.add_argument("--write", metavar="FOLDER", type=Path, help="write the file into this folder")
    options = parser.parse_args()
    text = msgspec.json.format(msgspec.json.encode(definition_schema(), order="sorted"), indent=2).decode() + "\n"
    if options.write is None:
        sys.stdout.write(text)
        return 0
    (options.write / FILE_NAME).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
