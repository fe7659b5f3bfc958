"""What doesn't fit between a definition and the ecosystem."""

from typing import Literal

from msgspec import Struct

Code = Literal[
    "owned",
    "look-alike",
    "unknown-agent",
    "not-reachable",
    "leaving",
    "still-needed",
    "circle",
    "capability",
    "mcp-server",
    "event-type",
    "unknown-model",
]


class Misfit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that doesn't fit. What is `blocking` can't work; the rest may be meant, and a person says so.

    `path` is the field of the agent's definition, empty for the agent as a whole.
    """

    agent: str
    code: Code
    detail: str
    next_step: str
    path: str = ""
    blocking: bool = False
