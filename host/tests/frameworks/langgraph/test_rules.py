"""The rules of declared graphs, which are pure and run without LangGraph."""

import re
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chimera_host.contract.behaviour import BranchNode, Condition, LangGraphBehaviour, PromptNode


@pytest.fixture(scope="module")
def rules(pure_module):
    return pure_module("langgraph/rules.py")


def node(name, after, *, branch=False, error=None):
    if branch and after:
        cases = tuple(Condition(to=target, contains=target) for target in after[1:] or after)
        return BranchNode(name=name, cases=cases, otherwise=after[0])
    return PromptNode(name=name, prompt="{input}", next=tuple(after), on_error=error)


@st.composite
def graphs(draw, edges=lambda number, names: names[number + 1 :]):
    """Graphs whose nodes lead to those that `edges` allows: later ones, so that they are acyclic, by default."""
    names = [f"n{number}" for number in range(draw(st.integers(1, 8)))]
    nodes = []
    for number, name in enumerate(names):
        allowed = edges(number, names)
        after = draw(st.lists(st.sampled_from(allowed), max_size=3, unique=True)) if allowed else []
        error = draw(st.none() | st.sampled_from(allowed)) if allowed else None
        nodes.append(node(name, after, branch=draw(st.booleans()), error=error))
    start = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    return LangGraphBehaviour(nodes=tuple(draw(st.permutations(nodes))), start=tuple(start))


@given(graph=graphs())
def test_an_acyclic_graphs_shape_holds_each_edge_once(rules, graph):
    shape = rules.shape(graph)
    assert shape.start == set(graph.start)
    assert set(shape.before) == {one.name for one in graph.nodes}
    edges = [(earlier, name) for name, before in shape.before.items() for earlier in before]
    assert len(edges) == len(set(edges))
    assert set(edges) == {(one.name, target) for one in graph.nodes for target in rules.targets(one)}


def circle_in(rules, graph):
    """Whether a walk along the edges comes back: by search from each node, another way than the rule's."""
    after = {one.name: rules.targets(one) for one in graph.nodes}
    for begin in after:
        seen, ahead = set(), list(after[begin])
        while ahead:
            here = ahead.pop()
            if here == begin:
                return True
            if here not in seen:
                seen.add(here)
                ahead.extend(after[here])
    return False


@given(graph=graphs(edges=lambda _, names: names))
def test_a_graph_is_refused_if_and_only_if_it_leads_in_a_circle_which_is_named(rules, graph):
    if not circle_in(rules, graph):
        rules.shape(graph)
        return
    with pytest.raises(rules.GraphFault) as fault:
        rules.shape(graph)
    named = re.search(r"circle: (.*)", str(fault.value))[1].split(" -> ")
    after = {one.name: rules.targets(one) for one in graph.nodes}
    assert named[0] == named[-1] and len(named) > 1
    assert all(later in after[earlier] for earlier, later in pairwise(named))


@given(graph=graphs(), where=st.sampled_from(["start", "next", "on_error", "otherwise", "twice"]))
def test_a_name_that_is_no_node_or_two_is_named(rules, graph, where):
    nodes, start = graph.nodes, graph.start
    if where == "start":
        start = (*start, "ghost")
    elif where == "twice":
        nodes = (*nodes, PromptNode(name=nodes[0].name, prompt="?"))
    elif where == "otherwise":
        nodes = (*nodes, BranchNode(name="extra", cases=(Condition(to=nodes[0].name, equals="x"),), otherwise="ghost"))
    else:
        lead = {"next": ("ghost",)} if where == "next" else {"on_error": "ghost"}
        nodes = (*nodes, PromptNode(name="extra", prompt="?", **lead))
    with pytest.raises(rules.GraphFault, match=nodes[0].name if where == "twice" else "ghost"):
        rules.shape(LangGraphBehaviour(nodes=nodes, start=start))


WORDS = st.text(st.sampled_from("abAB ."), min_size=1, max_size=4)
CASES = st.one_of(
    WORDS.map(lambda word: {"contains": word}),
    WORDS.map(lambda word: {"equals": word}),
    WORDS.map(lambda word: {"matches": re.escape(word)}),
    st.integers(0, 6).map(lambda number: {"longer_than": number}),
)


@given(cases=st.lists(CASES, min_size=1, max_size=4), value=st.text(st.sampled_from("abAB ."), max_size=8))
def test_a_branch_takes_the_first_case_that_holds(rules, cases, value):
    conditions = tuple(Condition(to=f"case{number}", **case) for number, case in enumerate(cases))
    branch = BranchNode(name="choice", cases=conditions, otherwise="else")
    chosen = rules.choose(branch, value)
    holding = [condition.to for condition in conditions if rules.holds(condition, value)]
    assert chosen == (holding[0] if holding else "else")


@given(word=WORDS, before=WORDS, after=WORDS)
def test_words_are_compared_without_regard_to_case_and_patterns_as_written(rules, word, before, after):
    text = before + word.swapcase() + after
    assert rules.holds(Condition(to="x", contains=word), text)
    assert rules.holds(Condition(to="x", equals=word), f"\n{word.swapcase()} ")
    assert rules.holds(Condition(to="x", matches=re.escape(word)), before + word + after)
    assume(word != word.swapcase())
    assert not rules.holds(Condition(to="x", matches=f"^{re.escape(word)}$"), word.swapcase())


@given(value=st.text(max_size=20), number=st.integers(0, 20))
def test_longer_than_counts_characters(rules, value, number):
    assert rules.holds(Condition(to="x", longer_than=number), value) == (len(value) > number)


def test_a_case_without_a_test_never_holds(rules):
    assert not rules.holds(Condition(to="x"), "")


@pytest.mark.parametrize("pattern", ["(", "[a", "*", "(?P<x"])
def test_a_pattern_that_is_none_is_named_with_its_node(rules, pattern):
    branch = BranchNode(name="choice", cases=(Condition(to="x", matches=pattern),), otherwise="x")
    with pytest.raises(rules.GraphFault, match="choice"):
        rules.check_patterns(branch)


@given(graph=graphs(), data=st.data())
def test_the_answer_is_what_ended_in_the_order_of_the_nodes(rules, graph, data):
    values = {one.name: f"said {one.name}" for one in graph.nodes}
    last = data.draw(st.lists(st.sampled_from(sorted(values)), unique=True))
    expected = [f"said {one.name}" for one in graph.nodes if one.name in last]
    assert rules.answer(graph, values, last) == "\n\n".join(expected)


@given(said=st.text(max_size=20))
def test_a_declared_output_is_filled_in_once(rules, said):
    graph = LangGraphBehaviour(nodes=(PromptNode(name="a", prompt="?"),), start=("a",), output="<{a}|{b}>")
    assert rules.answer(graph, {"a": said}, ["a"]) == f"<{said}|{{b}}>"
