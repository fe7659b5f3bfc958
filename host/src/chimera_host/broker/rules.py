"""The broker's rules that need nothing but values: which tool a name means, how long it may take, how much it may say.

Each rule returns what is allowed or raises the refusal in words that help both a person and the model that called the
tool, since a framework hands a tool's error to its model.
"""

import difflib
from collections.abc import Collection, Mapping
from typing import TypeVar

from msgspec import Struct

from chimera_host.contract.tools import ToolLimits
from chimera_host.errors import ToolFailed, ToolRefused

T = TypeVar("T")
MAX_TOOL_NAME = 64
"""What OpenAI's API and most servers that follow it take as the name of a function."""


class Deadline(Struct, frozen=True):
    """How many seconds a tool may take, and whose limit that is."""

    seconds: float
    own: bool


def choose(name: str, tools: Mapping[str, T]) -> T:
    """The tool that the agent may call by this name; refuses any other, with the nearest one that it may."""
    tool = tools.get(name)
    if tool is not None:
        return tool
    known = ", ".join(sorted(tools)) or "none"
    raise ToolRefused(
        f"there is no tool {name[:100]!r} among the agent's tools ({known}){did_you_mean(name, tools)}",
        next_step="call one of these, or list the tool under `tools` of the definition",
    )


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The known name that `name` is probably meant to be, as the end of a sentence; empty if none is near."""
    folded: dict[str, str] = {}
    for one in known:
        folded.setdefault(_folded(one), one)
    near = difflib.get_close_matches(_folded(name), list(folded), n=1, cutoff=0.6)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def _folded(name: str) -> str:
    return name[:100].casefold().replace("-", "_").replace(".", "_")


def deadline(limits: ToolLimits, remaining: float) -> Deadline:
    """The shorter of the tool's own limit and what is left of the call."""
    if limits.deadline_seconds <= remaining:
        return Deadline(limits.deadline_seconds, own=True)
    return Deadline(remaining, own=False)


def overrun(name: str, allowed: Deadline) -> ToolFailed:
    """The error of a tool that took longer than `allowed`."""
    if allowed.own:
        return ToolFailed(
            f"tool {name!r} took longer than its {allowed.seconds:g} s",
            next_step="raise `limits.deadline_seconds` of the tool, or ask it for less",
        )
    return ToolFailed(
        f"tool {name!r} took longer than the {allowed.seconds:.1f} s that were left of the call",
        next_step="give the call a longer deadline",
    )


def bounded(name: str, output: str, limits: ToolLimits) -> int:
    """The size of the output in bytes; refuses one that is larger than allowed.

    It is refused and not cut: half of a JSON document or of a table is worse than a sentence that says what to do.
    """
    size = len(output) if output.isascii() else len(output.encode("utf-8", "replace"))
    if size > limits.max_output_bytes:
        raise ToolFailed(
            f"tool {name!r} answered {size} bytes, more than the {limits.max_output_bytes} it may",
            next_step="ask it for less, or raise `limits.max_output_bytes` of the tool",
        )
    return size
