"""Graphs of LangGraph in real hosts behind a real gateway: hosts killed in the middle, and what the next one does.

The hosts are forked from one warm process. `kill -9` comes while a node waits for the model or for a tool, so what was
finished before is known; model calls, tool calls and their keys are counted over both hosts.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import func, select

from chimera.adapters.storage.opening import open_database
from chimera.adapters.storage.schema.state import checkpoint, checkpoint_write
from chimera.platform.model import Endpoint
from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import AgentNode, Behaviour, LangGraphBehaviour, PromptNode
from chimera_host.contract.tools import FunctionTool
from chimera_host.testing import builders, conformance
from chimera_host.testing.doubles import until
from chimera_host.testing.process import host_config
from chimera_host.testing.zygotes import ForkedHost, ZygoteProcess

from .conftest import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        "CHIMERA_RUNTIME_LANGGRAPH_PYTHON" not in os.environ, reason="LangGraph's environment isn't installed"
    ),
]

INVOKE = "/v1/tenants/default/agents/graph/invoke"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def zygote() -> AsyncIterator[ZygoteProcess]:
    async with ZygoteProcess("langgraph", python=os.environ["CHIMERA_RUNTIME_LANGGRAPH_PYTHON"]) as warm:
        yield warm


class Graphs:
    """A gateway, hosts that a test forks and kills, and a model that answers by `say`; `asked` counts its questions."""

    def __init__(self, world: World, zygote: ZygoteProcess, folder: Path) -> None:
        self.world = world
        self.asked: Counter[str] = Counter()
        self.say: Callable[[str], Any] = lambda last: f"<{last}>"
        self.stopped_at: str | None = None
        self.stopped = asyncio.Event()
        self._zygote = zygote
        self._folder = folder
        self._hosts: list[ForkedHost] = []
        self._number = 0
        world.model.complete = self._complete  # type: ignore[method-assign]

    async def _complete(self, request: Any) -> dict[str, Any]:
        last = str(request.body["messages"][-1].get("content") or "")
        self.asked[last] += 1
        if last == self.stopped_at and not self.stopped.is_set():
            self.stopped.set()
            await asyncio.Event().wait()
        said = self.say(last)
        message = said if isinstance(said, dict) else {"role": "assistant", "content": said}
        usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
        return {"choices": [{"index": 0, "message": message}], "usage": usage}

    async def host(self) -> ForkedHost:
        """One more host that takes calls."""
        self._number += 1
        name = f"host-{self._number}"
        folder = self._folder / name
        folder.mkdir()
        token = self.world.token(name)
        config = host_config(self.world.gateway.internal_url, "langgraph", folder, host=name, platform_token=token)
        made = await self._zygote.fork(msgspec.structs.replace(config, black_box=None))
        self._hosts.append(made)
        self.world.pool.add(Endpoint(host=name, cell="cell-1", url=made.client.url, key="host-key"))
        return made

    async def stops(self, call: asyncio.Task[Any], where: Callable[[], object] | None = None) -> None:
        """Wait until the call is where it is to be killed."""
        await until(lambda: call.done() or (where or self.stopped.is_set)(), 30)
        assert not call.done(), call.result()

    async def replaced(self, host: ForkedHost) -> None:
        """Another host is there, and this one is killed."""
        await self.host()
        await self.kill(host)

    async def kill(self, host: ForkedHost) -> None:
        self._hosts.remove(host)
        self.world.pool.remove(host.id)
        os.kill(host.pid, signal.SIGKILL)
        assert (await self._zygote.reply()).op == "exited"

    async def aclose(self) -> None:
        for host in list(self._hosts):
            await self.kill(host)

    async def agent(
        self, behaviour: LangGraphBehaviour | None = None, code: dict[str, str] | None = None, **fields: Any
    ):
        if code is not None:
            data = builders.bundle(code)
            self.world.store.bundles[builders.digest(data)] = data
            entrypoint = None if behaviour is not None else fields.pop("entrypoint", "agent:factory")
            fields["source"] = SourceCode(bundle=builders.digest(data), entrypoint=entrypoint)
        document = builders.document("graph", "langgraph", behaviour=Behaviour(langgraph=behaviour), **fields)
        await self.world.agent("graph", document=document)

    async def call(self, text: str = "hi", key: str | None = None, **fields: Any) -> tuple[int, Any]:
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.world.post(INVOKE, {"input": text, **fields}, **headers)

    async def kept(self) -> tuple[int, int]:
        """Checkpoints and pending writes in the database."""

        def read(connection: Any) -> tuple[int, int]:
            found = [
                connection.execute(select(func.count()).select_from(table)).scalar()
                for table in (checkpoint, checkpoint_write)
            ]
            return found[0], found[1]

        return await self.world.database.read(read)


@pytest.fixture
def graphs(tmp_path: Path, zygote: ZygoteProcess) -> Callable[..., Any]:
    """Over a database of this name, as an asynchronous context manager."""

    @asynccontextmanager
    async def make(name: str) -> AsyncIterator[Graphs]:
        database = open_database(name)
        try:
            async with World(tmp_path, database) as world:
                made = Graphs(world, zygote, tmp_path)
                try:
                    yield made
                finally:
                    await made.aclose()
        finally:
            await asyncio.to_thread(database.close)

    return make


@pytest.fixture
def file(tmp_path: Path, migrated_file: Path) -> str:
    """A SQLite database."""
    made = tmp_path / "chimera.db"
    made.write_bytes(migrated_file.read_bytes())
    return str(made)


@pytest.mark.parametrize("how", ["async", "blocking"])
async def test_langgraphs_own_suite_is_passed(graphs: Any, database_name: str, how: str) -> None:
    async with graphs(database_name) as made:
        await made.host()
        await made.agent(code=dict(conformance.source_files()))
        status, body = await made.call(how, key="suite")
        assert status == 200, body
        results = conformance.results(body["output"])
        assert results.keys() == conformance.CAPABILITIES
        assert all(one.detected and one.passed for one in results.values()), results
        assert sum(one.tests_passed for one in results.values()) >= 81
        assert await made.kept() == (0, 0)


def line(*names: str) -> LangGraphBehaviour:
    following = (*names[1:], None)
    nodes = [
        PromptNode(name=name, prompt=f"{name}?", next=() if after is None else (after,))
        for name, after in zip(names, following, strict=True)
    ]
    return LangGraphBehaviour(nodes=tuple(nodes), start=(names[0],), output="".join(f"{{{name}}}" for name in names))


async def test_a_declared_graph_goes_on_after_its_last_finished_node(graphs: Any, database_name: str) -> None:
    async with graphs(database_name) as made:
        first = await made.host()
        await made.agent(line("a", "b", "c", "d"))
        made.stopped_at = "c?"
        call = asyncio.create_task(made.call(session="s"))
        await made.stops(call)
        await made.replaced(first)
        status, body = await call
        assert (status, body["output"], body["model_calls"]) == (200, "<a?><b?><c?><d?>", 2)
        assert made.asked == {"a?": 1, "b?": 1, "c?": 2, "d?": 1}
        assert await made.kept() == (0, 0)
        status, session = await made.world.get("/v1/tenants/default/agents/graph/sessions/s")
        assert (session["version"], len(session["state"]["messages"])) == (1, 2)
        assert "values" not in session["state"]


async def test_branches_that_finished_beside_an_unfinished_one_are_not_repeated(graphs: Any, file: str) -> None:
    names = [f"n{number}" for number in range(6)]
    nodes = [PromptNode(name=name, prompt=f"{name}?", next=("join",)) for name in names]
    joined = PromptNode(name="join", prompt="".join(f"{{{name}}}" for name in names))
    async with graphs(file) as made:
        first = await made.host()
        await made.agent(LangGraphBehaviour(nodes=(*nodes, joined), start=tuple(names)))
        made.stopped_at = "n3?"
        call = asyncio.create_task(made.call(key="k"))
        await made.stops(call)

        async def five_have_written() -> bool:
            return (await made.kept())[1] >= 5 * 2

        await until(five_have_written)
        await made.replaced(first)
        status, body = await call
        assert (status, body["output"]) == (200, "<<n0?><n1?><n2?><n3?><n4?><n5?>>")
        assert made.asked == {**{f"{name}?": 1 for name in names}, "n3?": 2, "<n0?><n1?><n2?><n3?><n4?><n5?>": 1}


LOOP = """
from pathlib import Path

from chimera_host.broker import ToolContext

DONE = Path({done!r})


def note(what: str, context: ToolContext) -> str:
    "Notes something."
    with DONE.open("a") as file:
        file.write(what + " " + context.idempotency_key + "\\n")
    return "noted " + what
"""


def asks_for(tool: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": tool, "arguments": msgspec.json.encode(arguments).decode()}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "t", "type": "function", "function": function}]}


async def test_a_loop_of_tools_goes_on_after_the_last_tool(graphs: Any, file: str, tmp_path: Path) -> None:
    done = tmp_path / "done"
    steps = {"go": "one", "noted one": "two", "noted two": "three"}
    async with graphs(file) as made:
        first = await made.host()
        loop = AgentNode(name="loop", system_message="Note.", prompt="go", tools=("note",), next=("say",))
        graph = LangGraphBehaviour(nodes=(loop, PromptNode(name="say", prompt="{loop}")), start=("loop",))
        tool = FunctionTool(name="note", function="tools:note")
        await made.agent(graph, {"tools.py": LOOP.format(done=str(done))}, tools=(tool,))
        made.say = lambda last: asks_for("note", what=steps[last]) if last in steps else f"<{last}>"
        made.stopped_at = "noted two"
        call = asyncio.create_task(made.call(key="k"))
        await made.stops(call)
        await made.replaced(first)
        status, body = await call
        assert (status, body["output"]) == (200, "<<noted three>>")
        assert made.asked == {"go": 1, "noted one": 1, "noted two": 2, "noted three": 1, "<noted three>": 1}
        noted = [line.split() for line in done.read_text().splitlines()]
        assert [what for what, _ in noted] == ["one", "two", "three"]
        assert len({key for _, key in noted}) == 3


async def test_a_tool_that_was_killed_runs_again_with_its_key(graphs: Any, file: str, tmp_path: Path) -> None:
    done, started = tmp_path / "done", tmp_path / "started"
    code = LOOP.replace('    return "noted', '    hang(what)\n    return "noted') + (
        "\n\ndef hang(what):\n"
        "    import time\n"
        f"    started = Path({str(started)!r})\n"
        "    if what == 'two' and not started.exists():\n"
        "        started.touch()\n"
        "        time.sleep(60)\n"
    )
    steps = {"go": "one", "noted one": "two"}
    async with graphs(file) as made:
        first = await made.host()
        loop = AgentNode(name="loop", system_message="Note.", prompt="go", tools=("note",))
        tool = FunctionTool(name="note", function="tools:note")
        graph = LangGraphBehaviour(nodes=(loop,), start=("loop",))
        await made.agent(graph, {"tools.py": code.format(done=str(done))}, tools=(tool,))
        made.say = lambda last: asks_for("note", what=steps[last]) if last in steps else f"<{last}>"
        call = asyncio.create_task(made.call(key="k"))
        await made.stops(call, started.exists)
        await made.replaced(first)
        status, body = await call
        assert (status, body["output"]) == (200, "<noted two>")
        assert made.asked == {"go": 1, "noted one": 1, "noted two": 1}
        noted = [line.split() for line in done.read_text().splitlines()]
        assert [what for what, _ in noted] == ["one", "two", "two"]
        assert noted[1] == noted[2] != noted[0]


CODE = """
import operator
from dataclasses import dataclass
from typing import Annotated, TypedDict

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt


@dataclass
class Plan:
    steps: int


class State(TypedDict, total=False):
    input: str
    plan: Plan
    seen: Annotated[list[str], operator.add]
    output: str


def factory(context):
    async def plan(state):
        return {"plan": Plan(len((await context.model.ainvoke("plan?")).text)), "seen": [state["input"]]}

    def work(state):
        first = context.model.invoke("first?").text
        same = [context.model.invoke("same?").text for _ in range(2)]
        second = context.model.invoke("second?").text
        return {"output": f"{state['plan'].steps} {first} {' '.join(same)} {second}"}

    graph = StateGraph(State)
    graph.add_node("plan", plan)
    graph.add_node("work", work)
    graph.add_edge(START, "plan")
    graph.add_edge("plan", "work")
    return graph


def asking(context):
    async def offer(state):
        await context.model.ainvoke("offer?")
        return {"seen": ["offered"]}

    def decide(state):
        name = interrupt({"who": "are you"})
        sure = interrupt("Sure, " + name + "?")
        return {"output": name + " is " + sure}

    graph = StateGraph(State)
    graph.add_node("offer", offer)
    graph.add_node("decide", decide)
    graph.add_edge(START, "offer")
    graph.add_edge("offer", "decide")
    return graph


def remembering(context):
    async def remember(state):
        await context.model.ainvoke("remember " + state["input"] + "?")
        return {"seen": [state["input"]]}

    def say(state):
        return {"output": " ".join(state["seen"])}

    graph = StateGraph(State)
    graph.add_node("remember", remember)
    graph.add_node("say", say)
    graph.add_edge(START, "remember")
    graph.add_edge("remember", "say")
    return graph.compile(checkpointer=InMemorySaver())
"""


async def test_a_graph_of_code_goes_on_in_the_next_call_of_its_session(graphs: Any, file: str) -> None:
    """It might act on its own, so the gateway doesn't go on by itself; who asks again does."""
    async with graphs(file) as made:
        first = await made.host()
        await made.agent(code={"agent.py": CODE})
        answers = iter(range(9))
        made.say = lambda last: "four" if last == "plan?" else f"{last}{next(answers)}"
        made.stopped_at = "second?"
        call = asyncio.create_task(made.call(session="s", subject="ann"))
        await made.stops(call)
        await made.replaced(first)
        status, body = await call
        assert (status, body["code"]) == (502, "host-failed")
        assert made.asked == {"plan?": 1, "first?": 1, "same?": 2, "second?": 1}

        subject = "/v1/tenants/default/subjects/ann"
        status, found = await made.world.get(subject)
        assert found["kept"]["checkpoints"] == (await made.kept())[0] == 3
        async with made.world.http.get(f"{made.world.url}{subject}/export") as answer:
            exported = [msgspec.json.decode(line) for line in (await answer.text()).splitlines()]
        assert Counter(record["record"] for record in exported)["checkpoint"] == 3

        status, body = await made.call(session="s", subject="ann")
        assert status == 200, body
        assert body["output"] == "4 first?0 same?1 same?2 second?3"
        # The node ran again, and what it had asked before was answered from what is kept.
        assert made.asked == {"plan?": 1, "first?": 1, "same?": 2, "second?": 2}
        assert await made.kept() == (0, 0)


async def test_a_person_is_erased_with_what_graphs_kept(graphs: Any, file: str) -> None:
    async with graphs(file) as made:
        first = await made.host()
        await made.agent(code={"agent.py": CODE})
        made.stopped_at = "second?"
        call = asyncio.create_task(made.call(key="k", subject="ann"))
        await made.stops(call)
        await made.kill(first)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert (await made.kept())[0] == 3
        async with made.world.http.delete(made.world.url + "/v1/tenants/default/subjects/ann") as answer:
            assert answer.status in (200, 204)
        assert await made.kept() == (0, 0)


async def test_what_a_graph_asks_is_answered_in_the_sessions_next_call(graphs: Any, file: str) -> None:
    async with graphs(file) as made:
        first = await made.host()
        await made.agent(code={"agent.py": CODE}, entrypoint="agent:asking")
        status, body = await made.call("hello", session="s")
        assert (status, body["output"]) == (200, '{"who": "are you"}')
        assert (await made.kept())[0] > 0
        await made.replaced(first)
        status, body = await made.call("Eve", session="s")
        assert (status, body["output"]) == (200, "Sure, Eve?")
        status, body = await made.call("certain", session="s")
        assert (status, body["output"]) == (200, "Eve is certain")
        assert made.asked == {"offer?": 1}
        assert await made.kept() == (0, 0)
        status, session = await made.world.get("/v1/tenants/default/agents/graph/sessions/s")
        assert [message["content"] for message in session["state"]["messages"]] == [
            *("hello", '{"who": "are you"}', "Eve", "Sure, Eve?", "certain", "Eve is certain")
        ]
        assert "values" not in session["state"]
        status, body = await made.call("again", session="s")
        assert body["output"] == '{"who": "are you"}' and made.asked == {"offer?": 2}


async def test_a_graph_that_remembers_goes_on_with_its_state(graphs: Any, file: str) -> None:
    async with graphs(file) as made:
        first = await made.host()
        await made.agent(code={"agent.py": CODE}, entrypoint="agent:remembering")
        assert (await made.call("one", session="s"))[1]["output"] == "one"
        made.stopped_at = "remember two?"
        call = asyncio.create_task(made.call("two", session="s"))
        await made.stops(call)
        await made.replaced(first)
        assert (await call)[0] == 502
        # Begun and never answered: the next call with something else knows nothing of it.
        assert (await made.call("three", session="s"))[1]["output"] == "one three"
        assert (await made.call("four", session="s"))[1]["output"] == "one three four"
        assert (await made.call("five", session="t"))[1]["output"] == "five"
        assert (await made.call("six", key="k"))[1]["output"] == "six"
        assert (await made.call("seven"))[1]["output"] == "seven"
        assert (await made.kept())[0] <= 2 * 10


async def test_a_graph_that_remembers_is_not_taken_for_finished_when_it_was_killed_at_once(
    graphs: Any, file: str
) -> None:
    async with graphs(file) as made:
        first = await made.host()
        await made.agent(code={"agent.py": CODE}, entrypoint="agent:remembering")
        assert (await made.call("one", session="s"))[1]["output"] == "one"
        made.stopped_at = "remember two?"
        call = asyncio.create_task(made.call("two", session="s", key="k"))
        await made.stops(call)
        await made.replaced(first)
        status, body = await call
        assert (status, body["output"]) == (200, "one two")
        assert made.asked == {"remember one?": 1, "remember two?": 2}
