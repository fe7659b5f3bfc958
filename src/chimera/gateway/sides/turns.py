"""Whose turn it is: which revision of an agent takes a call, from its beginning to its end.

A call without a session, and the first of one, are drawn by weight. A session goes on by the revision that answered
last, as long as that is live, green or kept warm; unfinished work goes on by the one that it began on. A revision that
was taken back gets no call: what waits for a host goes to the one that is live, and so does the next call of a session,
if that revision can read its state. What runs already ends, or is ended where that was asked for.

No call fails for its agent's having two sides: where green's cell doesn't start, or a host can't load it, a call that
is bound to nothing goes to the live revision.

An agent that is new has a green side alone, which takes all calls. Where it is taken back, there is no such agent.
"""

import logging
from typing import Protocol

from chimera.gateway.calls import CallTable, InFlightCall
from chimera.gateway.documents import Documents
from chimera.gateway.errors import AgentNotFound, SessionWithdrawn
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.placing import Placer
from chimera.gateway.ports import HostPool
from chimera.gateway.routes import Protocol as CallProtocol
from chimera.gateway.routes import RouteTable, offers
from chimera.gateway.sides import rules
from chimera.gateway.sides.faults import Fault
from chimera.gateway.sides.watching import Watcher
from chimera.gateway.state.model import StoredSession
from chimera.gateway.state.runs import OpenRun, Runs, Wanted
from chimera.kernel.clock import Clock
from chimera.platform.model import Route
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

LOAD_FAILED = "agent-load-failed"


class Asked(Protocol):
    """What of an incoming call matters here."""

    @property
    def protocol(self) -> CallProtocol:
        """How it came."""

    @property
    def state(self) -> Wanted:
        """Its session and run."""


class Turns:
    """Moves calls between the revisions of their agents."""

    def __init__(
        self,
        *,
        routes: RouteTable,
        calls: CallTable,
        pool: HostPool,
        placer: Placer,
        runs: Runs,
        documents: Documents,
        metrics: GatewayMetrics,
        clock: Clock,
        watcher: Watcher | None = None,
    ) -> None:
        """Follow `routes`, and end calls whose revision is taken back."""
        self._routes = routes
        self._calls = calls
        self._pool = pool
        self._placer = placer
        self._runs = runs
        self._documents = documents
        self._metrics = metrics
        self._clock = clock
        self._watcher = watcher
        routes.on_change(self._changed)

    def begin(self, live: Route, call: str, asked: Asked) -> Route:
        """Where a call goes of which nothing is known but its session's name."""
        return rules.draw(live, asked.state.session or call, asked.protocol) if live.others else live

    async def choose(self, call: InFlightCall, before: StoredSession | None, asked: Asked) -> str:
        """The revision that the call is for, given its session; raises `SessionWithdrawn`."""
        live = self._live(call)
        if before is None or not before.version or live is None:
            return call.route.revision
        side = rules.served(live, before.revision, self._clock.wall())
        if side is not None and offers(side, asked.protocol):
            call.pinned = True
            self._move(call, side)
        else:
            if rules.is_withdrawn(live, before.revision):
                await self._check_moves(before, live)
            self._move(call, live)
        return call.route.revision

    def resumed(self, call: InFlightCall, opened: OpenRun, asked: Asked) -> None:
        """The call goes on with work that another revision may have begun."""
        live = self._live(call)
        if live is None or opened.run.revision in (None, call.route.revision):
            call.pinned = call.pinned or opened.run.steps > 0
        elif (side := rules.served(live, opened.run.revision, self._clock.wall())) and offers(side, asked.protocol):
            call.pinned = True
            self._move(call, side)
        self._runs.moved(opened, call.route.revision)

    async def look(self, call: InFlightCall) -> None:
        """Before it is placed: a call whose revision was taken back goes to the one that is live.

        Raises `AgentNotFound` where the agent was taken out of service meanwhile.
        """
        live = self._routes.find(call.route.tenant, call.route.agent)
        if not rules.is_withdrawn(live, call.route.revision):
            return
        opened = call.opened
        if opened is not None and opened.before is not None and opened.before.version:
            await self._check_moves(opened.before, live)
        self._move(call, live)

    def taken_back(self, call: InFlightCall) -> bool:
        """Whether its revision was taken back while it waited, or its agent; then it is placed no more."""
        live = self._live(call)
        back = live is None or rules.is_withdrawn(live, call.route.revision)
        if back:
            self._calls.place(call, None)
        return back

    def falls_back(self, call: InFlightCall, asked: Asked, fault: Fault, error: ProblemError) -> bool:
        """Green could not take the call, which nothing has been done for: the live revision may.

        It could not where no host of its cell comes, or one can't load it.
        """
        live = self._live(call)
        if fault == "agent" and error.code != LOAD_FAILED:
            return False
        if call.route.side != "green" or call.pinned or call.effects or live is None:
            return False
        if live.revision == call.route.revision or live.unservable is not None or not offers(live, asked.protocol):
            return False
        log.warning("green took no call", extra={"agent": live.agent, "revision": call.route.revision})
        self._metrics.retries.labels("green").inc()
        if self._watcher is not None:
            self._watcher.ended(live, call.route.revision, fault, 0.0)
        self._move(call, live)
        return True

    # -- inside -------------------------------------------------------------------------------------------------------

    def _live(self, call: InFlightCall) -> Route | None:
        return self._routes.known(call.route.tenant, call.route.agent)

    def _move(self, call: InFlightCall, route: Route) -> None:
        before = call.route
        if route.revision == before.revision:
            return
        left, count = self._calls.move(call, route)
        if before.cell != route.cell:
            self._pool.observe(before.cell, left)
            self._pool.observe(route.cell, count)
        self._placer.freed(before.cell)
        if call.opened is not None:
            self._runs.moved(call.opened, route.revision)

    async def _check_moves(self, session: StoredSession, live: Route) -> None:
        """Raise `SessionWithdrawn` for a session that the older revision can't go on with."""
        if session.revision is None or session.revision == live.revision:
            return
        try:
            before = await self._documents.get(session.revision)
        except AgentNotFound:
            return  # upkeep removed it: nothing is known of it any more
        why = rules.why_stays(session.state, before, await self._documents.get(live.revision))
        if why is not None:
            raise SessionWithdrawn(
                f"session {session.session!r} is on revision {session.revision[:19]}, which was taken back: {why}",
                next_step="export it (`GET …/sessions/{session}/export`), and begin another session",
                agent=live.agent,
            )

    def _changed(self, route: Route) -> None:
        """End what runs on a revision that was taken back, where that was asked for."""
        ended = {one.revision for one in route.withdrawn if one.cancelled}
        if not ended:
            return
        for call in self._calls.of_agent(route.tenant, route.agent):
            if call.route.revision in ended and call.host is not None and call.task is not None and not call.withdrawn:
                call.withdrawn = True
                call.task.cancel()
