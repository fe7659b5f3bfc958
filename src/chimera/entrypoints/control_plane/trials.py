"""Handlers for runs of agents' own tests: begin one, see how far it is and what came of it, end it."""

import base64
from collections.abc import Sequence

import msgspec
from aiohttp import web

from chimera.adapters.storage.trials.runs import StoredRuns
from chimera.delivery.model import Outcome
from chimera.delivery.trials.model import Candidate
from chimera.delivery.trials.ports import Definitions
from chimera.delivery.trials.service import Trials
from chimera.entrypoints.control_plane.http import (
    PAGE,
    BadRequest,
    Handler,
    answer,
    body_of,
    page_size,
    principal_of,
    tenant_of,
)
from chimera.entrypoints.control_plane.keys import key_of
from chimera.entrypoints.control_plane.looking import no_agent
from chimera.entrypoints.published.trials import ResultPage, RunPage, TestsBody

AT_ONCE = 1_000
OUTCOMES: tuple[Outcome, ...] = ("passed", "failed", "skipped")


class TrialHandlers:
    """The handlers. Any control plane answers them; the one that holds the lease runs the tests."""

    def __init__(self, trials: Trials, runs: StoredRuns, definitions: Definitions) -> None:
        """Begin runs by `trials`, read them from `runs`; what is live stands in `definitions`."""
        self._trials = trials
        self._runs = runs
        self._definitions = definitions

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {
            "run_tests": self.start,
            "list_test_runs": self.page,
            "get_test_run": self.get,
            "list_test_results": self.results,
            "cancel_test_run": self.cancel,
        }

    async def start(self, request: web.Request) -> web.StreamResponse:
        """Begin a run, or find the one with the same key."""
        body, tenant = await body_of(request, TestsBody), tenant_of(request)
        if bool(body.agents) + (body.batch is not None) + body.all != 1:
            raise BadRequest("it must be said what to test", next_step="give agents, a batch, or all")
        if body.batch is not None:
            candidates = await self._runs.of_batch(tenant, body.batch)
        elif body.all:
            candidates = await self._all(tenant)
        else:
            candidates = await self._live(tenant, list(dict.fromkeys(body.agents)))
        by = principal_of(request).actor
        run = await self._trials.start(tenant, candidates, by=by, key=key_of(request))
        return answer(run, status=202)

    async def page(self, request: web.Request) -> web.StreamResponse:
        """A page of runs."""
        limit = page_size(request, PAGE)
        rows = await self._runs.page(tenant_of(request), request.query.get("after") or None, limit + 1)
        more = rows[limit - 1].run if len(rows) > limit else None
        return answer(RunPage(runs=list(rows[:limit]), next=more))

    async def get(self, request: web.Request) -> web.StreamResponse:
        """One run."""
        return answer(await self._trials.get(tenant_of(request), request.match_info["run"]))

    async def results(self, request: web.Request) -> web.StreamResponse:
        """A page of a run's results."""
        limit, outcome = page_size(request, ("outcome", *PAGE)), request.query.get("outcome")
        wanted: tuple[Outcome, ...] = tuple(one for one in OUTCOMES if one == outcome)
        if outcome is not None and not wanted:
            raise BadRequest(f"there is no outcome {outcome[:20]!r}", next_step=f"use {', '.join(OUTCOMES)}")
        run = await self._trials.get(tenant_of(request), request.match_info["run"])
        after = _place(request.query.get("after"))
        rows = await self._runs.results(run.tenant, run.run, outcomes=wanted, after=after, limit=limit + 1)
        last = rows[limit - 1] if len(rows) > limit else None
        more = None if last is None else _named(last.agent, last.case)
        return answer(ResultPage(results=list(rows[:limit]), next=more))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """End a run."""
        by = principal_of(request).actor
        return answer(await self._trials.cancel(tenant_of(request), request.match_info["run"], by=by))

    async def _live(self, tenant: str, names: Sequence[str]) -> list[Candidate]:
        live: dict[str, str] = {}
        for first in range(0, len(names), AT_ONCE):
            rows = await self._definitions.agents_named(tenant, names[first : first + AT_ONCE])
            live.update({row.name: row.revision for row in rows})
        if unknown := next((name for name in names if name not in live), None):
            raise no_agent(unknown)
        return [Candidate(agent=name, revision=live[name]) for name in names]

    async def _all(self, tenant: str) -> list[Candidate]:
        found: list[Candidate] = []
        while rows := await self._definitions.agents(tenant, {}, found[-1].agent if found else "", AT_ONCE):
            found += [Candidate(agent=row["name"], revision=row["revision"]) for row in rows]
        return found


def _named(agent: str, case: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((agent, case))).decode()


def _place(text: str | None) -> tuple[str, str]:
    if not text:
        return "", ""
    try:
        return msgspec.json.decode(base64.b64decode(text, altchars=b"-_", validate=True), type=tuple[str, str])
    except (ValueError, msgspec.MsgspecError) as error:
        raise BadRequest(f"after={text[:20]!r} is no place", next_step="use `next` of the page before") from error
