"""The way of a call: route, admit, place on a host, run, keep the session, answer.

A call is run again on another host where that can't do harm: it never reached the host, the host refused it before it
began, or the host died before it said anything and the call had asked for nothing that has effects (no model, agent or
credential through the internal API, and an agent with neither tools nor code that could act on its own).

Where it has a run (`chimera.gateway.state.runs`), it goes on there from its last finished step, if the step in flight
may run twice. It may in two cases. The caller gave a key, which says that repeating is safe; a call that an agent makes
in a run has a key of the platform's, and what its own caller says counts. Or there is nothing in it but models, whose
answers are kept, and agents of which the same is true, whose work is a run too: pure declarations without other tools.
A tool that was running when the host died may have acted, and whether it heeds its key isn't known here. Else the
caller is told that the host failed, and the node agent, which saw who ran there, names the suspects.

Which revision of an agent a call is for, where there are several, and what becomes of one whose revision is taken back,
says `chimera.gateway.sides.turns`.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from chimera.delivery.trials.asking import TrialRequest
from chimera.gateway.admission import Admission
from chimera.gateway.audit import AuditTrail, CallEntries
from chimera.gateway.calls import CallTable, InFlightCall
from chimera.gateway.documents import Documents
from chimera.gateway.errors import CallTimeout, CellUnavailable, HostFailed, NotServable, RevisionWithdrawn
from chimera.gateway.hosts import HostClient, HostDied, HostUnreachable, Sink
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.placing import Placer
from chimera.gateway.ports import HostPool
from chimera.gateway.quota.service import Quota
from chimera.gateway.routes import Protocol, RouteTable, check_offered
from chimera.gateway.settings import DeadlineSettings
from chimera.gateway.sides.faults import fault_of
from chimera.gateway.sides.turns import Turns
from chimera.gateway.sides.watching import Watcher
from chimera.gateway.state.model import StoredSession
from chimera.gateway.state.runs import NO_STATE, Runs, Wanted
from chimera.gateway.trials import script_of, trial_of
from chimera.kernel.ids import new_id
from chimera.platform.model import Endpoint
from chimera_host.contract.call import InvokeRequest, InvokeResponse, Message
from chimera_host.contract.problem import ProblemError, RemoteProblem
from chimera_host.contract.tools import AgentTool, MessageTool
from chimera_host.logs import log_fields
from chimera_host.trace import TraceContext, span

log = logging.getLogger(__name__)

MAX_PLACEMENTS = 5
BUSY_PAUSE = 0.05
MAX_DEATHS = 1
MOST_AGENTS = 64
"""Agents whose documents are looked at to say that a call of the first may be repeated."""
REFUSED_BEFORE_BEGIN = frozenset({"host-busy", "host-draining"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Incoming:
    """A call as it comes in, allowed to `actor`.

    `within` is the seconds the caller gives it; `parent` the call that makes this one; `state` says which session and
    run it belongs to, and for whom it is. `trial` makes it a test.
    """

    tenant: str
    agent: str
    messages: tuple[Message, ...]
    protocol: Protocol
    state: Wanted = NO_STATE
    within: float | None = None
    trace: TraceContext | None = None
    request: str | None = None
    parent: InFlightCall | None = None
    actor: str = "system:gateway"
    trial: TrialRequest | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A call that ended well; `replayed` says that the answer is a stored one."""

    response: InvokeResponse
    call: InFlightCall
    replayed: bool = False


class Invoker:
    """Runs calls."""

    def __init__(
        self,
        *,
        routes: RouteTable,
        admission: Admission,
        calls: CallTable,
        placer: Placer,
        hosts: HostClient,
        pool: HostPool,
        runs: Runs,
        documents: Documents,
        quota: Quota,
        audit: AuditTrail,
        metrics: GatewayMetrics,
        deadlines: DeadlineSettings,
        deaths: int,
        turns: Turns,
        watcher: Watcher | None = None,
        platform_url: str | None = None,
    ) -> None:
        """Put the parts together; `deaths` hosts may die under a call that goes on elsewhere.

        `watcher` is told how calls ended.
        `platform_url` is this gateway's own internal API, where hosts know another address by themselves.
        """
        self._platform_url = platform_url
        self._routes = routes
        self._admission = admission
        self._calls = calls
        self._placer = placer
        self._hosts = hosts
        self._pool = pool
        self._runs = runs
        self._documents = documents
        self._quota = quota
        self._audit = audit
        self._metrics = metrics
        self._deadlines = deadlines
        self._deaths = deaths
        self._turns = turns
        self._watcher = watcher
        self._loop = asyncio.get_running_loop()

    async def run(self, incoming: Incoming, sink: Sink | None = None) -> Answered:
        """One call; its events go to `sink` as they come. Cancelling this cancels the call in its host."""
        began = time.perf_counter()
        outcome, status = "cancelled", 499
        call: InFlightCall | None = None
        ran: dict[str, Any] = {"host": None}
        entries = self._entries(incoming)
        try:
            with span("gateway.call", remote=incoming.trace) as opened:
                call = self._admit(incoming, opened.context)
                entries.admitted(call.call, _told(incoming, call))
                opened.set(request=incoming.request, call=call.call, agent=call.route.agent, tenant=call.route.tenant)
                opened.set(revision=call.route.revision, protocol=incoming.protocol)
                fields = {"request": call.call, "agent": call.route.agent, "revision": call.route.revision}
                token = log_fields.set(fields)
                try:
                    response = await self._admitted(call, incoming, sink and _after(entries, sink))
                    if call.script is not None:
                        call.script.check()
                    await entries.durable()
                finally:
                    log_fields.reset(token)
                    opened.set(host=call.host, revision=call.route.revision, side=call.route.side)
                    ran = {"host": call.host, "revision": call.route.revision, "side": call.route.side}
                    self._leave(call)
            outcome = "ok"
            replayed = call.opened is not None and call.opened.answer is not None
            return Answered(response=response, call=call, replayed=replayed)
        except ProblemError as error:
            outcome, status = error.code, error.status
            raise
        finally:
            seconds = time.perf_counter() - began
            entries.ended(outcome, {"ms": round(seconds * 1000), **ran})
            if call is not None:
                self._saw(call, outcome, status, seconds)
            self._metrics.calls.labels(incoming.protocol, outcome).inc()
            self._metrics.call_seconds.observe(seconds)

    # -- in and out -----------------------------------------------------------------------------------------------

    def _entries(self, incoming: Incoming) -> CallEntries:
        return CallEntries(
            self._audit,
            tenant=incoming.tenant,
            agent=incoming.agent,
            actor=incoming.actor,
            request=incoming.request,
            traceparent="" if incoming.trace is None else incoming.trace.header(),
        )

    def _admit(self, incoming: Incoming, trace: TraceContext) -> InFlightCall:
        route = self._routes.find(incoming.tenant, incoming.agent)
        check_offered(route, incoming.protocol)
        if route.unservable is not None:
            raise NotServable(route.unservable, next_step="see `chimera describe`", agent=route.agent)
        self._quota.enter(route)
        parent = incoming.parent
        name = new_id("call")
        depth = self._calls.descend(parent) if parent is not None else 0
        within = self._deadlines.gateway if incoming.within is None else incoming.within
        deadline = self._loop.time() + min(within, self._deadlines.gateway)
        call = InFlightCall(
            call=name,
            route=self._turns.begin(route, name, incoming),
            task=asyncio.current_task(),
            deadline=deadline if parent is None else min(deadline, parent.deadline),
            trace=trace,
            parent=parent,
            depth=depth,
            hops=incoming.state.hops if parent is None else parent.hops,
            script=script_of(incoming.trial, route.tenant, route.agent),
            trial=trial_of(incoming.trial, route.tenant),
        )
        self._admission.enter((route.tenant, route.agent), self._quota.share(route.concurrency))
        self._pool.observe(call.route.cell, self._calls.add(call))
        return call

    def _leave(self, call: InFlightCall) -> None:
        route = call.route
        self._pool.observe(route.cell, self._calls.remove(call))
        self._admission.leave((route.tenant, route.agent))
        self._placer.freed(route.cell)

    async def _admitted(self, call: InFlightCall, incoming: Incoming, sink: Sink | None) -> InvokeResponse:
        try:
            async with asyncio.timeout_at(call.deadline) as limit:
                if incoming.state is NO_STATE:
                    return await self._in_a_host(call, incoming, sink)
                return await self._on_a_run(call, incoming, sink)
        except asyncio.CancelledError:
            if not call.withdrawn or call.task is None or call.task.uncancel() > 0:
                raise
            raise RevisionWithdrawn(
                f"the revision of agent {call.route.agent} that ran the call was taken back, and its calls were ended",
                next_step="call again if that is safe: another revision answers",
                retry_after=1,
                agent=call.route.agent,
            ) from None
        except TimeoutError:
            if not limit.expired():
                raise
            if call.host is not None:
                await self._report(call.host, "timeout", call)
            raise CallTimeout(
                f"the call of agent {call.route.agent} did not end before its deadline",
                next_step="give it a longer deadline, or see where its time goes with `chimera logs`",
                agent=call.route.agent,
            ) from None

    async def _on_a_run(self, call: InFlightCall, incoming: Incoming, sink: Sink | None) -> InvokeResponse:
        """Answer from the run where it is finished; else work on it, and commit what came of it before answering."""
        route, state = call.route, incoming.state

        async def choose(before: StoredSession | None) -> str:
            return await self._turns.choose(call, before, incoming)

        async with self._runs.opened(route.tenant, route.agent, call.call, incoming.messages, state, choose) as opened:
            call.opened = opened
            if opened is not None:
                self._turns.resumed(call, opened, incoming)
            keyed = opened is not None and opened.run.keyed
            call.repeatable = keyed and (call.parent is None or call.parent.repeatable)
            if opened is not None and opened.answer is not None:
                return opened.answer
            response = await self._in_a_host(call, incoming, sink)
            if opened is not None:
                await self._runs.finish(opened, response, incoming.state.actor, hops=call.hops)
            return response

    def _saw(self, call: InFlightCall, outcome: str, status: int, seconds: float) -> None:
        """Tell whoever watches rollouts how the call ended; tests say nothing of how an agent does with its callers."""
        if self._watcher is None or call.root.trial is not None or (call.opened and call.opened.answer is not None):
            return
        live = self._routes.known(call.route.tenant, call.route.agent)
        if live is not None and (live.others or live.side == "green"):
            self._watcher.ended(live, call.route.revision, fault_of(outcome, status), seconds)

    # -- in a host ------------------------------------------------------------------------------------------------

    async def _in_a_host(self, call: InFlightCall, incoming: Incoming, sink: Sink | None) -> InvokeResponse:
        traceparent = call.trace.header()
        avoid: set[str] = set()
        deaths = refusals = 0
        while True:
            endpoint = await self._placed(call, incoming, avoid)
            request = self._request(call, incoming, stream=sink is not None)
            try:
                if sink is None:
                    response = await self._hosts.invoke(endpoint, request, traceparent)
                else:
                    response = await self._hosts.stream(endpoint, request, traceparent, sink)
                call.task = None  # nothing runs there any more that taking the revision back could end
                return response
            except RemoteProblem as error:
                if self._turns.falls_back(call, incoming, "agent", error):
                    avoid.clear()
                    continue
                if error.code not in REFUSED_BEFORE_BEGIN or refusals >= MAX_PLACEMENTS:
                    raise _host_problem(error, call) from error
                why = error.code
            except HostUnreachable as error:
                why = "unreachable"
                await self._report(endpoint.host, why, call)
                if refusals >= MAX_PLACEMENTS:
                    raise _failed(call, endpoint, f"can't be reached: {error}") from error
            except HostDied as error:
                why = "crashed"
                await self._report(endpoint.host, why, call)
                deaths += 1
                if error.spoke or not await self._goes_on(call, deaths):
                    raise _failed(call, endpoint, f"died while it ran the call ({error})") from error
                if call.opened is not None:
                    await self._runs.again(call.opened)
            log.warning("call placed again", extra={"host": endpoint.host, "why": why})
            self._metrics.retries.labels(why).inc()
            self._calls.place(call, None)
            refusals += 1
            await self._pause(call, endpoint, why, avoid, refusals)

    async def _placed(self, call: InFlightCall, incoming: Incoming, avoid: set[str]) -> Endpoint:
        """A host for the call, of the revision that it is for once there is one."""
        while True:
            await self._turns.look(call)
            try:
                endpoint = await self._placer.place(call, avoid)
            except CellUnavailable as error:
                if not self._turns.falls_back(call, incoming, "platform", error):
                    raise
                avoid.clear()
                continue
            if not self._turns.taken_back(call):
                return endpoint

    async def _pause(self, call: InFlightCall, endpoint: Endpoint, why: str, avoid: set[str], refusals: int) -> None:
        # Who left the pool and comes back under its name is another process: a pod's container is started again.
        if any(one.host == endpoint.host for one in self._pool.endpoints(call.route.cell)):
            avoid.add(endpoint.host)
        if why == "host-busy" and all(one.host in avoid for one in self._pool.endpoints(call.route.cell)):
            # A full host has room again soon; one that ended or drains leaves the pool.
            await asyncio.sleep(BUSY_PAUSE * 2**refusals)
            avoid.clear()

    def _request(self, call: InFlightCall, incoming: Incoming, *, stream: bool) -> InvokeRequest:
        opened = call.opened
        before = None if opened is None else opened.before
        left = call.deadline - self._loop.time()
        spare = self._deadlines.gateway - self._deadlines.host
        return InvokeRequest(
            call=call.call,
            tenant=call.route.tenant,
            agent=call.route.agent,
            revision=call.route.revision,
            messages=incoming.messages if opened is None else opened.messages,
            deadline=max(0.001, min(self._deadlines.host, left - min(spare, left * 0.1))),
            session=before.state if before is not None else None,
            session_id=incoming.state.session,
            stream=stream,
            run=None if opened is None else opened.name,
            resume=None if opened is None else self._runs.resume_state(opened),
            platform_url=self._platform_url,
            trial=call.trial,
        )

    async def _goes_on(self, call: InFlightCall, deaths: int) -> bool:
        """Whether the call may run again after so many hosts have died under it. A test that kills its host may not."""
        if call.root.trial is not None:
            return False
        opened = call.opened
        if opened is not None and deaths <= self._deaths and (call.repeatable or await self._pure(call)):
            return True
        return deaths <= MAX_DEATHS and await self._harmless(call)

    async def _pure(self, call: InFlightCall) -> bool:
        """Whether all that the agent and those that it may call can ask for is models and each other."""
        todo, seen = [call.route], {call.route.revision}
        while todo:
            document = await self._documents.get(todo.pop().revision)
            if document.source is not None or len(seen) > MOST_AGENTS:
                return False
            for tool in document.tools:
                if isinstance(tool, MessageTool):
                    continue  # sent once in a run
                if not isinstance(tool, AgentTool):
                    return False
                route = self._routes.known(call.route.tenant, tool.agent)
                if route is not None and route.revision not in seen:
                    seen.add(route.revision)
                    todo.append(route)
        return True

    async def _harmless(self, call: InFlightCall) -> bool:
        """Whether the call can't have done anything yet, so that it may be run again."""
        if call.effects:
            return False
        document = await self._documents.get(call.route.revision)
        return not document.tools and document.source is None

    async def _report(self, host: str, kind: str, call: InFlightCall) -> None:
        try:
            await self._pool.report(host, kind=kind, agent=call.route.agent, call=call.call)
        except ProblemError as error:
            log.warning("host not reported", extra={"host": host, "kind": kind, "problem": error.detail})


def _told(incoming: Incoming, call: InFlightCall) -> dict[str, Any]:
    """What the audit log says of a call, beside who and whom: nothing of what is said in it."""
    detail: dict[str, Any] = {"protocol": incoming.protocol, "revision": call.route.revision}
    if call.route.side != "live":
        detail["side"] = call.route.side
    if incoming.state.session is not None:
        detail["session"] = incoming.state.session
    if incoming.parent is not None:
        detail["parent"] = incoming.parent.call
    return detail


def _after(entries: CallEntries, sink: Sink) -> Sink:
    """`sink`, which gets nothing before the decision is durable."""

    async def take(name: bytes, data: bytes) -> None:
        await entries.durable()
        await sink(name, data)

    return take


def _failed(call: InFlightCall, endpoint: Endpoint, what: str) -> HostFailed:
    again = "call again if that is safe"
    if call.opened is not None:
        again = "the same call again goes on from its last finished step"
    return HostFailed(
        f"host {endpoint.host} {what}; agent {call.route.agent} may or may not have acted",
        next_step=f"see `chimera top` for suspects, `chimera logs` for its last lines; {again}",
        agent=call.route.agent,
    )


def _host_problem(error: RemoteProblem, call: InFlightCall) -> ProblemError:
    """A host's problem as the caller gets it. A host that cancels a call nobody cancelled has given it up."""
    if error.code == "call-cancelled":
        return HostFailed(
            f"the host gave up the call of agent {call.route.agent}: {error.detail}",
            next_step=error.next_step or "call again if that is safe",
            agent=call.route.agent,
        )
    if error.code in ("unauthorized", "invalid-call"):
        return HostFailed(f"the host refused the gateway: {error.detail}", next_step="see `chimera doctor`")
    return error
