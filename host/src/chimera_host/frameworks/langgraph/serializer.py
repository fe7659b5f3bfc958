"""LangGraph's serializer for checkpoints, told to make nothing from stored bytes but what a graph says is its own.

There is no pickle. `LANGGRAPH_STRICT_MSGPACK` (set in `chimera_host.frameworks.langgraph`) lets it make standard types,
messages, and the types that the graph's schemas name; of another LangGraph would quietly make a dictionary. A node that
was promised an object would fail on that, or worse, wouldn't, so here it is an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langgraph.checkpoint.serde.event_hooks import register_serde_event_listener
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from chimera_host.errors import AgentFailed

_REFUSED = frozenset({"msgpack_blocked", "msgpack_method_blocked"})
_refused: ContextVar[list[str] | None] = ContextVar("refused", default=None)


class Unreadable(AgentFailed):
    """A checkpoint holds what this revision of the agent can't make again."""


class Serializer(JsonPlusSerializer):  # type: ignore[misc]  # the environment of types has no langgraph
    """As LangGraph's, strict, and an error where something can't be kept or made again."""

    def __init__(self) -> None:
        """Without pickle, and with no type but the standard ones."""
        super().__init__(pickle_fallback=False, allowed_json_modules=None, allowed_msgpack_modules=None)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """The kind and the bytes of a value."""
        try:
            kind, data = super().dumps_typed(obj)
        except (TypeError, ValueError) as error:  # ormsgpack's error is a TypeError
            raise AgentFailed(
                f"the graph's state can't be kept: {error}",
                next_step="keep plain values, messages, dataclasses or pydantic models in the state, or compile the "
                "graph with `checkpointer=False`, so that its calls begin anew where they are interrupted",
            ) from error
        return kind, data

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value, made again."""
        with _watched() as refused:
            value = super().loads_typed(data)
        if refused:
            raise Unreadable(
                f"the graph's kept state holds {', '.join(sorted(set(refused)))}, which no schema of the graph names",
                next_step="name the type in the schema of the graph's state",
            )
        return value


@contextmanager
def _watched() -> Iterator[list[str]]:
    refused: list[str] = []
    token = _refused.set(refused)
    try:
        yield refused
    finally:
        _refused.reset(token)


def _heard(event: Any) -> None:
    refused = _refused.get()
    if refused is not None and event["kind"] in _REFUSED:
        refused.append(f"{event['module']}.{event['name']}")


register_serde_event_listener(_heard)
