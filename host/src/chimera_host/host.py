"""The host: admits calls, runs each in a task of its own, and knows at any time what runs.

The HTTP side is in `server`, the agents in `agents`, one call in `calls`; the watchdog looks in from its thread through
`observe`. A host ends in one of three ways: drained (SIGTERM; calls finish first), given up (by the watchdog; others
have the grace to finish), or by the lifeline when its parent is gone.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

from chimera_host import memory
from chimera_host.agents import Agents, MakeBroker, make_broker
from chimera_host.blackbox import BlackBox, RecordedCall
from chimera_host.calls import Call
from chimera_host.checks import judged
from chimera_host.config import HostConfig
from chimera_host.contract.call import InvokeRequest, InvokeResponse, LoadedReport, LoadRequest, Message, SessionState
from chimera_host.contract.problem import ProblemError
from chimera_host.errors import CallCancelled, HostBusy, HostDraining, InvalidCall
from chimera_host.executor import CallExecutor
from chimera_host.logs import CapturedStream, log_fields
from chimera_host.metrics import CallMetrics, exposition
from chimera_host.outcome import as_problem
from chimera_host.platform_client import PlatformClient
from chimera_host.ports import FrameworkAdapter, RunResult, current_call
from chimera_host.renewal import keep_fresh
from chimera_host.streaming import EventQueue
from chimera_host.threads import WatchedThreads
from chimera_host.trace import TraceContext, span
from chimera_host.watchdog import TICK, Observation, OverdueCall, Verdict

log = logging.getLogger(__name__)

SPARE_SLOTS = 16
CLEAN_EVERY = 30.0
RELIEVE_EVERY = 10.0


class Host:
    """One host. Made inside its event loop; `aclose` when done."""

    def __init__(
        self,
        config: HostConfig,
        adapter: FrameworkAdapter,
        *,
        black_box: BlackBox | None = None,
        captured: Sequence[CapturedStream] = (),
        make_broker: MakeBroker = make_broker,
        platform: PlatformClient | None = None,
    ) -> None:
        """A host by `config` that runs agents of `adapter`'s framework; by default for the platform that it names."""
        self.config = config
        self.loop = asyncio.get_running_loop()
        self.platform = platform or PlatformClient(config.platform_url, config.platform_token)
        self.threads = WatchedThreads(config.threads)
        self.executor = CallExecutor(config.threads, self.loop)
        self.agents = Agents(
            adapter=adapter,
            platform=self.platform,
            threads=self.threads,
            work_dir=Path(config.work_dir),
            memory_bytes=config.memory_bytes,
            make_broker=make_broker,
        )
        self.metrics = CallMetrics()
        self.draining = False
        self.verdict: Verdict | None = None
        self._black_box = black_box
        self._captured = captured
        self._calls: dict[str, Call] = {}
        self._by_task: dict[asyncio.Task[Any], Call] = {}
        self._nothing_runs = asyncio.Event()
        self._nothing_runs.set()
        self._growth = memory.Growth()
        self._resident = memory.resident_bytes()
        self._beats = 0
        self._ticks = self.loop.call_later(TICK / 2, self._tick)
        self._cleaned_at = self.loop.time()
        self._relieved_at = -RELIEVE_EVERY
        self._renewing = self.loop.create_task(keep_fresh(self.platform, config.identity_file), name="token")

    @property
    def in_flight(self) -> int:
        """How many calls run, those included that were cancelled and haven't come back."""
        return len(self._calls)

    @property
    def ready(self) -> bool:
        """Whether it takes calls."""
        return not self.draining and self.verdict is None

    # -- calls ----------------------------------------------------------------------------------------------------

    def begin(self, request: InvokeRequest, trace: TraceContext | None, events: EventQueue | None) -> Call:
        """Admit a call and start its task; its answer comes in `Call.answer`. Raises the refusal."""
        try:
            self._admit(request)
        except ProblemError as refusal:
            self.metrics.refused(refusal.code)
            raise
        call = Call(
            request,
            loop=self.loop,
            longest=self.config.request_timeout,
            platform=self.platform,
            threads=self.threads,
            events=events,
            on_cancel=self._cancelled,
        )
        if self._black_box is not None:
            now = time.time()
            call.slot = self._black_box.begin(
                RecordedCall(
                    tenant=request.tenant,
                    agent=request.agent,
                    call=request.call,
                    revision=request.revision,
                    started=now,
                    deadline=now + request.deadline,
                )
            )
        self._calls[request.call] = call
        self.platform.at(request.call, request.platform_url)
        self._nothing_runs.clear()
        context = copy_context()
        context.run(self._enter, call)
        task = self.loop.create_task(self._run(call, trace), name=request.call, context=context)
        call.task = task
        self._by_task[task] = call
        task.add_done_callback(partial(self._ended, call))
        return call

    def find(self, call_id: str) -> Call | None:
        """A running call by its id."""
        return self._calls.get(call_id)

    def _admit(self, request: InvokeRequest) -> None:
        if not self.ready:
            raise HostDraining(
                f"host {self.config.host} takes no more calls",
                next_step="send the call to another host of the cell",
                retry_after=1.0,
            )
        if len(self._calls) >= self.config.concurrency:
            raise HostBusy(
                f"host {self.config.host} has {len(self._calls)} calls, as many as it takes",
                next_step="send the call to another host of the cell",
                retry_after=1.0,
            )
        if request.call in self._calls:
            raise InvalidCall(f"call {request.call} runs already", next_step="give each call an id of its own")
        if not request.messages:
            raise InvalidCall("a call needs at least one message", next_step="send the caller's text in `messages`")

    @staticmethod
    def _enter(call: Call) -> None:
        request = call.request
        current_call.set(call)
        log_fields.set(
            {
                "request": request.call,
                "tenant": request.tenant,
                "agent": request.agent,
                "revision": request.revision,
            }
        )

    def _cancelled(self, call: Call) -> None:
        if self._black_box is not None:
            self._black_box.mark_cancelled(call.slot)

    async def _run(self, call: Call, trace: TraceContext | None) -> None:
        try:
            with span("host.invoke", remote=trace) as opened:
                response = await self._answer(call)
                opened.set(model_calls=call.model_calls, tool_calls=call.tool_calls, loaded=call.loaded)
            if not call.answer.done():
                call.answer.set_result(response)
        except BaseException as error:
            problem = as_problem(error, agent=call.request.agent, reason=call.reason)
            call.outcome = problem.code
            if not call.answer.done():
                call.answer.set_exception(problem)
            level = logging.INFO if isinstance(problem, CallCancelled) or problem.status < 500 else logging.WARNING
            log.log(
                level,
                "call failed",
                extra={"code": problem.code, "problem": problem.detail},
                exc_info=error if problem.code in ("agent-failed", "agent-load-failed", "internal") else None,
            )

    async def _answer(self, call: Call) -> InvokeResponse:
        loaded = await self.agents.take(call)
        began = time.monotonic()
        try:
            await call.resume()
            trial = call.request.trial
            if trial is not None and trial.check is not None:
                result = await judged(loaded.code, trial.check, call)
            else:
                result = await loaded.agent.run(call)
        finally:
            if call.reason is not None:
                await self.executor.settled(call)
            call.run_seconds = time.monotonic() - began
            self.agents.release(call, loaded)
        if call.reason is not None:  # the framework swallowed the cancellation
            raise call.reason
        if call.misfits:  # whatever the agent made of it
            raise call.misfits[0]
        return _response(self.config.host, call, result)

    def _ended(self, call: Call, task: "asyncio.Task[None]") -> None:
        call.close()
        del self._calls[call.request.call]
        self.platform.at(call.request.call, None)
        del self._by_task[task]
        if self._black_box is not None:
            self._black_box.end(call.slot)
        for stream in self._captured:
            stream.finish(call.request.call)
        self.metrics.ended(
            call.outcome,
            time.monotonic() - call.began,
            model_calls=call.model_calls,
            tool_calls=call.tool_calls,
        )
        if not self._calls:
            self._nothing_runs.set()

    # -- the watchdog's side, from its thread -----------------------------------------------------------------------

    def observe(self) -> Observation:
        """How the host stands."""
        now = time.monotonic()
        calls = list(self._calls.values())
        cancelled = [
            OverdueCall(agent=call.request.agent, call=call.request.call, seconds=now - call.cancelled_at)
            for call in calls
            if call.cancelled_at is not None
        ]
        known = {call.agent for call in cancelled}
        cancelled += [
            OverdueCall(agent=owner, call="", seconds=seconds)
            for owner, seconds in (
                *self.threads.missing(now),
                *self.executor.missing(now),
                *self.agents.missing_tools(now),
            )
            if owner and owner not in known
        ]
        return Observation(
            beats=self._beats,
            cancelled=tuple(cancelled),
            others=sum(call.cancelled_at is None for call in calls),
            resident=self._resident,
            heaviest=self._growth.heaviest(),
        )

    def blame(self) -> Sequence[tuple[str, str]]:
        """Agent and call that the event loop is busy with; all running ones where that can't be told."""
        task = asyncio.current_task(self.loop)
        call = self._by_task.get(task) if task is not None else None
        calls = [call] if call is not None else list(self._calls.values())
        return [(call.request.agent, call.request.call) for call in calls]

    def calls_of(self, agents: Sequence[str]) -> Sequence[str]:
        """The running calls of these agents."""
        return [call.request.call for call in list(self._calls.values()) if call.request.agent in agents]

    def give_up(self, verdict: Verdict) -> None:
        """Take no more calls; the watchdog ends the process when the others are done."""
        self.verdict = verdict

    # -- the housekeeping, once a second ----------------------------------------------------------------------------

    def _tick(self) -> None:
        self._beats += 1
        self._ticks = self.loop.call_later(TICK / 2, self._tick)
        resident = memory.resident_bytes()
        if self._calls:
            self._growth.charge(resident - self._resident, {call.request.agent for call in self._calls.values()})
        self._resident = resident
        now = self.loop.time()
        if resident > memory.SHORT * self.config.memory_bytes and now - self._relieved_at >= RELIEVE_EVERY:
            self._relieved_at = now
            given_up = self.agents.relieve()
            log.warning("memory is short", extra={"resident_bytes": resident, "agents_given_up": given_up})
        if now - self._cleaned_at >= min(CLEAN_EVERY, self.config.idle_unload / 2):
            self._cleaned_at = now
            self.agents.measure(resident)
            if unloaded := self.agents.unload_idle(self.config.idle_unload):
                log.info("idle agents unloaded", extra={"agents": unloaded, "loaded": len(self.agents)})

    # -- the end --------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Take no more calls and let the running ones finish, within the bounds of the configuration."""
        self.draining = True
        log.info("host drains", extra={"in_flight": self.in_flight})
        if await self._until_nothing_runs(self.config.drain):
            return
        for call in list(self._calls.values()):
            call.cancel(CallCancelled(f"host {self.config.host} shut down", agent=call.request.agent))
        if not await self._until_nothing_runs(self.config.grace):
            log.warning("calls did not come back", extra={"in_flight": self.in_flight})

    async def _until_nothing_runs(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._nothing_runs.wait()
        except TimeoutError:
            return False
        return True

    async def aclose(self) -> None:
        """Let go of agents and connections."""
        self._ticks.cancel()
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        await self.agents.aclose()
        await self.platform.aclose()

    # -- reports --------------------------------------------------------------------------------------------------

    async def load(self, request: LoadRequest) -> None:
        """Have an agent loaded before its first call; raises what is wrong with it."""
        if self.draining or not self.ready:
            raise HostDraining(
                f"host {self.config.host} loads no more agents", next_step="load it on another host of the cell"
            )
        await self.agents.load(request)

    def loaded(self, limit: int) -> LoadedReport:
        """What is loaded."""
        return LoadedReport(
            host=self.config.host,
            framework=self.config.framework,
            loaded=len(self.agents),
            agents=self.agents.report(limit),
            in_flight=self.in_flight,
            resident_bytes=memory.resident_bytes(),
            limit_bytes=self.config.memory_bytes,
            evictions=self.agents.counts.evictions,
        )

    def exposition(self) -> str:
        """The metrics page."""
        counts = self.agents.counts
        return exposition(
            self.metrics,
            {
                "chimera_host_model_calls_total": ("Model calls made for agents.", self.metrics.model_calls),
                "chimera_host_tool_calls_total": ("Tool calls made for agents.", self.metrics.tool_calls),
                "chimera_host_loads_total": ("Agents loaded.", counts.loads),
                "chimera_host_load_failures_total": ("Agents that could not be loaded.", counts.load_failures),
                "chimera_host_load_seconds_total": ("Time spent loading agents.", counts.load_seconds),
                "chimera_host_evictions_total": ("Agents given up for others' sake.", counts.evictions),
                "chimera_host_unloads_total": ("Agents given up because they were idle.", counts.unloads),
            },
            {
                "chimera_host_in_flight": ("Calls that run.", self.in_flight),
                "chimera_host_loaded_agents": ("Agents loaded.", len(self.agents)),
                "chimera_host_agent_capacity": ("Agents that fit, by what was measured.", self.agents.capacity),
                "chimera_host_agent_bytes": ("Estimated bytes of one loaded agent.", self.agents.costs.each),
                "chimera_host_resident_bytes": ("Bytes of the process in memory.", memory.resident_bytes()),
                "chimera_host_memory_limit_bytes": ("Bytes that the process may use.", self.config.memory_bytes),
                "chimera_host_threads": ("Threads for blocking frameworks.", self.threads.alive),
                "chimera_host_thread_queue": ("Functions that wait for a thread.", self.threads.waiting),
                "chimera_host_ready": ("1 if the host takes calls.", self.ready),
            },
        )


def _response(host: str, call: Call, result: RunResult) -> InvokeResponse:
    request = call.request
    added = result.messages or (Message(role="assistant", content=result.output),)
    state = None
    if request.session is not None:
        values = request.session.values if result.values is None else result.values
        state = SessionState(messages=(*request.session.messages, *request.messages, *added), values=values)
    return InvokeResponse(
        output=result.output,
        call=request.call,
        agent=request.agent,
        revision=request.revision,
        host=host,
        messages=added,
        session=state,
        threads=result.threads,
        timings=call.timings(),
        model_calls=call.model_calls,
        tool_calls=call.tool_calls,
    )
