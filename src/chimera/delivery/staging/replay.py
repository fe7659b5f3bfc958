"""Putting earlier inputs to two revisions: each input to both at the same time, and what their answers meet.

Inputs are copies of what people and programs said, so each is looked up again right before it is asked: one that was
erased meanwhile isn't asked any more. Calls of a person carry the person, so that erasing finds them here too.

As with tests, an input may take its host with it, and others' calls; whoever was lost with a host is asked once more at
the end, one by one. What no gateway ran in time says nothing of an agent and is left out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from chimera.agents.cases import REAL_SECONDS, AgentTest, Expectation, Turn
from chimera.agents.compile import CanonicalDefinition
from chimera.delivery.staging.paired import Pair, Side
from chimera.delivery.staging.sampling import Earlier, Mark, stand_ins
from chimera.delivery.trials import judging
from chimera.delivery.trials.asking import Ask, Told, TrialRequest
from chimera.delivery.trials.model import Case
from chimera.delivery.trials.runner import ALONE, HOST_FAILED, Answer, Place, Runner, call_key
from chimera_host.contract.trial import Trial

NOT_RUN = "trial-not-run"
SAYS_SOMETHING, IS_JSON, AS_GOOD = "says something", "is JSON where the other is", "is as good as the other"
IsKept = Callable[[Earlier], Awaitable[bool]]
SideName = Literal["new", "live"]


class Candidate(Struct, frozen=True, kw_only=True):
    """One agent: its new revision and the live one, what is put to both, and what answers are held against."""

    new: CanonicalDefinition
    live: CanonicalDefinition
    inputs: tuple[Earlier, ...]
    marks: tuple[Mark, ...]

    @property
    def agent(self) -> str:
        """Its name."""
        return self.new.agent.name


class Replayed(Struct, frozen=True, kw_only=True):
    """What came of an input; `missed` are the labels of what the live revision's answer meets and the new one's not."""

    input: Earlier
    pair: Pair
    missed: tuple[str, ...] = ()


class Places(Struct, frozen=True, kw_only=True):
    """Where the two sides are; answers of both are judged where the new one is."""

    new: Place
    live: Place


class Replayer:
    """Replays inputs."""

    def __init__(self, runner: Runner, *, parallel: int) -> None:
        """Ask by `runner`, `parallel` inputs at once; it holds answers against expectations, too."""
        self._runner = runner
        self._parallel = parallel

    async def run(
        self, candidates: Sequence[Candidate], places: Places, is_kept: IsKept
    ) -> Mapping[str, Sequence[Replayed]]:
        """What came of the inputs of all of them, by agent."""
        waiting = iter([(one, said) for one in candidates for said in one.inputs])
        done: dict[str, list[Replayed]] = {one.agent: [] for one in candidates}
        lost: list[tuple[Candidate, Earlier]] = []
        async with asyncio.TaskGroup() as group:
            for number in range(min(self._parallel, sum(len(one.inputs) for one in candidates))):
                group.create_task(self._work(waiting, places, is_kept, done, lost), name=f"replay-{number}")
        for left in reversed(range(ALONE)):
            again, lost = lost, []
            for candidate, said in again:
                await self._one(candidate, said, places, is_kept, done, lost, alone=ALONE - left, last=not left)
        return done

    async def _work(
        self,
        waiting: Iterator[tuple[Candidate, Earlier]],
        places: Places,
        is_kept: IsKept,
        done: dict[str, list[Replayed]],
        lost: list[tuple[Candidate, Earlier]],
    ) -> None:
        for candidate, said in waiting:
            await self._one(candidate, said, places, is_kept, done, lost)

    async def _one(
        self,
        candidate: Candidate,
        said: Earlier,
        places: Places,
        is_kept: IsKept,
        done: dict[str, list[Replayed]],
        lost: list[tuple[Candidate, Earlier]],
        *,
        alone: int = 0,
        last: bool = False,
    ) -> None:
        if not await is_kept(said):
            return
        key = call_key(places.new.key, candidate.agent, said.digest, str(alone))
        new, live = await asyncio.gather(
            self._ask(candidate, "new", said, places.new, key), self._ask(candidate, "live", said, places.live, key)
        )
        codes = [told.problem.code for told in (new, live) if told.problem is not None]
        if HOST_FAILED in codes and not last:
            lost.append((candidate, said))
        elif NOT_RUN not in codes:
            done[candidate.agent].append(await self._compared(candidate, said, places.new, key, new, live))

    async def _ask(self, candidate: Candidate, side: SideName, said: Earlier, place: Place, key: str) -> Told:
        value = candidate.new if side == "new" else candidate.live
        answers = stand_ins(value, candidate.new.tests)
        return await self._runner.call(
            Ask(
                environment=place.scripted,
                agent=candidate.agent,
                key=call_key(key, side),
                messages=said.messages,
                seconds=REAL_SECONDS,
                subject=said.subject,
                request=TrialRequest(model="real", trial=Trial(tools="scripted", answers=answers)),
            )
        )

    # -- answers ------------------------------------------------------------------------------------------------------

    async def _compared(
        self, candidate: Candidate, said: Earlier, place: Place, key: str, new: Told, live: Told
    ) -> Replayed:
        if new.problem is not None or live.problem is not None:
            return Replayed(input=said, pair=Pair(new=_side(new), live=_side(live)))
        place = msgspec.structs.replace(place, subject=said.subject)
        met: dict[SideName, set[str]] = {"new": set(), "live": set()}
        for label, by_new, by_live in _plain(new.output, live.output):
            _count(met, label, by_new, by_live)
        for number, mark in enumerate(candidate.marks):
            found = await asyncio.gather(
                self._meets(candidate, mark, said, place, call_key(key, f"new-{number}"), new),
                self._meets(candidate, mark, said, place, call_key(key, f"live-{number}"), live),
            )
            _count(met, mark.label, *found)
        if place.judge is not None and new.output != live.output:
            found = await asyncio.gather(
                self._is_as_good(candidate, said, place, call_key(key, "as-good-new"), new, live.output),
                self._is_as_good(candidate, said, place, call_key(key, "as-good-live"), live, new.output),
            )
            _count(met, AS_GOOD, *found)
        return Replayed(
            input=said,
            pair=Pair(new=_side(new, len(met["new"])), live=_side(live, len(met["live"]))),
            missed=tuple(sorted(met["live"] - met["new"])),
        )

    async def _meets(
        self, candidate: Candidate, mark: Mark, said: Earlier, place: Place, key: str, told: Told
    ) -> bool | None:
        """Whether an answer meets a mark; None where that can't be said."""
        test = msgspec.structs.replace(mark.test, integration=False, input=said.messages[-1].content)
        case = Case(agent=candidate.agent, revision="", test=test)
        return await self._look(case, mark.expect, said, place, key, told)

    async def _is_as_good(
        self, candidate: Candidate, said: Earlier, place: Place, key: str, told: Told, other: str
    ) -> bool | None:
        test = AgentTest(name=AS_GOOD, input=said.messages[-1].content, expect=Expectation(rubric=judging.AS_GOOD))
        case = Case(agent=candidate.agent, revision="", test=test)
        return await self._look(case, test.expect, said, place, key, told, other)

    async def _look(
        self,
        case: Case,
        expect: Expectation,
        said: Earlier,
        place: Place,
        key: str,
        told: Told,
        other: str | None = None,
    ) -> bool | None:
        """Whether an answer is as expected; None where that can't be said."""
        answer = Answer(
            case=case,
            place=place,
            key=key,
            turn=Turn(input=case.test.input, expect=expect),
            said=said.messages,
            told=told,
            judged=[],
            problems=[],
            other=other,
        )
        reasons, skipped = await self._runner.look(answer)
        return None if skipped or answer.problems else not reasons


def calls_for_each(marks: Sequence[Mark], *, judge: bool) -> int:
    """Calls that one input costs: of both sides, for what costs a call to look at, and of the judge."""
    return 2 * (1 + sum(mark.costs for mark in marks) + judge)


def _side(told: Told, met: int = 0) -> Side:
    return Side(failed=told.problem is not None, seconds=told.seconds, met=met)


def _count(met: dict[SideName, set[str]], label: str, by_new: bool | None, by_live: bool | None) -> None:
    """Note who meets something, where it can be said of both."""
    if by_new is None or by_live is None:
        return
    if by_new:
        met["new"].add(label)
    if by_live:
        met["live"].add(label)


def _plain(new: str, live: str) -> Iterator[tuple[str, bool, bool]]:
    """What is expected of every answer: that it says something, and stays JSON where programs read it."""
    yield SAYS_SOMETHING, bool(new.strip()), bool(live.strip())
    yield IS_JSON, _is_json(new), _is_json(live)


def _is_json(answer: str) -> bool:
    if not answer.lstrip().startswith(("{", "[")):
        return False
    try:
        msgspec.json.decode(answer.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return False
    return True
