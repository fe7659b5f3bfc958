"""How a case is decided: what is expected, how often it is run, who judges, and who is to blame for a lost host."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.agents.cases import AgentTest, Expectation
from chimera.delivery.trials import judging
from chimera.delivery.trials.asking import Ask, Told
from chimera.delivery.trials.expectations import faults
from chimera.delivery.trials.model import Case, CaseResult
from chimera.delivery.trials.runner import WAKING, Judge, Place, Runner
from chimera.testing.trials import FakeCalls, echo, problem
from chimera_host.contract.call import Message

JUDGE = Judge(environment="env--s", agent="rubric-judge")
HERE = Place(key="run", scripted="env--s", real="env--r", judge=JUDGE)


def case(agent: str = "a", **changes: Any) -> Case:
    test = {"name": "t", "input": "hi", "expect": {"contains": ["hi"]}, **changes}
    return Case(agent=agent, revision="sha256:1", test=msgspec.convert(test, AgentTest))


async def run(calls: FakeCalls, *cases: Case, place: Place = HERE, parallel: int = 4) -> list[CaseResult]:
    results: list[CaseResult] = []

    async def done(result: CaseResult) -> None:
        results.append(result)

    await Runner(calls, parallel=parallel, answer_bytes=1_000).run(list(cases), place, done)
    return results


# -- what is expected -------------------------------------------------------------------------------------------------

OBJECT = {"type": "object", "required": ["sum"], "properties": {"sum": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("expected", "answer", "wrong"),
    [
        ({}, "anything", 0),
        ({"contains": ["a", "b"]}, "b and a", 0),
        ({"contains": ["a", "b"]}, "a", 1),
        ({"contains": ["A"]}, "a", 1),
        ({"excludes": ["secret"]}, "no secret here", 1),
        ({"json_schema": OBJECT}, ' {"sum": 3}\n', 0),
        ({"json_schema": OBJECT}, '{"sum": "3"}', 1),
        ({"json_schema": OBJECT}, "{}", 1),
        ({"json_schema": OBJECT}, 'Here: {"sum": 3}', 1),
        ({"json_schema": {"pattern": "^(a+)+$"}}, '"' + "a" * 40 + '!"', 1),
        ({"json_schema": True}, "[" * 5_000, 1),
        ({"contains": ["x"], "excludes": ["y"], "json_schema": OBJECT}, "y", 3),
    ],
)
def test_what_an_answer_must_be_like(expected: dict[str, Any], answer: str, wrong: int) -> None:
    made = Expectation(**{key: tuple(value) if isinstance(value, list) else value for key, value in expected.items()})
    found = list(faults(made, answer))
    assert len(found) == wrong and all(len(one) < 1_000 for one in found), found


async def test_a_case_is_one_call_in_the_environment_that_its_tools_need() -> None:
    calls = FakeCalls()
    scripted, real = await run(calls, case(), case("b", integration=True))
    assert (scripted.outcome, real.outcome) == ("passed", "passed")
    assert [(one.environment, one.request.model, one.request.trial.tools) for one in calls.asked] == [
        ("env--s", "real", "scripted"),
        ("env--r", "real", "real"),
    ]


async def test_the_script_of_a_case_goes_with_its_call() -> None:
    calls = FakeCalls()
    made = case(answers=[{"text": "hi there"}], tools=[{"tool": "x", "output": "y"}], timeout_seconds=7)
    [result] = await run(calls, made)
    [asked] = calls.asked
    assert result.outcome == "passed" and asked.seconds == 7.0
    assert (asked.request.model, asked.request.says[0].text) == ("scripted", "hi there")
    assert asked.request.trial.answers[0].tool == "x"


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (problem("deadline-exceeded"), "did not end within 120 s"),
        (problem("agent-failed", "KeyError"), "agent-failed: KeyError"),
        (Told(output="x" * 1_001), "1,001 bytes"),
        (Told(output="ho"), "doesn't contain 'hi'"),
    ],
)
async def test_each_way_to_fail_says_what_happened(told: Told, said: str) -> None:
    [result] = await run(FakeCalls(lambda _: told), case())
    assert result.outcome == "failed" and said in result.detail


async def test_a_cell_that_starts_for_its_first_call_is_no_fault_of_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chimera.delivery.trials.runner.WAKE_PAUSE", 0.0)
    left = [problem("cell-unavailable"), problem("cell-unavailable")]
    calls = FakeCalls(lambda ask: left.pop() if left else echo(ask))
    [result] = await run(calls, case())
    assert result.outcome == "passed"
    assert len({one.key for one in calls.asked}) == 3, "each is a call of its own"
    never = FakeCalls(lambda _: problem("cell-unavailable", "ImagePullFailed"))
    [result] = await run(never, case())
    assert result.outcome == "failed" and "ImagePullFailed" in result.detail and len(never.asked) == WAKING


# -- turns, checks, rubrics -------------------------------------------------------------------------------------------


async def test_turns_go_on_in_one_session_until_one_fails() -> None:
    calls = FakeCalls()
    turns = [{"input": "more", "expect": {"contains": ["nothing of it"]}}, {"input": "never", "expect": {}}]
    [result] = await run(calls, case(then=turns))
    assert result.outcome == "failed" and result.detail.startswith("turn 2: ")
    assert [one.messages[-1].content for one in calls.asked] == ["hi", "more"]
    sessions = {one.session for one in calls.asked}
    assert len(sessions) == 1 and None not in sessions


def judge(said: str, check: str = '{"passed": true}') -> Callable[[Ask], str]:
    def answer(ask: Ask) -> str:
        if ask.agent == JUDGE.agent:
            return said
        return check if ask.request.trial.check is not None else echo(ask)

    return answer


async def test_a_host_that_gives_no_verdict_fails_its_case_alone() -> None:
    calls = FakeCalls(judge("", check="<html>"))
    results = await run(calls, case(expect={"check": "checks:long"}), case("b"))
    found = {one.agent: (one.outcome, one.detail) for one in results}
    assert found == {
        "a": ("failed", "the check checks:long: its host gave no verdict, but '<html>'"),
        "b": ("passed", ""),
    }


async def test_a_check_is_given_the_answer_and_the_conversation() -> None:
    calls = FakeCalls(judge("", '{"passed": false, "reason": "too short"}'))
    [result] = await run(calls, case(expect={"check": "checks:long"}))
    assert (result.outcome, result.detail) == ("failed", "the check checks:long: too short")
    ask = calls.asked[-1].request.trial.check
    assert ask is not None and (ask.function, ask.answer, ask.case) == ("checks:long", "echo: hi", "t")
    assert calls.asked[-1].messages == (Message(role="user", content="hi"),)


@pytest.mark.parametrize(
    ("said", "outcome", "reasons"),
    [
        ('{"passed": true, "reasons": "it greets"}', "passed", ("it greets",)),
        ('```json\n{"passed": false, "reasons": "it is rude"}\n```', "failed", ("it is rude",)),
        ("I think so", "skipped", ()),
        ('{"passed": "yes", "reasons": ""}', "skipped", ()),
        ("}{", "skipped", ()),
    ],
)
async def test_a_model_judges_and_its_reasons_are_kept(said: str, outcome: str, reasons: tuple[str, ...]) -> None:
    calls = FakeCalls(judge(said))
    [result] = await run(calls, case(expect={"contains": ["hi"], "rubric": "It greets."}))
    assert (result.outcome, result.tries[0].judged) == (outcome, reasons)
    asked = msgspec.json.decode(calls.asked[1].messages[0].content)
    assert asked == {
        "rubric": "It greets.",
        "conversation": [{"role": "user", "content": "hi"}],
        "answer": "echo: hi",
    }


async def test_without_a_judge_a_rubric_is_skipped_and_without_the_rest_nobody_judges() -> None:
    calls = FakeCalls(judge('{"passed": true, "reasons": ""}'))
    alone = msgspec.structs.replace(HERE, judge=None)
    [skipped] = await run(calls, case(expect={"rubric": "r"}), place=alone)
    assert skipped.outcome == "skipped" and "trials.judge_model" in skipped.detail
    [failed] = await run(calls, case("b", expect={"contains": ["nothing"], "rubric": "r"}))
    assert failed.outcome == "failed" and all(one.agent != JUDGE.agent for one in calls.asked)


def test_the_judges_name_is_its_own() -> None:
    assert judging.free_name(()) == "rubric-judge"
    assert judging.free_name({"rubric-judge", "rubric-judge-2"}) == "rubric-judge-3"


# -- several runs -----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.floats(0.05, 1.0))
def test_enough_of_the_runs_must_pass_and_no_more_are_run_than_decide_it(results: list[bool], share: float) -> None:
    coming = iter(results)
    calls = FakeCalls(lambda _: "hi" if next(coming) else "no")
    [result] = asyncio.run(run(calls, case(runs=len(results), pass_share=share)))
    needed = math.ceil(share * len(results) - 1e-9)
    assert result.outcome == ("passed" if sum(results) >= needed else "failed")
    tried = results[: len(result.tries)]
    assert len({one.key for one in calls.asked}) == len(tried)
    before = tried[:-1]
    assert before.count(True) < needed and before.count(False) <= len(results) - needed


# -- several cases ----------------------------------------------------------------------------------------------------


async def test_no_more_run_at_once_than_may() -> None:
    calls = FakeCalls()
    results = await run(calls, *(case(f"a{n}") for n in range(20)), parallel=3)
    assert len(results) == 20 and calls.most == 3


async def test_whoever_kills_a_host_is_found_and_those_who_were_lost_with_it_are_not_blamed() -> None:
    together = asyncio.Barrier(3)

    async def answer(ask: Ask) -> Told | str:
        if ask.agent == "killer":
            if len([one for one in calls.asked if one.agent == "killer"]) == 1:
                await together.wait()
            return problem("host-failed", "host-1 died")
        if ask.agent.startswith("lost") and len([one for one in calls.asked if one.agent == ask.agent]) == 1:
            await together.wait()
            return problem("host-failed", "host-1 died")
        return echo(ask)

    calls = FakeCalls(answer)
    results = await run(calls, case("killer"), case("lost-1"), case("lost-2"), case("fine"))
    assert {one.agent: one.outcome for one in results} == {
        "killer": "failed",
        "lost-1": "passed",
        "lost-2": "passed",
        "fine": "passed",
    }
    [killer] = [one for one in results if one.agent == "killer"]
    assert "its host ended under it" in killer.detail


async def test_a_call_that_never_ends_holds_nobody_up() -> None:
    async def answer(ask: Ask) -> str:
        if ask.agent == "endless":
            await asyncio.Event().wait()
        return echo(ask)

    results = await run(FakeCalls(answer), case("endless", timeout_seconds=0.05), case("b"), parallel=1)
    assert [one.outcome for one in results] == ["failed", "passed"]
    assert "did not end within 0.05 s" in results[0].detail
