"""Any acyclic graph, run by LangGraph, says what a plain walk over its nodes says."""

import asyncio
import random

import pytest

from chimera_host.contract.behaviour import Behaviour, BranchNode, Condition, LangGraphBehaviour, PromptNode
from chimera_host.substitute import fill
from chimera_host.testing.builders import document, invoke_request
from chimera_host.testing.platform import problem

FRAMEWORK = "langgraph"
pytestmark = pytest.mark.asyncio(loop_scope="module")

GRAPHS = 90


def drawn(dice):
    """A graph of up to ten nodes in topological order: prompts, some of which fail, and branches."""
    names = [f"n{number}" for number in range(dice.randint(1, 10))]
    nodes = []
    for number, name in enumerate(names):
        later = names[number + 1 :]
        after = dice.sample(later, min(len(later), dice.choice([0, 1, 1, 2, 3])))
        text = f"{name}({'|'.join(f'{{{one}}}' for one in names[:number])})"
        if after and dice.random() < 0.3:
            case = Condition(to=dice.choice(later), contains=dice.choice(["n0", "n1", "n2", "hi"]))
            nodes.append(BranchNode(name=name, cases=(case,), otherwise=after[0], value=text))
        elif later and dice.random() < 0.25:
            fails = "boom " if dice.random() < 0.7 else ""
            nodes.append(PromptNode(name=name, prompt=fails + text, next=tuple(after), on_error=dice.choice(later)))
        else:
            nodes.append(PromptNode(name=name, prompt=text, next=tuple(after)))
    start = dice.sample(names, min(len(names), dice.choice([1, 1, 2])))
    return LangGraphBehaviour(nodes=tuple(nodes), start=tuple(start))


def leads(node):
    if isinstance(node, BranchNode):
        return {node.otherwise, *(case.to for case in node.cases)}
    return {*node.next, *([node.on_error] if node.on_error else [])}


def ancestors(graph):
    found = {}
    for node in graph.nodes:
        direct = [one.name for one in graph.nodes if node.name in leads(one)]
        found[node.name] = {*direct, *(name for one in direct for name in found[one])}
    return found


def seen_by(node, graph, above):
    """The node with those names alone in its text that are sure to have run before it."""
    text = f"{node.name}({'|'.join(f'{{{name}}}' for name in sorted(above[node.name]))})"
    if isinstance(node, BranchNode):
        return BranchNode(name=node.name, cases=node.cases, otherwise=node.otherwise, value=text)
    text = ("boom " if node.prompt.startswith("boom") else "") + text
    return PromptNode(name=node.name, prompt=text, next=node.next, on_error=node.on_error)


def walked(graph):
    """What the graph answers and how many model calls that takes, one node after the other."""
    outputs, reached, ended, asked = {}, set(graph.start), [], 0
    led = {target for node in graph.nodes for target in leads(node)}
    for node in graph.nodes:
        if node.name not in reached:
            if node.name in led:
                outputs[node.name] = ""
            continue
        values = {**outputs, "input": "hi"}
        if isinstance(node, BranchNode):
            outputs[node.name] = value = fill(node.value, values)
            held = (case.to for case in node.cases if case.contains in value)
            reached.add(next(held, node.otherwise))
            continue
        asked += 1
        if node.prompt.startswith("boom"):
            outputs[node.name] = ""
            reached.add(node.on_error)
            continue
        outputs[node.name] = f"<{fill(node.prompt, values)}>"
        reached.update(node.next)
        if not node.next:
            ended.append(node.name)
    return "\n\n".join(outputs[name] for name in ended), asked


def said(chat):
    return problem("model-failed", 502, "boom") if chat.last.startswith("boom") else f"<{chat.last}>"


async def test_any_graph_says_what_a_walk_over_its_nodes_says(platform, host):
    platform.default = said

    async def check(seed):
        graph = drawn(random.Random(seed))
        above = ancestors(graph)
        graph = LangGraphBehaviour(nodes=tuple(seen_by(node, graph, above) for node in graph.nodes), start=graph.start)
        made = document(f"graph-{seed}", "langgraph", behaviour=Behaviour(langgraph=graph))
        answer = await host.invoke(invoke_request(made, platform.add(made), "hi"))
        assert (answer.output, answer.model_calls) == walked(graph), (seed, graph)
        return answer.model_calls

    calls = await asyncio.gather(*(check(seed) for seed in range(GRAPHS)))
    assert max(calls) > 5
