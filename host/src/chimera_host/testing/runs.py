"""Runs as a fake platform keeps them: steps, model answers by key, and who works on a run.

`begin` gives a run to a call as the gateway would: the request it returns names the run and what is finished of it, and
from then on another call that still works on it is refused.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from chimera_host.contract.call import InvokeRequest
from chimera_host.contract.problem import PROBLEM_TYPE_PREFIX, Problem
from chimera_host.contract.state import FinishedStep, RunState, StepBody, StepPage, StepSaved

PAGE = 3
"""Steps of a page; few, so that tests turn pages."""


class FakeRun(Struct, kw_only=True):
    """One run. `asked` are the keys of its model calls as they came, `answers` those that were given."""

    name: str
    call: str = ""
    attempt: int = 0
    steps: list[FinishedStep] = []
    asked: list[str] = []
    answers: dict[tuple[str, bytes], dict[str, Any]] = {}

    @property
    def names(self) -> list[str]:
        """The finished steps' names."""
        return [one.step for one in self.steps]


class FakeRuns:
    """All runs of a fake platform."""

    def __init__(self) -> None:
        """Begin with none."""
        self.by_name: dict[str, FakeRun] = {}

    def __getitem__(self, name: str) -> FakeRun:
        """The run of that name, which may be new."""
        if name not in self.by_name:
            self.by_name[name] = FakeRun(name=name, steps=[], asked=[], answers={})
        return self.by_name[name]

    def begin(self, request: InvokeRequest, name: str) -> InvokeRequest:
        """The request as the gateway would send it: the next attempt at the run of that name."""
        run = self[name]
        run.call = request.call
        run.attempt += 1
        resume = RunState(attempt=run.attempt, finished=len(run.steps)) if run.steps else None
        return replace(request, run=name, resume=resume)

    def of(self, call: str) -> FakeRun | None:
        """The run that a call works on."""
        return next((run for run in self.by_name.values() if run.call == call), None)

    def save(self, call: str, body: StepBody) -> StepSaved | Problem:
        """Commit a step."""
        if (run := self.of(call)) is None:
            return _problem("run-taken", "another call works on the run")
        for one in run.steps:
            if one.step == body.step:
                same = (one.kind, one.output) == (body.kind, body.output)
                return StepSaved(version=one.version) if same else _problem("step-conflict", f"{body.step} is finished")
        step = FinishedStep(version=len(run.steps) + 1, step=body.step, kind=body.kind, output=body.output)
        run.steps.append(step)
        return StepSaved(version=step.version)

    def page(self, call: str, after: int) -> StepPage | Problem:
        """A page of finished steps."""
        if (run := self.of(call)) is None:
            return _problem("no-run", "the call has no run")
        rest = run.steps[after : after + PAGE + 1]
        page = tuple(rest[:PAGE])
        return StepPage(steps=page, next=page[-1].version if len(rest) > PAGE else None)

    async def answer(
        self, call: str, key: str | None, body: dict[str, Any], ask: Callable[[], Awaitable[dict[str, Any] | Problem]]
    ) -> dict[str, Any] | Problem:
        """The model's answer: the one given before to the same request with the same key, or a new one."""
        run = self.of(call)
        if key is None or run is None:
            return await ask()
        run.asked.append(key)
        place = (key, msgspec.json.encode(body, order="deterministic"))
        if place not in run.answers:
            said = await ask()
            if isinstance(said, Problem):
                return said
            run.answers[place] = said
        return run.answers[place]


def _problem(code: str, detail: str) -> Problem:
    return Problem(type=PROBLEM_TYPE_PREFIX + code, title=code, status=409, detail=detail, code=code)
