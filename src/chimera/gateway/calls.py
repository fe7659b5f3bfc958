"""The calls in flight: who calls whom, on which host, and what a call has done that can't be undone.

The internal API trusts no host's word on agent, budget or model: a host names a call, and this table says the rest.
It also says whether a call may be run again after its host died, which is only safe while it has had no effects.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from chimera.gateway.errors import CallLoop, UnknownCall
from chimera.gateway.state.runs import OpenRun
from chimera.gateway.trials import Script
from chimera.platform.model import Route
from chimera_host.contract.trial import Trial
from chimera_host.trace import TraceContext


@dataclass(kw_only=True, slots=True, eq=False)
class InFlightCall:
    """One call. `deadline` is the event loop's time; `effects` counts what it asked of models, agents and secrets.

    `opened` is the run that it works on, where it has one; `repeatable` says that whoever called first has given a key,
    and so allowed that what was in flight when a host died happens twice.

    `family` counts, at the root alone, all calls that the call from outside has led to. `hops` is how many agents
    events have started down to it; what it tells carries that on. `task` runs it, until its host has answered;
    `withdrawn` says that its revision was taken back and it ends, `pinned` that it goes on with what its revision
    began. Of a trial, `script` is what its model says, `trial` what its host is told.
    """

    call: str
    route: Route
    deadline: float
    trace: TraceContext
    parent: "InFlightCall | None" = None
    opened: OpenRun | None = None
    repeatable: bool = False
    host: str | None = None
    depth: int = 0
    effects: int = 0
    family: int = 0
    hops: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    model_seconds: float = field(default=0.0)
    task: "asyncio.Task[Any] | None" = None
    withdrawn: bool = False
    pinned: bool = False
    script: Script | None = None
    trial: Trial | None = None

    @property
    def root(self) -> "InFlightCall":
        """The call from outside that this one belongs to."""
        call = self
        while call.parent is not None:
            call = call.parent
        return call

    @property
    def is_scripted(self) -> bool:
        """Whether it belongs to a test that answers for the tools, so that none may have an effect."""
        trial = self.root.trial
        return trial is not None and trial.tools == "scripted"

    def metered(self, prompt: int, completion: int) -> None:
        """Add tokens to this call and to those it was made for."""
        call: InFlightCall | None = self
        while call is not None:
            call.prompt_tokens += prompt
            call.completion_tokens += completion
            call = call.parent


class CallTable:
    """Calls by id, and how many run on each host and belong to each cell."""

    def __init__(self, *, depth: int, family: int) -> None:
        """Let agents call agents `depth` deep and `family` times for one call from outside."""
        self._depth = depth
        self._family = family
        self._calls: dict[str, InFlightCall] = {}
        self._on_host: dict[str, set[InFlightCall]] = {}
        self._of_cell: dict[str, int] = {}
        self._of_agent: dict[tuple[str, str], set[InFlightCall]] = {}
        self._lent: Counter[tuple[str, str, str]] = Counter()

    def __len__(self) -> int:
        """Calls in flight."""
        return len(self._calls)

    def descend(self, parent: InFlightCall) -> int:
        """Count one more call made for `parent`; its depth. Raises `CallLoop` at either limit."""
        root = parent.root
        if parent.depth + 1 > self._depth:
            raise CallLoop(
                f"agents call agents more than {self._depth} deep, last {parent.route.agent}",
                next_step="break the loop in the agents' tools, or raise the setting admission.depth",
                agent=parent.route.agent,
            )
        if root.family >= self._family:
            raise CallLoop(
                f"one call of {root.route.agent} led to {root.family} calls of agents, as many as may",
                next_step="break the loop in the agents' tools, or raise the setting admission.family",
                agent=root.route.agent,
            )
        root.family += 1
        return parent.depth + 1

    def add(self, call: InFlightCall) -> int:
        """The call begins; how many its cell has."""
        self._calls[call.call] = call
        self._of_agent.setdefault((call.route.tenant, call.route.agent), set()).add(call)
        count = self._of_cell.get(call.route.cell, 0) + 1
        self._of_cell[call.route.cell] = count
        return count

    def remove(self, call: InFlightCall) -> int:
        """The call ended; how many its cell has left."""
        self.place(call, None)
        del self._calls[call.call]
        key = (call.route.tenant, call.route.agent)
        self._of_agent[key].remove(call)
        if not self._of_agent[key]:
            del self._of_agent[key]
        return self._less(self._of_cell, call.route.cell)

    def move(self, call: InFlightCall, route: Route) -> tuple[int, int]:
        """The call goes to another revision; how many calls its cell has left, and the other one has then."""
        self.place(call, None)
        left = self._less(self._of_cell, call.route.cell)
        call.route = route
        count = self._of_cell[route.cell] = self._of_cell.get(route.cell, 0) + 1
        return left, count

    def of_agent(self, tenant: str, agent: str) -> list[InFlightCall]:
        """The agent's calls in flight."""
        return list(self._of_agent.get((tenant, agent), ()))

    def place(self, call: InFlightCall, host: str | None) -> None:
        """The call runs on `host` (None: on none)."""
        if call.host is not None:
            there = self._on_host[call.host]
            there.remove(call)
            if not there:
                del self._on_host[call.host]
        call.host = host
        if host is not None:
            self._on_host.setdefault(host, set()).add(call)

    def on_host(self, host: str) -> int:
        """Calls that run on `host` by this gateway."""
        return len(self._on_host.get(host, ()))

    def in_session(self, tenant: str, agent: str, session: str) -> bool:
        """Whether a call of a tenant's agent is under way in a session. Costs a step for each call of the agent."""
        its = self._of_agent.get((tenant, agent), ())
        return any(call.opened is not None and call.opened.run.session == session for call in its)

    def revisions_on(self, host: str, *, cell: str) -> frozenset[str]:
        """The revisions that calls in flight on `host`, one of `cell`, are of, and those lent to it.

        Costs a step for each such call.
        """
        called = {call.route.revision for call in self._on_host.get(host, ()) if call.route.cell == cell}
        return frozenset(called | {revision for at, of, revision in self._lent if (at, of) == (host, cell)})

    @contextmanager
    def lent(self, revision: str, *, host: str, cell: str) -> Iterator[None]:
        """Meanwhile `host`, one of `cell`, may read this revision though no call of it runs there yet."""
        self._lent[host, cell, revision] += 1
        try:
            yield
        finally:
            self._lent[host, cell, revision] -= 1
            self._lent = +self._lent

    def named(self, call: str, *, host: str, cell: str) -> InFlightCall:
        """The call that a host names, if it is one of the host's own; else `UnknownCall`."""
        found = self._calls.get(call)
        if found is None or found.route.cell != cell or found.host != host:
            raise UnknownCall(
                f"no call {call[:64]!r} is in flight on host {host}",
                next_step="name the call in the header Chimera-Call, while it runs",
            )
        return found

    @staticmethod
    def _less(counts: dict[str, int], key: str) -> int:
        left = counts[key] - 1
        if left:
            counts[key] = left
        else:
            del counts[key]
        return left
