"""Merging, graphs, expressions, tags, digests and differences, over everything that hypothesis thinks of."""

import itertools
import re
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.agents.compile import CompiledAgent, compile_definition, read_canonical, sort_tags
from chimera.agents.diff import compare
from chimera.agents.graph import check_graph, find_cycle
from chimera.agents.merge import merge
from chimera.agents.patterns import pattern_fault
from chimera.agents.validate import check_data
from chimera_host.contract.behaviour import LangGraphBehaviour, PromptNode

keys = st.sampled_from("abc")
leaves = st.one_of(st.integers(0, 3), st.lists(st.integers(0, 3), max_size=2))
trees = st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=8)
mappings = st.dictionaries(keys, trees, max_size=3)
with_nulls = st.dictionaries(keys, trees | st.none(), max_size=3)


@given(mappings)
def test_merging_with_nothing_changes_nothing(tree: dict[str, Any]) -> None:
    assert merge(tree, {}) == merge({}, tree) == merge(tree, tree) == tree


@given(mappings, with_nulls)
def test_the_definition_wins_and_a_null_takes_away(below: dict[str, Any], above: dict[str, Any]) -> None:
    before = msgspec.json.encode([below, above])
    merged = merge(below, above)
    for key, value in above.items():
        if value is None:
            assert key not in merged
        elif not isinstance(value, dict):
            assert merged[key] == value
    assert all(merged[key] == below[key] for key in below if key not in above)
    assert merge(merged, above) == merged
    assert msgspec.json.encode([below, above]) == before


alike = st.fixed_dictionaries({}, optional={"a": leaves, "b": st.dictionaries(keys, leaves, max_size=2)})


@given(alike, alike, alike)
def test_merging_is_associative_where_fields_keep_their_kind(
    a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]
) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


edges = st.dictionaries(st.integers(0, 7), st.lists(st.integers(0, 7), max_size=3))


@given(edges)
def test_a_cycle_is_found_where_one_is(raw: dict[int, list[int]]) -> None:
    following = {str(node): [str(to) for to in raw.get(node, [])] for node in range(8)}
    cycle = find_cycle(following)
    if cycle is not None:
        assert cycle[0] == cycle[-1]
        assert len(cycle) > 1
        assert all(after in following[before] for before, after in itertools.pairwise(cycle))
    else:
        left = dict(following)
        while ends := [node for node, after in left.items() if not any(one in left for one in after)]:
            for node in ends:
                del left[node]
        assert not left


@given(edges, st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_a_graph_without_faults_runs_every_node_once(raw: dict[int, list[int]], start: list[int]) -> None:
    nodes = tuple(
        PromptNode(name=f"n{node}", prompt="x", next=tuple(f"n{to}" for to in raw.get(node, []))) for node in range(8)
    )
    graph = LangGraphBehaviour(nodes=nodes, start=tuple(f"n{node}" for node in start))
    if list(check_graph(graph, "g")):
        return
    after = {node.name: set(node.next) for node in nodes}
    ran: list[str] = []
    ready = list(graph.start)
    while ready:
        name = ready.pop()
        ran.append(name)
        ready += [
            to for to in after[name] if all(to not in after[one] or one in ran for one in after) and to not in ready
        ]
    assert sorted(ran) == sorted(after)


atoms = st.sampled_from(["a", "b", r"\d", "[ab]", "[^]a]", r"\+", ".", "^", "$"])
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2,}", "{1,3}", "{20}", "*?", "++"])).map(
            lambda p: f"(?:{p[0]}){p[1]}"
        ),
        inner.map(lambda part: f"(?P<n>{part})"),
    ),
    max_leaves=6,
)
REPEATED = r"(?:[*+]|\{2,\}|\{20\})"


@given(expressions)
def test_an_expression_is_taken_or_told(text: str) -> None:
    fault = pattern_fault(text)
    if fault is None:
        re.compile(text)


@given(st.text(max_size=12) | st.text(st.sampled_from(r"ab()[]|*+?{}1,\:P<>=!^"), max_size=14))
def test_any_text_is_an_expression_or_told(text: str) -> None:
    if pattern_fault(text) is None:
        re.compile(text)


@given(
    expressions,
    st.sampled_from(["*", "+", "{2,}", "{20}"]),
    st.sampled_from(["*", "+", "{2,}"]),
    st.sampled_from(["", "?:", "?P<x>"]),
)
def test_a_repetition_within_a_repetition_is_refused(inner: str, one: str, two: str, group: str) -> None:
    nested = f"({group}(?:{inner}){one}){two}"
    assert pattern_fault(nested) is not None
    assert pattern_fault(f"x({group}b{one}{inner}){two}y") is not None


@given(st.lists(st.sampled_from(["capability:x", "domain:y", "domain:a", "integration:z", "b", "a", "capabilities"])))
def test_tags_are_a_set_in_one_order(tags: list[str]) -> None:
    found = sort_tags(tuple(tags))
    assert set(found) == set(tags)
    assert len(set(found)) == len(found)
    assert sort_tags(tuple(reversed(tags))) == found == sort_tags(found)


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=20)
definitions = st.fixed_dictionaries(
    {
        "schema_version": st.just("ADaC v2.0"),
        "metadata": st.fixed_dictionaries(
            {
                "name": st.sampled_from(["a", "b"]),
                "version": st.sampled_from(["1.0.0", "1.1.0", "2.0.0"]),
                "description": words,
            },
            optional={"tags": st.lists(words, max_size=3)},
        ),
        "specification": st.fixed_dictionaries(
            {"framework": st.sampled_from(["AutoGen", "CrewAI", "LangGraph", "function"])},
            optional={"resources": st.fixed_dictionaries({}, optional={"cpu": st.sampled_from(["250m", "0.25", "1"])})},
        ),
        "capabilities": st.fixed_dictionaries({"primary_functions": st.lists(words, min_size=1, max_size=2)}),
    },
    optional={
        "scaling": st.fixed_dictionaries(
            {}, optional={"max_instances": st.integers(1, 20), "min_instances": st.just(0)}
        ),
        "budget": st.fixed_dictionaries(
            {}, optional={"tokens_per_day": st.integers(1, 9), "usd_per_day": st.floats(0.1, 9)}
        ),
        "tools": st.lists(
            st.fixed_dictionaries(
                {"type": st.just("agent"), "name": st.sampled_from("xyz"), "agent": st.just("other")}
            ),
            max_size=3,
            unique_by=lambda tool: tool["name"],
        ),
    },
)


def revision(data: dict[str, Any]) -> CompiledAgent:
    return compile_definition(check_data(data), tenant="default")


def shuffled(value: Any) -> Any:
    """The same mappings with their keys the other way round."""
    if isinstance(value, dict):
        return {key: shuffled(inner) for key, inner in reversed(value.items())}
    return [shuffled(inner) for inner in value] if isinstance(value, list) else value


@settings(max_examples=150)
@given(definitions)
def test_a_digest_is_of_the_content(data: dict[str, Any]) -> None:
    one, two = revision(data), revision(shuffled(data))
    assert one.digest == two.digest
    assert read_canonical(one.canonical) == one.value
    assert one.canonical == msgspec.json.encode(read_canonical(one.canonical), order="sorted")


@settings(max_examples=150)
@given(definitions, definitions)
def test_a_difference_is_empty_for_the_same_content_alone(one: dict[str, Any], two: dict[str, Any]) -> None:
    old, new = revision(one), revision(two)
    found = compare(old.value, new.value)
    same_version = one["metadata"]["version"] == two["metadata"]["version"]
    if same_version:
        assert bool(found.changes) == (old.digest != new.digest)
        assert found.version_fits == (not found.changes)
    assert not compare(old.value, old.value).changes
    assert {change.path for change in found.changes} == {
        change.path for change in compare(new.value, old.value).changes
    }
