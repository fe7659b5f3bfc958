"""Running cases: several at once, each turn by turn, until it is decided whether enough of a case's runs passed.

A case can't hold up others: its calls end at their deadlines. One that kills its host may take others down with it, so
whoever was lost with a host is run once more at the end, alone: then it is seen whose fault it was.

An environment is made for its tests, so its cells start with their first calls; in a cluster that takes longer than a
case may. A call that found no host has done nothing, and is made again.
"""

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from chimera.agents.cases import Turn
from chimera.delivery.model import Outcome
from chimera.delivery.trials import judging
from chimera.delivery.trials.asking import Ask, Told, TrialRequest
from chimera.delivery.trials.expectations import faults
from chimera.delivery.trials.model import Case, CaseResult, Tools, Try
from chimera.delivery.trials.ports import Calls
from chimera_host.contract.call import Message
from chimera_host.contract.problem import Problem
from chimera_host.contract.trial import CheckAsk, CheckVerdict, Trial

HOST_FAILED = "host-failed"
NO_HOST = "cell-unavailable"
WAKING = 10
"""Calls that a case makes until there is a host; each waits for one as long as any call does."""
WAKE_PAUSE = 5.0
ALONE = 3
"""Times that a case is tried by itself whose host was lost: one that ends its host does so each time."""
JUDGE_SECONDS = 120.0
JUDGE_TRIES = 2
INLINE = 65_536
"""Longer answers are held against expectations in a thread."""
SHOWN = 500
MOST_REASONS = 20
_LATE = frozenset({"deadline-exceeded", "call-timeout", "timeout"})
_VERDICTS = msgspec.json.Decoder(CheckVerdict)

Done = Callable[[CaseResult], Awaitable[None]]


class Judge(Struct, frozen=True, kw_only=True):
    """The agent that judges rubrics, and where it is."""

    environment: str
    agent: str


class Place(Struct, frozen=True, kw_only=True):
    """Where cases are run: the environment of those whose tools are scripted, and that of those whose tools are real.

    `key` tells the calls of this run from those of others; `judge` is None where no model judges. `subject` is the
    person of whom what is said is, where it is of one.
    """

    key: str
    scripted: str
    real: str
    judge: Judge | None = None
    subject: str | None = None

    def of(self, tools: Tools) -> str:
        """The environment of a case."""
        return self.scripted if tools == "scripted" else self.real


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer to be looked at: what case and turn it is of, and what was said before.

    `judged` and `problems` are its try's: what judges said, and the codes of calls that failed, are added to them.
    `other` is another answer to the same, where a rubric compares two.
    """

    case: Case
    place: Place
    key: str
    turn: Turn
    said: Sequence[Message]
    told: Told
    judged: list[str]
    problems: list[str]
    other: str | None = None


class Runner:
    """Runs cases."""

    def __init__(self, calls: Calls, *, parallel: int, answer_bytes: int) -> None:
        """Make `calls`, of `parallel` cases at once; answers longer than `answer_bytes` fail."""
        self._calls = calls
        self._parallel = parallel
        self._answer_bytes = answer_bytes

    async def run(self, cases: Sequence[Case], place: Place, done: Done) -> None:
        """Run all of them; `done` is told of each as soon as it is decided."""
        waiting, lost = iter(cases), list[Case]()
        workers = [self._work(waiting, place, done, lost) for _ in range(min(self._parallel, len(cases)))]
        async with asyncio.TaskGroup() as group:
            for number, worker in enumerate(workers):
                group.create_task(worker, name=f"trials-{number}")
        for left in reversed(range(ALONE)):
            # One that is given up may take its host with it later than its own end, and so whoever is tried next.
            again = list[Case]()
            for case in lost:
                result = await self._case(case, place, f"alone-{left}")
                if left and _lost(result):
                    again.append(case)
                else:
                    await done(result)
            lost = again

    async def _work(self, waiting: Iterator[Case], place: Place, done: Done, lost: list[Case]) -> None:
        for case in waiting:
            result = await self._case(case, place, "")
            if _lost(result):
                lost.append(case)
            else:
                await done(result)

    # -- one case -----------------------------------------------------------------------------------------------------

    async def _case(self, case: Case, place: Place, again: str) -> CaseResult:
        test = case.test
        needed = math.ceil(test.pass_share * test.runs - 1e-9)
        tries: list[Try] = []
        passed = 0
        while len(tries) < test.runs and passed < needed and len(tries) - passed <= test.runs - needed:
            one = await self._try(case, place, f"{len(tries)}{again}")
            tries.append(one)
            passed += one.outcome == "passed"
            if one.outcome == "skipped":
                break
        last = tries[-1]
        outcome: Outcome = "passed" if passed >= needed else "skipped" if last.outcome == "skipped" else "failed"
        said = "; ".join(last.reasons) if outcome != "passed" else ""
        if test.runs > 1:
            said = f"{passed} of {len(tries)} runs passed, {needed} of {test.runs} must" + (f": {said}" if said else "")
        return CaseResult(
            agent=case.agent,
            case=test.name,
            revision=case.revision,
            outcome=outcome,
            detail=said[: 4 * SHOWN],
            tries=tuple(tries),
        )

    async def _try(self, case: Case, place: Place, number: str) -> Try:
        test, environment = case.test, place.of(case.tools)
        key = call_key(place.key, case.agent, case.revision, test.name, number)
        said: list[Message] = []
        judged: list[str] = []
        problems: list[str] = []
        seconds, tokens, told = 0.0, 0, Told()
        for place_of_turn, turn in enumerate(test.turns):
            said.append(Message(role="user", content=turn.input))
            told = await self.call(
                Ask(
                    environment=environment,
                    agent=case.agent,
                    key=call_key(key, f"turn-{place_of_turn}"),
                    messages=(said[-1],),
                    seconds=test.seconds,
                    session=key if len(test.turns) > 1 else None,
                    subject=place.subject,
                    request=TrialRequest(
                        model="scripted" if test.is_scripted else "real",
                        says=turn.answers,
                        trial=Trial(tools=case.tools, answers=test.tools),
                    ),
                )
            )
            seconds, tokens = seconds + told.seconds, tokens + told.tokens
            answer = Answer(
                case=case,
                place=place,
                key=call_key(key, f"look-{place_of_turn}"),
                turn=turn,
                said=said,
                told=told,
                judged=judged,
                problems=problems,
            )
            reasons, skipped = await self.look(answer)
            if reasons or skipped:
                where = f"turn {place_of_turn + 1}: " if len(test.turns) > 1 else ""
                return Try(
                    outcome="failed" if reasons else "skipped",
                    reasons=tuple(f"{where}{one}"[: 2 * SHOWN] for one in (reasons or skipped)[:MOST_REASONS]),
                    judged=tuple(judged),
                    seconds=seconds,
                    tokens=tokens,
                    answer=told.output[:SHOWN],
                    problem=next(iter(problems), None),
                )
            said.append(Message(role="assistant", content=told.output))
        shown = told.output[:SHOWN]
        return Try(outcome="passed", judged=tuple(judged), seconds=seconds, tokens=tokens, answer=shown)

    async def call(self, ask: Ask) -> Told:
        """A call, once its cell has a host."""
        told = await self._calls.call(ask)
        for number in range(1, WAKING):
            if told.problem is None or told.problem.code != NO_HOST:
                break
            await asyncio.sleep(min(told.problem.retry_after or 1.0, WAKE_PAUSE))
            told = await self._calls.call(msgspec.structs.replace(ask, key=call_key(ask.key, f"waking-{number}")))
        return told

    # -- one answer ---------------------------------------------------------------------------------------------------

    async def look(self, answer: Answer) -> tuple[list[str], list[str]]:
        """Why the answer fails, and why it can't be said whether it does: what costs nothing first."""
        told, expect = answer.told, answer.turn.expect
        if told.problem is not None:
            answer.problems.append(told.problem.code)
            return [_in_words(told.problem, answer.case.test.seconds)], []
        size = len(told.output.encode("utf-8", "replace"))
        if size > self._answer_bytes:
            return [f"the answer has {size:,} bytes, and a test reads {self._answer_bytes:,} (trials.answer_bytes)"], []
        if len(told.output) > INLINE:
            found = await asyncio.to_thread(lambda: list(faults(expect, told.output)))
        else:
            found = list(faults(expect, told.output))
        if not found and expect.check is not None:
            found = await self._checked(answer, expect.check)
        if found or expect.rubric is None:
            return found, []
        return await self._judged(answer, expect.rubric)

    async def _checked(self, answer: Answer, function: str) -> list[str]:
        case = answer.case
        ask = CheckAsk(function=function, answer=answer.told.output, case=case.test.name)
        answered = await self.call(
            Ask(
                environment=answer.place.of(case.tools),
                agent=case.agent,
                key=call_key(answer.key, "check"),
                messages=tuple(answer.said),
                seconds=case.test.seconds,
                subject=answer.place.subject,
                request=TrialRequest(model="scripted", trial=Trial(tools=case.tools, check=ask)),
            )
        )
        if answered.problem is not None:
            answer.problems.append(answered.problem.code)
            return [f"the check {function}: {_in_words(answered.problem, case.test.seconds)}"]
        try:
            verdict = _VERDICTS.decode(answered.output)
        except msgspec.MsgspecError:
            return [f"the check {function}: its host gave no verdict, but {answered.output[:SHOWN]!r}"]
        return [] if verdict.passed else [f"the check {function}: {verdict.reason}"]

    async def _judged(self, answer: Answer, rubric: str) -> tuple[list[str], list[str]]:
        judge = answer.place.judge
        if judge is None:
            return [], ["no model judges rubrics here: set trials.judge_model"]
        why = ""
        for number in range(JUDGE_TRIES):
            question = judging.question(rubric, answer.said, answer.told.output, answer.other)
            answered = await self.call(
                Ask(
                    environment=judge.environment,
                    agent=judge.agent,
                    key=call_key(answer.key, f"judge-{number}"),
                    messages=(Message(role="user", content=question),),
                    seconds=JUDGE_SECONDS,
                    subject=answer.place.subject,
                    request=TrialRequest(model="real"),
                )
            )
            if answered.problem is not None:
                why = f"the judge did not answer: {_in_words(answered.problem, JUDGE_SECONDS)}"
                continue
            judgement = judging.read(answered.output)
            if judgement is None:
                why = f"the judge gave no judgement; it said {answered.output[:SHOWN]!r}"
                continue
            answer.judged.append(judgement.reasons)
            return ([] if judgement.passed else [f"the rubric isn't met: {judgement.reasons}"]), []
        return [], [why]


def call_key(*parts: str) -> str:
    """The key of a call: the same parts are the same call, whichever process asks."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _in_words(problem: Problem, seconds: float) -> str:
    if problem.code in _LATE:
        return f"it did not end within {seconds:g} s"
    if problem.code == HOST_FAILED:
        return f"its host ended under it: {problem.detail[:SHOWN]}"
    step = f"; {problem.next_step}" if problem.next_step else ""
    return f"{problem.code}: {problem.detail[:SHOWN]}{step}"


def _lost(result: CaseResult) -> bool:
    return any(one.problem == HOST_FAILED for one in result.tries)
