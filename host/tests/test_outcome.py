from chimera_host.errors import AgentFailed, CallCancelled, DeadlineExceeded, ModelFailed, ToolFailed
from chimera_host.outcome import as_problem


def chained(inner: Exception) -> Exception:
    try:
        try:
            raise inner
        except Exception as error:
            raise RuntimeError("the framework gave up") from error
    except RuntimeError as error:
        return error


def test_the_reason_of_a_cancellation_wins():
    reason = DeadlineExceeded("too long")
    assert as_problem(chained(ModelFailed("x")), agent="a", reason=reason) is reason


def test_a_problem_behind_a_frameworks_error_is_found():
    inner = ModelFailed("no model")
    assert as_problem(chained(inner), agent="a", reason=None) is inner
    assert inner.agent == "a"


def test_one_of_several_at_once_is_found():
    group = ExceptionGroup("parallel", [ValueError("x"), chained(ToolFailed("y"))])
    assert as_problem(group, agent="a", reason=None).code == "tool-failed"


def test_anything_else_is_the_agents_failure():
    problem = as_problem(ValueError("no " * 1000), agent="a", reason=None)
    assert isinstance(problem, AgentFailed) and "ValueError" in problem.detail and len(problem.detail) < 1100
    assert problem.agent == "a" and problem.status == 502


def test_a_suppressed_context_is_not_searched():
    try:
        try:
            raise CallCancelled("x")
        except CallCancelled:
            raise ValueError("y") from None
    except ValueError as error:
        assert as_problem(error, agent="a", reason=None).code == "agent-failed"
