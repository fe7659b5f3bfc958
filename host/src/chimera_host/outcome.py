"""From whatever a framework raised to the one problem that the caller gets."""

from chimera_host.contract.problem import ProblemError
from chimera_host.errors import AgentFailed, CallCancelled

MAX_DETAIL = 1_000
MAX_CHAIN = 20


def as_problem(error: BaseException, *, agent: str, reason: CallCancelled | None) -> ProblemError:
    """The problem behind `error`: why the call was cancelled, the platform's own, or that the agent failed.

    Frameworks wrap what their model or tool raised in errors of their own, so the chain of causes is searched for a
    problem with a code first.
    """
    if reason is not None:
        return reason
    found = _in_chain(error)
    if found is None:
        detail = str(error).strip() or "without a word"
        found = AgentFailed(
            f"agent {agent} raised {type(error).__name__}: {detail[:MAX_DETAIL]}",
            next_step="see `chimera logs` for the traceback",
        )
        found.__cause__ = error
    found.agent = found.agent or agent
    return found


def _in_chain(error: BaseException | None) -> ProblemError | None:
    for _ in range(MAX_CHAIN):
        if error is None or isinstance(error, ProblemError):
            return error
        if isinstance(error, BaseExceptionGroup):
            for part in error.exceptions:
                if (found := _in_chain(part)) is not None:
                    return found
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None
