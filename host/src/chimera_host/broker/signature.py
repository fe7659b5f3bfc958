"""What a model must know of a Python function, read from the function: its parameters' JSON Schema and its description.

    def convert(amount: float, currency: Literal["EUR", "USD"] = "EUR") -> str:
        '''Convert an amount to Swiss francs. …'''

becomes the description "Convert an amount to Swiss francs." and a schema of two parameters, each with its text from the
docstring's Google-style section of arguments. Types are msgspec's: everything JSON has, plus dates, enumerations,
dataclasses, `TypedDict`, `Literal`, `Annotated` with `msgspec.Meta`. The call then gets real values of these types, not
bare JSON. A parameter without a type takes anything.
"""

import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from chimera_host.broker.context import ToolContext
from chimera_host.errors import AgentLoadError, ToolRefused

_DEFINITIONS = "#/$defs/"
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns?|Raises|Yields?|Examples?|Notes?)\s*:\s*$")
_PARAMETER = re.compile(r"^\**(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)$")


class Signature(Struct, frozen=True, kw_only=True):
    """A function as a tool: `convert` makes a call's keyword arguments of the checked JSON."""

    description: str
    parameters: dict[str, Any]
    convert: Callable[[dict[str, Any]], dict[str, Any]]
    context: str | None


def read(
    tool: str, function: Callable[..., Any], *, description: str | None, parameters: Mapping[str, Any] | None
) -> Signature:
    """The signature of `function`; what the definition declares stands above what the function says.

    With declared `parameters` the function gets the JSON as it is.
    """
    hints = _hints(tool, function)
    taken = list(_taken(tool, function, hints))
    context = next((name for name, hint, _ in taken if _is_context(hint)), None)
    summary, texts = parse_docstring(inspect.getdoc(function) or "")
    told = description or summary or f"The function {getattr(function, '__name__', tool)}."
    if parameters is not None:
        return Signature(description=told, parameters=dict(parameters), convert=_as_given, context=context)
    fields = [
        (name, _described(hint, texts.get(name)), *_default(default))
        for name, hint, default in taken
        if name != context
    ]
    struct = _struct(tool, fields)
    return Signature(
        description=told, parameters=_schema(tool, struct), convert=_converter(tool, struct), context=context
    )


def parse_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The description (all before the first section) and the texts of parameters, of a Google-style docstring."""
    before: list[str] = []
    found: dict[str, str] = {}
    section: str | None = None
    current: str | None = None
    indent = 0
    for line in text.expandtabs(4).splitlines():
        stripped = line.strip()
        if (heading := _SECTION.match(stripped)) and not line.startswith(" "):
            section, current, indent = heading[1], None, 0
        elif section is None:
            before.append(line.rstrip())
        elif section in ("Args", "Arguments", "Parameters") and stripped:
            depth = len(line) - len(line.lstrip())
            indent = indent or depth
            if depth <= indent and (match := _PARAMETER.match(stripped)):
                current = match[1]
                found[current] = match[2]
            elif current is not None:
                found[current] = f"{found[current]} {stripped}".strip()
    return "\n".join(before).strip(), found


def _hints(tool: str, function: Callable[..., Any]) -> dict[str, Any]:
    target = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
    try:
        return typing.get_type_hints(inspect.unwrap(target), include_extras=True)
    except Exception as error:
        raise AgentLoadError(
            f"the types of the function behind tool {tool!r} can't be read: {type(error).__name__}: {error}",
            next_step="import what its annotations name at the module's top level",
        ) from error


def _taken(tool: str, function: Callable[..., Any], hints: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, type and default of each parameter that can be passed by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise AgentLoadError(
            f"the signature of the function behind tool {tool!r} can't be read: {error}",
            next_step="wrap it in a Python function with named parameters",
        ) from error
    for one in parameters:
        if one.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise AgentLoadError(
                f"the function behind tool {tool!r} takes {one.name!r} by position only",
                next_step="tools are called by name: remove the `/`",
            )
        if one.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        yield one.name, hints.get(one.name, Any), one.default


def _is_context(hint: Any) -> bool:
    return hint is ToolContext or ToolContext in typing.get_args(hint)


def _described(hint: Any, text: str | None) -> Any:
    return Annotated[hint, Meta(description=text)] if text else hint


def _default(value: Any) -> tuple[Any, ...]:
    """A parameter's default as msgspec takes it: it is shown, or only makes the parameter optional.

    The call leaves out what wasn't given, so that the function applies its own default.
    """
    if value is inspect.Parameter.empty:
        return ()
    if value is None or isinstance(value, (str, int, float, bool)):
        return (value,)
    return (msgspec.field(default_factory=lambda: value),)


def _struct(tool: str, fields: list[Any]) -> type[Struct]:
    try:
        return msgspec.defstruct("arguments", fields, kw_only=True, forbid_unknown_fields=True)
    except (TypeError, ValueError) as error:
        raise _untypable(tool, error) from error


def _schema(tool: str, struct: type[Struct]) -> dict[str, Any]:
    try:
        (reference,), named = msgspec.json.schema_components([struct], ref_template=_DEFINITIONS + "{name}")
    except (TypeError, ValueError) as error:
        raise _untypable(tool, error) from error
    # The parameters themselves stand at the top; only types that they use stay among the definitions.
    top = named.pop(reference["$ref"].removeprefix(_DEFINITIONS))
    schema = {"type": "object", "properties": top["properties"], "additionalProperties": False}
    if top.get("required"):
        schema["required"] = top["required"]
    return {**schema, "$defs": named} if named else schema


def _untypable(tool: str, error: Exception) -> AgentLoadError:
    return AgentLoadError(
        f"the parameters of the function behind tool {tool!r} have no JSON form: {error}",
        next_step="give them types that JSON can hold, or declare the tool's `parameters` in the definition",
    )


def _converter(tool: str, struct: type[Struct]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def convert(arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            made = msgspec.convert(arguments, struct)
        except msgspec.ValidationError as error:  # what a schema can't say, such as the range of a date
            raise ToolRefused(
                f"the arguments of tool {tool!r} are wrong: {str(error)[:300]}",
                next_step="call it again with arguments that follow its schema",
            ) from None
        return {name: getattr(made, name) for name in arguments}

    return convert


def _as_given(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments
