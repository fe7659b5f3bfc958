"""An agent's own tests, as a definition declares them.

A case is one conversation: the caller's message, what the answer must be like, and `then` further turns in the same
session. It says whether the model is `scripted` (the case brings its answers) or `real`, and whether the agent's tools
are answered by the case, as they are unless it is an `integration` test. How cases are run: `chimera.delivery.trials`.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from chimera_host.contract.behaviour import ShortText, Text
from chimera_host.contract.trial import ModelAnswer, ToolAnswer

CheckFunction = Annotated[
    str, Meta(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", max_length=200, examples=["checks:is_polite"])
]
ModelAnswers = Annotated[tuple[ModelAnswer, ...], Meta(max_length=100)]

SCRIPTED_SECONDS, REAL_SECONDS = 30.0, 120.0
"""What a turn may take where its test doesn't say."""


class Expectation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the answer to a test's input must be; every part given must hold."""

    contains: tuple[ShortText, ...] = ()
    excludes: tuple[ShortText, ...] = ()
    json_schema: dict[str, Any] | None = None
    rubric: Text | None = None
    check: CheckFunction | None = None


class Turn(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A further message of the caller in the same session, and what is expected of its answer."""

    input: Text
    expect: Expectation
    answers: ModelAnswers = ()


class AgentTest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One case of the agent's own tests."""

    name: ShortText
    input: Text
    expect: Expectation
    model: Literal["scripted", "real"] | None = None
    answers: ModelAnswers = ()
    tools: Annotated[tuple[ToolAnswer, ...], Meta(max_length=100)] = ()
    integration: bool = False
    then: Annotated[tuple[Turn, ...], Meta(max_length=20)] = ()
    runs: Annotated[int, Meta(ge=1, le=100)] = 1
    pass_share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    timeout_seconds: Annotated[float, Meta(gt=0, le=540)] | None = None

    @property
    def is_scripted(self) -> bool:
        """Whether the case answers for the model: it says so, or it brings answers and doesn't say."""
        return self.model == "scripted" or (self.model is None and bool(self.all_answers))

    @property
    def all_answers(self) -> tuple[ModelAnswer, ...]:
        """What the model is to say, over all turns."""
        return (*self.answers, *(answer for turn in self.then for answer in turn.answers))

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All turns, the first one too."""
        return (Turn(input=self.input, expect=self.expect, answers=self.answers), *self.then)

    @property
    def seconds(self) -> float:
        """What a turn may take."""
        if self.timeout_seconds is not None:
            return self.timeout_seconds
        return SCRIPTED_SECONDS if self.is_scripted else REAL_SECONDS
