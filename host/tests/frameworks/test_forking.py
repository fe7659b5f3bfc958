"""Frameworks in a zygote: what preloading leaves open, and that a forked host answers, tools and code included."""

import sys
from pathlib import Path

import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import (
    AgentNode,
    AutoGenBehaviour,
    AutoGenParticipant,
    Behaviour,
    LangGraphBehaviour,
    PromptNode,
)
from chimera_host.contract.tools import FunctionTool
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.platform import tool_answer
from chimera_host.testing.process import host_config
from chimera_host.testing.zygotes import ZygoteProcess

CODE = "def add(a: int, b: int) -> int:\n    'Add two numbers.'\n    return a + b\n"
ADDER = AutoGenParticipant(name="adder", role="adds", tools=("add",))
GROUP = AutoGenBehaviour(kind="coordination", system_message="Add.", participants=(ADDER,), max_rounds=1)
GRAPH = LangGraphBehaviour(
    nodes=(
        AgentNode(name="add", system_message="Add.", tools=("add",), next=("say",)),
        PromptNode(name="say", prompt="{add}"),
    ),
    start=("add",),
)
BEHAVIOURS = {"autogen": Behaviour(autogen=GROUP), "langgraph": Behaviour(langgraph=GRAPH)}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("framework", BEHAVIOURS)
async def test_a_warm_parent_has_one_thread_and_nothing_open_and_its_hosts_answer(
    platform, runtime_python, tmp_path, framework
):
    bundle = platform.add_bundle({"sums.py": CODE})
    made = document(
        "adder",
        framework,
        behaviour=BEHAVIOURS[framework],
        tools=(FunctionTool(name="add", function="sums:add"),),
        source=SourceCode(bundle=bundle),
    )
    revision = platform.add(made)
    async with ZygoteProcess(framework, python=runtime_python(framework)) as zygote:
        own = Path(f"/proc/{zygote.process.pid}")
        assert len(list((own / "task").iterdir())) == 1
        opened = [str(entry.readlink()) for entry in (own / "fd").iterdir() if int(entry.name) > 2]
        assert sum(name.startswith("socket:") for name in opened) == 1, opened  # the control socket
        # Beside it the pipe that wakes it, and no event loop's: a child would share what it waits for.
        assert all(name.startswith(("socket:", "pipe:", "/dev/")) for name in opened), opened
        for name in ("one", "two"):
            box = str(tmp_path / name)
            forked = await zygote.fork(host_config(platform.url, framework, tmp_path, host=name, black_box=box))
            platform.say(tool_answer(("add", {"a": 2, "b": 3})), f"5 by {name}")
            answer = await forked.client.invoke(invoke_request(made, revision, "2 and 3?"))
            assert f"5 by {name}" in answer.output and (answer.host, answer.tool_calls) == (name, 1)
            told = [m["content"] for chat in platform.chats for m in chat.body["messages"] if m["role"] == "tool"]
            assert told[-1] == "5"
