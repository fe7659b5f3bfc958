"""Holding a tool's arguments to its JSON Schema before the tool runs.

The errors name every fault at once, each with its place, and never repeat a value: values come from prompts, and errors
end up in logs. A schema may come from an MCP server, so nothing in it is fetched and its patterns may not run for long.

jsonschema-rs is chosen for what it costs: importing it takes 7 ms and 3 MB, compiling a schema 11 µs, checking 0.5 µs;
`jsonschema` takes 130 ms to import and 100 times longer to check.
"""

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from chimera_host.broker.rules import did_you_mean
from chimera_host.errors import AgentLoadError, ToolRefused

MOST_FAULTS = 8
_MASK = "the value"
_BACKTRACKS = 100_000


class ArgumentCheck:
    """A compiled schema of one tool's arguments."""

    __slots__ = ("_properties", "_tool", "_validator", "schema")

    def __init__(self, tool: str, schema: Mapping[str, Any]) -> None:
        """Compile `schema`, which must describe an object."""
        self.schema = dict(schema)
        self._tool = tool
        properties = schema.get("properties")
        self._properties = tuple(properties) if isinstance(properties, dict) else ()
        if schema.get("type") != "object":
            raise AgentLoadError(
                f"the parameters of tool {tool!r} are not those of an object",
                next_step="give the schema `type: object`, with each parameter under `properties`",
            )
        try:
            self._validator = jsonschema_rs.validator_for(
                self.schema,
                mask=_MASK,
                offline=True,
                pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS),
            )
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            reason = str(getattr(error, "message", error)).partition("\n")[0][:300]
            raise AgentLoadError(
                f"the parameters of tool {tool!r} are no JSON Schema: {reason}",
                next_step="mend the schema where the tool declares it",
            ) from error

    def check(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, if they are what the schema asks for; else a refusal that names each fault."""
        given = dict(arguments)
        try:
            if self._validator.is_valid(given):
                return given
            faults = [self._explain(error) for error in self._validator.iter_errors(given)]
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ToolRefused(
                f"the arguments of tool {self._tool!r} are not JSON data ({type(error).__name__})",
                next_step="pass only texts, numbers, booleans, null, lists and objects",
            ) from None
        more = f"; and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        raise ToolRefused(
            f"the arguments of tool {self._tool!r} are wrong: {'; '.join(faults[:MOST_FAULTS])}{more}",
            next_step="call it again with arguments that follow its schema",
        )

    def _explain(self, error: jsonschema_rs.ValidationError) -> str:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
        place = place.removeprefix(".")[:100]
        message = error.message
        kind = error.kind
        if isinstance(kind, jsonschema_rs.ValidationErrorKind.AdditionalProperties):
            unknown = [str(name)[:100] for name in kind.unexpected]
            hint = did_you_mean(unknown[0], self._properties) if not place and unknown else ""
            message = f"no parameter is called {', '.join(map(repr, unknown[:5]))}{hint.rstrip('?')}"
        elif isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
            message = f"{kind.property!r} is missing"
        return f"{place}: {message[:300]}" if place else message[:300]
