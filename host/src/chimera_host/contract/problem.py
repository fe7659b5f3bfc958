"""Errors as RFC 9457 problem details, with a stable code: one shape for the API, the host and the command line."""

from http import HTTPStatus
from typing import Any

from msgspec import Struct

PROBLEM_TYPE_PREFIX = "urn:chimera:error:"
PROBLEM_MEDIA_TYPE = "application/problem+json"


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457 problem details; `code` is stable, `next_step` says what to do, `errors` lists single faults.

    `reason` is the cause of a cell's trouble, one of those that the conditions of cells have.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    next_step: str | None = None
    reason: str | None = None
    instance: str | None = None
    retry_after: float | None = None
    agent: str | None = None
    request: str | None = None
    errors: list[dict[str, Any]] = []


class ProblemError(Exception):
    """An error with a stable code that maps once to an HTTP status and a problem document.

    Subclasses set `code`, `status` and `title`; `detail` says what is wrong here, `next_step` what to do about it.
    `retry_after` (seconds) marks an error that passes by itself; `reason` tells causes of one code apart.
    """

    code = "internal"
    status = 500
    title = "Something went wrong inside"
    reason: str | None = None

    def __init__(
        self,
        detail: str,
        *,
        next_step: str | None = None,
        retry_after: float | None = None,
        agent: str | None = None,
        errors: list[dict[str, Any]] | None = None,
        reason: str | None = None,
    ) -> None:
        """Keep what is wrong (`detail`) and what to do (`next_step`)."""
        super().__init__(detail)
        self.detail = detail
        self.next_step = next_step
        self.retry_after = retry_after
        self.agent = agent
        self.errors = errors or []
        if reason is not None:
            self.reason = reason

    def problem(self, *, instance: str | None = None, request: str | None = None) -> Problem:
        """The document that goes over the wire."""
        return Problem(
            type=PROBLEM_TYPE_PREFIX + self.code,
            title=self.title or HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            code=self.code,
            next_step=self.next_step,
            reason=self.reason,
            instance=instance,
            retry_after=self.retry_after,
            agent=self.agent,
            request=request,
            errors=self.errors,
        )


class RemoteProblem(ProblemError):
    """A problem that another process answered, raised here with its code and status kept."""

    def __init__(self, problem: Problem) -> None:
        """Take over every field of `problem`."""
        super().__init__(
            problem.detail,
            next_step=problem.next_step,
            retry_after=problem.retry_after,
            agent=problem.agent,
            errors=problem.errors,
        )
        self.code = problem.code
        self.status = problem.status
        self.title = problem.title
        self.reason = problem.reason
