"""A graph of steps that do nothing, in LangGraph alone: `python time_graph.py NODES CALLS SAVER EXTRA`.

Prints milliseconds of a call: the median, and its CPU. SAVER is `none`, or `sqlite`: LangGraph's own saver with
`durability="sync"`, from the packages in the folder EXTRA. The file is in the folder of this process, as a user would
have it; each call has a thread of its own.
"""

import asyncio
import json
import operator
import statistics
import sys
import time
from typing import Annotated, TypedDict

from langgraph.graph import START, StateGraph

WARM = 20
TEXT = "This is done. TERMINATE"


class State(TypedDict, total=False):
    """What nodes add to."""

    input: str
    outputs: Annotated[dict[str, str], operator.or_]


def build(nodes: int) -> StateGraph:
    """A line of nodes."""
    graph = StateGraph(State)

    def node(name: str):
        async def step(_: State):
            return {"outputs": {name: TEXT}}

        return step

    for number in range(nodes):
        graph.add_node(f"n{number}", node(f"n{number}"))
        graph.add_edge(f"n{number - 1}" if number else START, f"n{number}")
    return graph


async def timed(graph, calls: int, **options) -> tuple[float, float]:
    """A call in milliseconds: the median, and its CPU."""
    times, cpu = [], 0.0
    for number in range(WARM + calls):
        if number == WARM:
            cpu = time.process_time()
        config = {"configurable": {"thread_id": str(number)}}
        began = time.perf_counter()
        await graph.ainvoke({"input": "?", "outputs": {}}, config, **options)
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM:]) * 1000, (time.process_time() - cpu) / calls * 1000


async def main() -> None:
    """Time one graph."""
    nodes, calls, saver, extra = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    graph = build(nodes)
    if saver == "none":
        print(json.dumps(await timed(graph.compile(), calls)))
        return
    sys.path.append(extra)
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with AsyncSqliteSaver.from_conn_string("checkpoints.db") as kept:
        print(json.dumps(await timed(graph.compile(checkpointer=kept), calls, durability="sync")))


if __name__ == "__main__":
    asyncio.run(main())
