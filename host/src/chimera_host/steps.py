"""Steps of a call's run, and the idempotency keys of what is asked for within a step.

A step is finished once `save` has come back: the platform has committed it, and a host that goes on with the run is
given it in `finished`. What was in flight when a host died runs again. So that it has its effects once, whatever it
asks of models, tools, agents and shared spaces carries a key that is the same when it is asked again:

    key = digest(run, step, what is asked, how many times the same was asked in this step before)

There is no counter over different things in it, so branches that run side by side, in any order, get the same keys each
time. Two that ask the same in one step get two keys, hence two answers, and it doesn't matter who of them gets which.
What failed and is asked again in its step gets the same key again, since it is wanted once.

The step that something belongs to is the innermost of:

- a running tool: what a tool asks for is named after the tool's own key, which is `Scope.key` there;
- a step that code named with `step(name)`, or a framework's adapter did. A name stands for one step of a run;
- what the adapter finds for the framework's own task that is running, where it told the call how (`steps_by`);
- otherwise the stretch between two saves, which is named by how many steps are finished. That fits to code that does
  one step after another; branches side by side need names.

`later` leaves a save for the moment before something else is asked for. So the last step of a call costs nothing: what
follows it is the call's answer, which is committed as such.

A call without a run has none of this: no scope, no key, no request.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from heapq import heappop, heappush
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from chimera_host.contract.state import FinishedStep, StepBody, StepPage, StepSaved

_canonical = msgspec.json.Encoder(order="deterministic", enc_hook=str).encode


class Scope:
    """What is asked for within one step or one tool. For the event loop's thread, where all of it is asked."""

    __slots__ = ("_used", "key")

    def __init__(self, *names: str) -> None:
        """The scope of that name; its `key` stands for the whole of it, for code that wants one for an effect."""
        self.key = _digest(*(name.encode() for name in names))
        self._used: dict[str, _Numbers] = {}

    @classmethod
    def of_tool(cls, key: str) -> "Scope":
        """The scope of a running tool, which was asked for with `key`."""
        scope = cls()
        scope.key = key
        return scope

    @contextmanager
    def asking(self, kind: str, *content: Any) -> Iterator[str]:
        """The key of something that is asked for now. `content` is any JSON that tells it from what else is asked."""
        asked = _digest(self.key.encode(), kind.encode(), *(_canonical(part) for part in content))
        numbers = self._used.setdefault(asked, _Numbers())
        number = numbers.take()
        try:
            yield _digest(asked.encode(), str(number).encode())
        except BaseException:
            numbers.give_back(number)
            raise


class _Numbers:
    """Hands out 0, 1, 2 …, and those given back first, the least before the others."""

    __slots__ = ("_back", "_next")

    def __init__(self) -> None:
        self._next = 0
        self._back: list[int] = []

    def take(self) -> int:
        if self._back:
            return heappop(self._back)
        self._next += 1
        return self._next - 1

    def give_back(self, number: int) -> None:
        heappush(self._back, number)


current_scope: ContextVar[Scope | None] = ContextVar("current_scope", default=None)
"""The scope of the running tool or named step; None: that of the stretch between two saves, or of no run."""


@contextmanager
def within(scope: Scope) -> Iterator[Scope]:
    """Ask for things in this scope."""
    token = current_scope.set(scope)
    try:
        yield scope
    finally:
        current_scope.reset(token)


class Given(Struct, frozen=True, kw_only=True):
    """What the run was when this call was given it."""

    call: str
    run: str
    finished: int


class StepStore(Protocol):
    """The part of the platform's client that keeps steps."""

    async def save_step(self, call_id: str, body: StepBody) -> StepSaved:
        """Commit a step."""

    async def steps(self, call_id: str, after: int) -> StepPage:
        """A page of the finished steps."""


class RunSteps:
    """The steps of the run that a call works on."""

    __slots__ = ("_between", "_given", "_later", "_saving", "_store", "_version", "find", "finished")

    def __init__(self, given: Given, store: StepStore) -> None:
        """Go on from what is given; `load` first."""
        self.finished: Mapping[str, FinishedStep] = {}
        self.find: Callable[[], Scope | None] = _nothing
        self._given = given
        self._store = store
        self._later: list[StepBody] = []
        self._saving = asyncio.Lock()
        self._version = given.finished
        self._between = self._stretch()

    async def load(self) -> None:
        """Read what is finished, in its order; `finished` is by name, without what this call adds."""
        found: dict[str, FinishedStep] = {}
        after: int | None = 0 if self._given.finished else None
        while after is not None:
            page = await self._store.steps(self._given.call, after)
            found |= {one.step: one for one in page.steps}
            after = page.next
        self.finished = found
        self._reached(max((one.version for one in found.values()), default=0))

    async def save(self, name: str, kind: str, output: Any) -> int:
        """Commit a finished step; its number in the run. The same once more is the same step."""
        async with self._saving:
            await self._commit()
            return await self._save(StepBody(step=name, kind=kind, output=output, run=self._given.run))

    def later(self, name: str, kind: str, output: Any) -> None:
        """Leave the save of a finished step, as it is now, to the next `commit`. From any thread."""
        kept = msgspec.Raw(_canonical(output))
        self._later.append(StepBody(step=name, kind=kind, output=kept, run=self._given.run))

    @property
    def waiting(self) -> bool:
        """Whether something is left for later, or being saved."""
        return bool(self._later) or self._saving.locked()

    async def commit(self) -> None:
        """Save what was left for later; when this is back, it is saved, whoever did it."""
        if self.waiting:
            async with self._saving:
                await self._commit()

    async def _commit(self) -> None:
        while self._later:
            await self._save(self._later[0])
            del self._later[0]

    async def _save(self, body: StepBody) -> int:
        saved = await self._store.save_step(self._given.call, body)
        self._reached(saved.version)
        return saved.version

    def scope(self) -> Scope:
        """Where what is asked for now belongs to."""
        return current_scope.get() or self.find() or self._between

    def named(self, name: str) -> Scope:
        """The scope of a step that has a name."""
        return Scope(self._given.run, "step", name)

    def _reached(self, version: int) -> None:
        if version > self._version:
            self._version = version
            self._between = self._stretch()

    def _stretch(self) -> Scope:
        return Scope(self._given.run, "after", str(self._version))


def _nothing() -> None:
    """No framework knows better."""


def _digest(*parts: bytes) -> str:
    """A key of 40 characters; each part counts with its length, so that no two lists of parts have the same."""
    made = hashlib.sha256()
    for part in parts:
        made.update(len(part).to_bytes(8, "big") + part)
    return made.hexdigest()[:40]
