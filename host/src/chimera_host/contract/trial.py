"""A call that tests an agent: what its model says and its tools answer, or what a check of the agent's own is to judge.

A trial takes the way of any call, in the hosts that serve. Two things differ. Where `tools` are `scripted`, none of the
agent's tools runs: the host answers from `answers`. Where there is a `check`, the host runs that function of the
agent's source folder instead of the agent. What a scripted model says isn't here: the gateway says it.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from chimera_host.contract.behaviour import ShortText

CallName = Annotated[str, Meta(min_length=1, max_length=64)]
Output = Annotated[str, Meta(max_length=20_000)]


class AskedTool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A tool that a scripted model asks for, by the name under which a model sees it."""

    name: CallName
    arguments: dict[str, Any] = {}


class ModelAnswer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a scripted model says to one question: a text, tools that it asks for, or both."""

    text: Output | None = None
    tools: Annotated[tuple[AskedTool, ...], Meta(max_length=20)] = ()


class ToolAnswer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a tool answers without being run: `output`, or a failure that says `error`.

    With `arguments` it answers only a call that has these values among its own.
    """

    tool: CallName
    arguments: dict[str, Any] | None = None
    output: Output = ""
    error: ShortText | None = None


class CheckAsk(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a check is given beside the call's messages, which are the conversation that led to the answer."""

    function: str
    answer: str
    case: str


class CheckVerdict(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a check found; the host answers with this as JSON."""

    passed: bool
    reason: str = ""


class Trial(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What makes a call a trial, as far as a host must know."""

    tools: Literal["scripted", "real"] = "scripted"
    answers: tuple[ToolAnswer, ...] = ()
    check: CheckAsk | None = None
