"""Calls of tests without hosts, and earlier traffic without a database: a test says what each is told."""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from chimera.delivery.policy import ReplayPolicy
from chimera.delivery.staging.ports import Wanted
from chimera.delivery.staging.sampling import Earlier, draw, size_of
from chimera.delivery.trials.asking import Ask, Told
from chimera.delivery.trials.errors import NotRun
from chimera_host.contract.problem import PROBLEM_TYPE_PREFIX, Problem

Answer = Callable[[Ask], Told | str | Awaitable[Told | str]]


def problem(code: str, detail: str = "because", status: int = 500) -> Told:
    """A call that came to nothing."""
    made = Problem(type=PROBLEM_TYPE_PREFIX + code, title=code, status=status, detail=detail, code=code)
    return Told(problem=made)


def echo(ask: Ask) -> str:
    """What a scripted model says first, else what the caller said."""
    if ask.request.says:
        return ask.request.says[0].text or ""
    return f"echo: {ask.messages[-1].content}"


@dataclass(slots=True, eq=False)
class _Made:
    """A call that was made, and how many wait for it."""

    ask: Ask
    work: "asyncio.Task[Told]"
    waiting: int = 0


class FakeCalls:
    """The port `Calls`: `answer` says what each call is told.

    `asked` are the calls in their order, `cancelled` those that nobody waited for, `most` how many ran at once.
    """

    def __init__(self, answer: Answer = echo) -> None:
        """Tell what `answer` says."""
        self.answer = answer
        self.asked: list[Ask] = []
        self.cancelled: list[Ask] = []
        self.most = 0
        self._made: dict[tuple[str, str, str], _Made] = {}
        self._running = 0

    async def call(self, ask: Ask) -> Told:
        """See `Calls`."""
        key = (ask.environment, ask.agent, ask.key)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = _Made(ask, asyncio.create_task(self._run(ask), name=f"fake-call-{ask.key[:8]}"))
        elif (made.ask.messages, made.ask.seconds, made.ask.request) != (ask.messages, ask.seconds, ask.request):
            raise NotRun(f"the key of a test's call was used for another one of agent {ask.agent}")
        made.waiting += 1
        try:
            return await asyncio.shield(made.work)
        except asyncio.CancelledError:
            if made.waiting == 1 and not made.work.done():
                del self._made[key]
                made.work.cancel()
                await asyncio.gather(made.work, return_exceptions=True)
            raise
        finally:
            made.waiting -= 1

    async def _run(self, ask: Ask) -> Told:
        self.asked.append(ask)
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            async with asyncio.timeout(ask.seconds):
                said = self.answer(ask)
                found = await said if inspect.isawaitable(said) else said
                await asyncio.sleep(0)
        except TimeoutError:
            found = problem("deadline-exceeded", status=504)
        except asyncio.CancelledError:
            self.cancelled.append(ask)
            raise
        finally:
            self._running -= 1
        return Told(output=found) if isinstance(found, str) else found


class FakeTraffic:
    """The port `Traffic`: `kept` by tenant and agent; `ends` says when an input may be gone, `policy` what is let.

    `told_of` is what the audit log would say.
    """

    def __init__(self, policy: ReplayPolicy | None = None) -> None:
        """Let what `policy` lets be replayed."""
        self.policy = policy or ReplayPolicy()
        self.kept: dict[tuple[str, str], list[Earlier]] = {}
        self.ends: dict[str, float] = {}
        self.told_of: list[tuple[str, str, dict[str, int]]] = []

    def add(self, tenant: str, *said: Earlier) -> None:
        """There are these, too."""
        for one in said:
            self.kept.setdefault((tenant, one.agent), []).append(one)

    async def allowed(self, tenant: str) -> ReplayPolicy:
        """See `Traffic`."""
        return self.policy

    async def earlier(self, tenant: str, agents: Sequence[str], wanted: Wanted) -> Mapping[str, Sequence[Earlier]]:
        """See `Traffic`."""
        return {agent: draw(self._of(tenant, agent, wanted), wanted.want, wanted.seed) for agent in agents}

    def _of(self, tenant: str, agent: str, wanted: Wanted) -> list[Earlier]:
        return [
            one
            for one in self.kept.get((tenant, agent), [])
            if (wanted.people or one.subject is None)
            and self.ends.get(one.name, math.inf) > wanted.kept_until
            and size_of(one.messages) <= wanted.most_bytes
        ]

    async def is_kept(self, tenant: str, one: Earlier) -> bool:
        """See `Traffic`."""
        return one in self.kept.get((tenant, one.agent), [])

    async def told(self, tenant: str, change: str, counts: Mapping[str, int]) -> None:
        """See `Traffic`."""
        self.told_of.append((tenant, change, dict(counts)))
