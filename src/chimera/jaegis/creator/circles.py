"""Circles among agents that wait for each other: the strongly connected parts of a graph, and a shortest way round."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence


def circles(following: Mapping[str, Sequence[str]], roots: Iterable[str]) -> list[tuple[str, ...]]:
    """For each strongly connected part that `roots` lead to and that holds one of them: a shortest circle through it.

    A circle begins with a root and ends before it comes back. Tarjan's algorithm, without recursion: a chain of ten
    thousand agents is no deeper than one.
    """
    wanted = list(dict.fromkeys(roots))
    found = []
    for part in _parts(following, wanted):
        members = set(part)
        root = next((name for name in wanted if name in members), None)
        if root is not None and (len(part) > 1 or root in following.get(root, ())):
            found.append(_shortest(following, root, members))
    return found


def _parts(following: Mapping[str, Sequence[str]], roots: Sequence[str]) -> Iterable[list[str]]:
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    trail: list[str] = []
    on_trail: set[str] = set()
    for root in roots:
        if root in number:
            continue
        stack = [(root, iter(following.get(root, ())))]
        number[root] = lowest[root] = len(number)
        trail.append(root)
        on_trail.add(root)
        while stack:
            name, rest = stack[-1]
            after = next(rest, None)
            if after is None:
                stack.pop()
                if stack:
                    lowest[stack[-1][0]] = min(lowest[stack[-1][0]], lowest[name])
                if lowest[name] == number[name]:
                    part: list[str] = []
                    while not part or part[-1] != name:
                        part.append(trail.pop())
                        on_trail.discard(part[-1])
                    yield part
            elif after not in number:
                number[after] = lowest[after] = len(number)
                trail.append(after)
                on_trail.add(after)
                stack.append((after, iter(following.get(after, ()))))
            elif after in on_trail:
                lowest[name] = min(lowest[name], number[after])


def _shortest(following: Mapping[str, Sequence[str]], root: str, members: set[str]) -> tuple[str, ...]:
    came: dict[str, str] = {}
    waiting = deque([root])
    while waiting:
        name = waiting.popleft()
        for after in following.get(name, ()):
            if after == root:
                way = [name]
                while way[-1] != root:
                    way.append(came[way[-1]])
                return tuple(reversed(way))
            if after in members and after not in came:
                came[after] = name
                waiting.append(after)
    raise AssertionError(f"{root} is in no circle")
