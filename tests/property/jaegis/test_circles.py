"""Circles are found where there are some, and what is found is one."""

from hypothesis import given
from hypothesis import strategies as st

from chimera.jaegis.creator.circles import circles

NODE = st.integers(0, 8).map(lambda number: f"n{number}")
GRAPH = st.dictionaries(NODE, st.lists(NODE, max_size=4, unique=True))


def reached(graph: dict[str, list[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += graph.get(name, ())
    return found


@given(GRAPH, st.lists(NODE, max_size=5, unique=True))
def test_every_root_that_comes_back_to_itself_is_in_a_circle_that_is_told(
    graph: dict[str, list[str]], roots: list[str]
) -> None:
    found = circles(graph, roots)
    for circle in found:
        assert circle[0] in roots
        assert len(set(circle)) == len(circle)
        assert all(after in graph[name] for name, after in zip(circle, (*circle[1:], circle[0]), strict=True))
    back = [root for root in roots if root in reached(graph, root)]
    for root in back:
        part = {name for name in reached(graph, root) if root in reached(graph, name)}
        assert any(circle[0] in part for circle in found)
    assert bool(found) == bool(back)


def test_a_chain_of_ten_thousand_agents_is_no_deeper_than_one() -> None:
    chain = {f"n{number}": [f"n{number + 1}"] for number in range(10_000)}
    assert circles(chain, ["n0"]) == []
    chain["n10000"] = ["n0"]
    assert len(circles(chain, ["n0"])[0]) == 10_001
