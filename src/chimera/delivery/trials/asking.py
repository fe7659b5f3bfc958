"""A call that is a trial: what it asks for, and what came of it. It travels as part of a durable task's request."""

from typing import Literal

from msgspec import Struct

from chimera_host.contract.call import Message
from chimera_host.contract.problem import Problem
from chimera_host.contract.trial import ModelAnswer, Trial


class TrialRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What makes a call a trial.

    Where the `model` is `scripted`, the gateway says `says`, one for each question, and asks no model. `trial` is what
    the host must know.
    """

    model: Literal["scripted", "real"]
    says: tuple[ModelAnswer, ...] = ()
    trial: Trial = Trial()


class Ask(Struct, frozen=True, kw_only=True):
    """One call in an environment (a tenant). The same `key` is the same call, however often it is asked for.

    `seconds` is what it may take, `session` what it belongs to where a case has several turns, `subject` the person
    of whom what is said is.
    """

    environment: str
    agent: str
    key: str
    messages: tuple[Message, ...]
    seconds: float
    request: TrialRequest
    session: str | None = None
    subject: str | None = None


class Told(Struct, frozen=True, kw_only=True):
    """What came of it: an answer, or the problem why there is none. `seconds` is what it took in its host."""

    output: str = ""
    problem: Problem | None = None
    seconds: float = 0.0
    tokens: int = 0
    model_calls: int = 0
    tool_calls: int = 0
