"""Calls that test an agent: tools that the test answers for, and checks of the agent's own."""

import json

import pytest

from chimera_host.broker.scripted import answer_for
from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import Behaviour, FunctionBehaviour
from chimera_host.contract.tools import AgentTool, FunctionTool, McpTool
from chimera_host.contract.trial import CheckAsk, ToolAnswer, Trial
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.doubles import refused
from chimera_host.testing.platform import tool_answer

CODE = """
import pathlib

def pay(amount: int) -> str:
    "Pay an amount."
    pathlib.Path("paid").write_text("really")
    raise SystemExit("money is gone")

def is_short(answer, case):
    print("x" * 3_000_000)
    return None if len(answer) < 20 else f"{len(answer)} characters for {case.name!r}"

def quotes(answer, case):
    assert case.input in answer, "it doesn't quote the question"
    assert [one.role for one in case.messages] == ["user", "assistant", "user"]

async def says_no(answer, case):
    return False

def broken(answer, case):
    return 7

def raises(answer, case):
    raise KeyError("nothing here")
"""


@pytest.fixture
def agent(platform):
    bundle = platform.add_bundle({"code.py": CODE, "helpers.py": ""})
    declared = FunctionBehaviour(system_message="s", tools=("pay", "files", "ask"))
    tools = (
        FunctionTool(name="pay", function="code:pay"),
        McpTool(name="files", allow=("read.me",), url="https://files.invalid/mcp"),
        AgentTool(name="ask", agent="other"),
    )
    made = document(
        behaviour=Behaviour(function=declared), tools=tools, source=SourceCode(bundle=bundle), scripted=True
    )
    return made, platform.add(made)


def trial(*answers: ToolAnswer, **fields) -> Trial:
    return Trial(answers=answers, **fields)


async def test_no_tool_of_a_test_runs(platform, local_host, agent):
    host = await local_host()
    asked = tool_answer(("pay", {"amount": 7}), ("files_read_me", {"path": "/etc"}), ("ask", {"message": "hi"}))
    platform.say(asked, "all done")
    answers = (
        ToolAnswer(tool="ask", output="the other says hi"),
        ToolAnswer(tool="pay", arguments={"amount": 7}, output="paid"),
        ToolAnswer(tool="files_read_me", error="there is no such file"),
    )
    said = await host.invoke(invoke_request(*agent, trial=trial(*answers)))
    assert (said.output, said.tool_calls) == ("all done", 3)
    told = [one["content"] for one in platform.chats[-1].body["messages"] if one["role"] == "tool"]
    assert told == ["paid", "Error: there is no such file", "the other says hi"]
    assert platform.invoked == []
    # What the function takes is still read from it.
    offered = {one["function"]["name"]: one["function"]["parameters"] for one in platform.chats[0].body["tools"]}
    assert list(offered["pay"]["properties"]) == ["amount"]


async def test_a_tool_that_the_test_does_not_answer_for_fails_the_call_whatever_the_agent_makes_of_it(
    platform, local_host, agent
):
    host = await local_host()
    platform.say(tool_answer(("pay", {"amount": 8})), "I could not pay, sorry")
    given = trial(ToolAnswer(tool="pay", arguments={"amount": 7}, output="paid"))
    told = await refused(host.invoke(invoke_request(*agent, trial=given)))
    assert (told.code, told.status) == ("trial-misfit", 422)
    assert "'pay'" in told.detail and "integration" in (told.next_step or "")


async def test_a_scripted_agent_does_nothing_in_a_call_that_is_no_test(platform, local_host, agent):
    host = await local_host()
    platform.say(tool_answer(("pay", {"amount": 7})), "nothing was paid")
    said = await host.invoke(invoke_request(*agent))
    assert said.output == "nothing was paid"
    told = [one["content"] for one in platform.chats[-1].body["messages"] if one["role"] == "tool"]
    assert "not run in a test" in told[0]


@pytest.mark.parametrize(
    ("function", "answer", "passed", "reason"),
    [
        ("is_short", "brief", True, ""),
        ("is_short", "x" * 30, False, "30 characters for 'a case'"),
        ("quotes", "Hello, you said", True, ""),
        ("quotes", "no", False, "it doesn't quote the question"),
        ("says_no", "anything", False, "it says no"),
    ],
)
async def test_a_check_of_the_agents_own_judges_where_the_agent_runs(
    platform, local_host, agent, function, answer, passed, reason
):
    host = await local_host()
    asked = Trial(check=CheckAsk(function=f"code:{function}", answer=answer, case="a case"))
    request = invoke_request(*agent, trial=asked)
    before = invoke_request(*agent, "before").messages
    spoken = type(before[0])(role="assistant", content="then")
    said = await host.invoke(invoke_request(*agent, messages=(*before, spoken, *request.messages), trial=asked))
    verdict = json.loads(said.output)
    assert (verdict["passed"], verdict.get("reason", "")) == (passed, reason)
    assert not platform.chats


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("code:broken", "int"),
        ("code:raises", "KeyError"),
        ("code:missing", "does not exist"),
        ("elsewhere:check", "names no module"),
    ],
)
async def test_a_check_that_can_not_be_used_says_why(local_host, agent, function, said):
    host = await local_host()
    asked = Trial(check=CheckAsk(function=function, answer="x", case="a case"))
    told = await refused(host.invoke(invoke_request(*agent, trial=asked)))
    assert told.code == "trial-misfit" and said in told.detail


async def test_a_check_needs_a_source_folder(platform, local_host):
    host = await local_host()
    plain = document("plain")
    asked = Trial(check=CheckAsk(function="code:check", answer="x", case="a case"))
    told = await refused(host.invoke(invoke_request(plain, platform.add(plain), trial=asked)))
    assert told.code == "trial-misfit" and "no source folder" in told.detail


def test_answers_of_a_tool_are_given_in_turn_and_the_last_one_stays():
    answers = (
        ToolAnswer(tool="a", output="1"),
        ToolAnswer(tool="b", output="2"),
        ToolAnswer(tool="a", arguments={"x": 1}, output="3"),
    )
    assert answer_for(answers, set(), "a", {"x": 1}) == 0
    assert answer_for(answers, {0}, "a", {"x": 1}) == 2
    assert answer_for(answers, {0, 2}, "a", {"x": 1}) == 2
    assert answer_for(answers, {0}, "a", {"x": 2}) == 0
    assert answer_for(answers, set(), "c", {}) is None
