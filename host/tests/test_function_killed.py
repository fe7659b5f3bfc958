"""Function agents whose host is killed with SIGKILL: declared rounds and code go on on another host."""

import asyncio
import os
import re
import signal
from pathlib import Path

import aiohttp
import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import Behaviour, FunctionBehaviour
from chimera_host.contract.tools import FunctionTool
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.doubles import until
from chimera_host.testing.platform import tool_answer

CODE = """
import time
from pathlib import Path

from chimera_host.broker.context import ToolContext


def act(what: str, log: str, context: ToolContext) -> str:
    line = f"{what} {context.idempotency_key}"
    again = Path(log).exists() and line in Path(log).read_text()
    with Path(log).open("a") as file:
        file.write(line + "\\n")
    if what == "hang" and not again:
        time.sleep(60)
    return f"{what} done"


def chapters(context):
    async def write(prompt, call):
        texts = []
        for number in range(1, 4):
            async def chapter():
                answer = await call.chat({"messages": [{"role": "user", "content": "Write the next chapter."}]})
                return answer["choices"][0]["message"]["content"]

            texts.append(await call.once(f"chapter-{number}", chapter))
        return " ".join(texts)

    return write


def blocking(context):
    def write(prompt, call):
        def chapter():
            answer = call.chat_blocking({"messages": [{"role": "user", "content": "Write the next chapter."}]})
            return answer["choices"][0]["message"]["content"]

        return " ".join(call.once_blocking(f"chapter-{number}", chapter) for number in range(1, 4))

    return write
"""


async def hang(_):
    await asyncio.sleep(60)
    return "too late"


@pytest.fixture
async def dies(platform, host_process):
    """Give a run to a host that is killed once a condition holds, then to another; the second one's answer."""

    async def run(agent, condition, *later):
        first, second = await asyncio.gather(host_process(), host_process())
        revision = platform.add(agent)
        lost = asyncio.create_task(first.invoke(platform.runs.begin(invoke_request(agent, revision, "Go"), "run-1")))
        await until(condition, 20)
        os.kill(first.pid, signal.SIGKILL)
        with pytest.raises(aiohttp.ClientError):
            await lost
        platform.say(*later)
        return await second.invoke(platform.runs.begin(invoke_request(agent, revision, "Go"), "run-1"))

    return run


def acting(log, *whats):
    return tool_answer(*(("act", {"what": what, "log": str(log)}) for what in whats))


async def test_rounds_that_are_finished_are_not_asked_again_nor_their_tools(platform, dies, tmp_path):
    """Killed in the second round, while one of its two tools runs: the other is finished."""
    log = tmp_path / "tools"
    source = SourceCode(bundle=platform.add_bundle({"agent.py": CODE}))
    behaviour = Behaviour(function=FunctionBehaviour(system_message="Act.", tools=("act",)))
    tools = (FunctionTool(name="act", function="agent:act"),)
    agent = document(behaviour=behaviour, source=source, tools=tools)
    platform.say(acting(log, "first"), acting(log, "quick", "hang"))
    finished = ["round-1", "round-1/tool-1", "round-2", "round-2/tool-1"]

    def hangs():
        return platform.runs["run-1"].names == finished and "hang" in log.read_text()

    answer = await dies(agent, hangs, "All done.")
    assert (answer.output, answer.model_calls, answer.tool_calls) == ("All done.", 1, 1)
    lines = log.read_text().splitlines()
    assert [line.split()[0] for line in lines if "hang" not in line] == ["first", "quick"]
    first, again = (line for line in lines if "hang" in line)
    assert first == again and len(platform.chats) == len(platform.runs["run-1"].asked) == 3
    told = [message["content"] for message in platform.chats[-1].body["messages"] if message["role"] == "tool"]
    assert told == ["first done", "quick done", "hang done"]


GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "steps.md"
VOTE = """
def factory(context):
    async def answer(prompt, call):
        return str(await vote(call, prompt))

    return answer
"""


async def test_the_code_of_the_guide_does_what_it_says(platform, dies, host_process):
    writing, voting = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    bundle = platform.add_bundle({"writer.py": writing, "voter.py": voting + VOTE})
    platform.say("One.", hang)
    writer = document("writer", source=SourceCode(bundle=bundle, entrypoint="writer:make"))
    answer = await dies(writer, lambda: len(platform.chats) == 2, "Two.", "Three.")
    assert answer.output == "One.\n\nTwo.\n\nThree."
    assert platform.chats[-1].last == "Chapter 3 of: Go"

    voter = document("voter", source=SourceCode(bundle=bundle, entrypoint="voter:factory"))
    revision, host = platform.add(voter), await host_process()
    for _ in range(2):  # twice by the same step of one run
        answer = await host.invoke(platform.runs.begin(invoke_request(voter, revision, "a"), "run-2"))
        assert answer.output == "{'plan': None, 'votes/a': 1}"


@pytest.mark.parametrize("factory", ["chapters", "blocking"])
async def test_code_goes_on_from_the_steps_that_it_saved(platform, dies, factory):
    source = SourceCode(bundle=platform.add_bundle({"agent.py": CODE}), entrypoint=f"agent:{factory}")
    platform.say("One.", hang)
    answer = await dies(document(source=source), lambda: len(platform.chats) == 2, "Two.", "Three.")
    assert answer.output == "One. Two. Three."
    first, lost, second, third = (chat.key for chat in platform.chats)
    assert lost == second and len({first, second, third}) == 3  # the question is the same each time
    assert platform.runs["run-1"].names == ["chapter-1", "chapter-2", "chapter-3"]
