"""LangGraph's own suite for checkpointers, as an agent: a call of it runs the suite inside a real host, and tells.

The suite is the package `langgraph-checkpoint-conformance`. It is installed beside the tests and travels with the
agent's code, since what it tests is in LangGraph's environment.
"""

from collections.abc import Mapping
from importlib.metadata import files

import msgspec
from msgspec import Struct

PACKAGE = "langgraph-checkpoint-conformance"
CAPABILITIES = frozenset(
    {"put", "put_writes", "get_tuple", "list", "delete_thread", "delete_for_runs", "copy_thread", "prune"}
)

AGENT = '''
import asyncio
import json
import sys
from pathlib import Path
from typing import TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph

from chimera_host.frameworks.langgraph.checkpointer import Checkpointer

sys.path.append(str(Path(__file__).parent / "suite"))
from langgraph.checkpoint.conformance import checkpointer_test, validate


class Text(TypedDict, total=False):
    input: str
    output: str


class Blocking(BaseCheckpointSaver):
    """Does everything by the synchronous methods, in threads."""

    def __init__(self):
        super().__init__()
        self.inner = Checkpointer()

    async def aget_tuple(self, config):
        return await asyncio.to_thread(self.inner.get_tuple, config)

    async def alist(self, config, **named):
        for one in await asyncio.to_thread(lambda: list(self.inner.list(config, **named))):
            yield one

    async def aput(self, *given):
        return await asyncio.to_thread(self.inner.put, *given)

    async def aput_writes(self, *given, **named):
        await asyncio.to_thread(lambda: self.inner.put_writes(*given, **named))

    async def adelete_thread(self, thread_id):
        await asyncio.to_thread(self.inner.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids):
        await asyncio.to_thread(self.inner.delete_for_runs, run_ids)

    async def acopy_thread(self, source, target):
        await asyncio.to_thread(self.inner.copy_thread, source, target)

    async def aprune(self, thread_ids, **named):
        await asyncio.to_thread(lambda: self.inner.prune(thread_ids, **named))


def factory(context):
    async def check(state):
        @checkpointer_test(name=state["input"])
        async def checkpointer():
            yield Blocking() if state["input"] == "blocking" else Checkpointer()

        report = await validate(checkpointer)
        return {"output": json.dumps(report.to_dict()["results"])}

    graph = StateGraph(Text)
    graph.add_node("check", check)
    graph.add_edge(START, "check")
    return graph
'''


class Result(Struct, frozen=True, kw_only=True):
    """How one capability did."""

    detected: bool
    passed: bool | None
    tests_passed: int
    tests_failed: int
    tests_skipped: int
    failures: list[str]


def source_files() -> Mapping[str, str]:
    """The agent's source; its entrypoint is `agent:factory`. It is asked `async` or `blocking`."""
    suite = {
        f"suite/{file}": file.locate().read_text()  # type: ignore[attr-defined]
        for file in files(PACKAGE) or ()
        if file.suffix == ".py"
    }
    if not suite:
        raise RuntimeError(f"{PACKAGE} is not installed")
    return {"agent.py": AGENT, **suite}


def results(output: str) -> Mapping[str, Result]:
    """What the agent answered, by capability."""
    return msgspec.json.decode(output, type=dict[str, Result])
