"""A test's own check: a function of the agent's source folder that judges an answer, run where the agent runs.

    def is_polite(answer: str, case: Case) -> bool | str | None: ...

It is well with the answer if it returns None or True. It says what is wrong by returning a text, or by an
`AssertionError`; False says that something is. Any other error is the check's own fault. It may be a coroutine
function; one that isn't runs in a watched thread, as other code of agents does.
"""

import inspect
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from chimera_host.contract.call import Message
from chimera_host.contract.trial import CheckAsk, CheckVerdict
from chimera_host.errors import CallCancelled, TrialMisfit
from chimera_host.imports import BundleCode
from chimera_host.ports import CallContext, RunResult

MOST_SAID = 2_000


class Case(Struct, frozen=True, kw_only=True):
    """What a check may want to know: the test, what the caller said last, and all that was said before the answer."""

    name: str
    input: str
    messages: tuple[Message, ...]


async def judged(code: BundleCode | None, ask: CheckAsk, call: CallContext) -> RunResult:
    """What the check says of the answer, as the call's output: a `CheckVerdict` as JSON."""
    if code is None:
        raise _misfit(ask, "the agent has no source folder", call)
    case = Case(name=ask.case, input=call.prompt, messages=call.request.messages)
    try:
        function = await call.in_thread(code.resolve, ask.function)
        said = await _said(function, ask.answer, case, call)
    except AssertionError as wrong:
        verdict = CheckVerdict(passed=False, reason=str(wrong)[:MOST_SAID] or "an assertion doesn't hold")
    except CallCancelled:
        raise
    except Exception as error:
        raise _misfit(ask, f"it raised {type(error).__name__}: {error}"[:MOST_SAID], call) from error
    else:
        verdict = _verdict(ask, said, call)
    return RunResult(output=msgspec.json.encode(verdict).decode())


async def _said(function: Callable[..., Any], answer: str, case: Case, call: CallContext) -> Any:
    if inspect.iscoroutinefunction(function):
        return await function(answer, case)
    return await call.in_thread(function, answer, case)


def _verdict(ask: CheckAsk, said: Any, call: CallContext) -> CheckVerdict:
    if said is None or said is True:
        return CheckVerdict(passed=True)
    if said is False:
        return CheckVerdict(passed=False, reason="it says no")
    if isinstance(said, str):
        return CheckVerdict(passed=False, reason=said[:MOST_SAID] or "it says no")
    raise _misfit(ask, f"it returned {type(said).__name__}, not None, a truth value or a text", call)


def _misfit(ask: CheckAsk, what: str, call: CallContext) -> TrialMisfit:
    return TrialMisfit(
        f"the check {ask.function!r} can't be used: {what}",
        next_step="mend it in the agent's source folder",
        agent=call.document.name,
    )
