"""What is new in a commit, and who made it, on any history: as git says it, and never too few."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.adapters.git.history import Since, since
from chimera.adapters.git.objects import Objects
from chimera.delivery.git.errors import MalformedObject
from chimera.delivery.git.objects import Commit

MOST = 1_000
Graph = tuple[tuple[tuple[int, ...], int], ...]
"""Commits by their number: the numbers of their parents, all of them lower, and when they say they were made."""


@st.composite
def graphs(draw: st.DrawFn, honest: bool, most: int = 24) -> Graph:
    """Roots, lines, merges of two or more, criss-cross; where `honest` no commit says it is older than its parents."""
    found: list[tuple[tuple[int, ...], int]] = []
    for number in range(draw(st.integers(1, most))):
        near = st.integers(max(0, number - 6), number - 1) if number else st.nothing()
        parents = tuple(draw(st.lists(near, max_size=4, unique=True))) if number else ()
        at = draw(st.integers(0, 40))
        if honest:
            at = max([found[parent][1] for parent in parents], default=0) + at % 3
        found.append((parents, at))
    return tuple(found)


def reader(graph: Graph, gone: Sequence[int] = ()) -> Callable[[str], Commit]:
    def read(name: str) -> Commit:
        number = int(name)
        if number in gone:
            raise MalformedObject(f"{name} can't be read", next_step="x")
        parents, at = graph[number]
        return Commit(
            id=name,
            tree="",
            parents=tuple(map(str, parents)),
            author=f"author-{number}",
            committer=f"committer-{number}",
            at=at,
            message=f"x\n\nCo-authored-by: x <other-{number}>\n",
            payload=b"",
            signature=None,
        )

    return read


def reached(graph: Graph, number: int | None) -> set[int]:
    found: set[int] = set()
    waiting = [] if number is None else [number]
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting += graph[one][0]
    return found


def makers(numbers: set[int]) -> set[str]:
    return {f"{who}-{number}" for number in numbers for who in ("author", "committer", "other")}


def ends(data: st.DataObject, graph: Graph) -> tuple[int, int | None]:
    last = len(graph) - 1
    return data.draw(st.integers(0, last)), data.draw(st.none() | st.integers(0, last))


def named(number: int | None) -> str | None:
    return None if number is None else str(number)


@given(st.data())
def test_who_made_what_is_new(data: st.DataObject) -> None:
    graph = data.draw(graphs(honest=True))
    commit, before = ends(data, graph)
    found = since(reader(graph), str(commit), named(before), MOST)
    assert found.people == makers(reached(graph, commit) - reached(graph, before) | {commit})
    assert found.forward is (None if before is None else before in reached(graph, commit))
    assert found.unread == ""


@given(st.data())
def test_commits_that_lie_about_their_time_hide_nobody(data: st.DataObject) -> None:
    graph = data.draw(graphs(honest=False))
    commit, before = ends(data, graph)
    found = since(reader(graph), str(commit), named(before), MOST)
    assert found.people >= makers(reached(graph, commit) - reached(graph, before) | {commit})
    assert found.people <= makers(reached(graph, commit))
    assert found.forward is (None if before is None else before in reached(graph, commit))


@given(st.data())
def test_what_isnt_read_is_said(data: st.DataObject) -> None:
    graph = data.draw(graphs(honest=False))
    commit, before = ends(data, graph)
    most = data.draw(st.integers(1, 8))
    gone = data.draw(st.sets(st.integers(0, len(graph) - 1), max_size=2)) - {commit, before}
    wanted = makers(reached(graph, commit) - reached(graph, before) | {commit})
    try:
        found = since(reader(graph, tuple(gone)), str(commit), named(before), most)
    except MalformedObject:
        assert before is not None
        return
    assert found.unread or found.people >= wanted
    assert found.forward is not True or before in reached(graph, commit)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@settings(max_examples=25)
@given(st.data())
def test_it_is_as_git_says(data: st.DataObject) -> None:
    graph = data.draw(graphs(honest=True))
    commit, before = ends(data, graph)
    with TemporaryDirectory() as folder:
        names = imported(Path(folder), graph)
        one, other = names[commit], None if before is None else names[before]
        said = git(Path(folder), "log", "--format=%ae", one, *([f"^{other}"] if other is not None else []))
        objects = Objects(Path(folder) / ".git/objects")
        found = since(objects.commit, one, other, MOST)
        objects.close()
    assert found == Since(
        forward=None if before is None else before in reached(graph, commit),
        people=frozenset({*said.split(), f"{commit}@example.com"}),
    )


def imported(folder: Path, graph: Graph) -> list[str]:
    """Make a history with the real git; the names of its commits."""
    git(folder, "init", "-q")
    lines: list[str] = []
    for number, (parents, at) in enumerate(graph):
        lines += [f"commit refs/heads/at-{number}", f"mark :{number + 1}"]
        lines += [f"committer Ann <{number}@example.com> {at + 1_000} +0000", "data 0"]
        lines += [f"{'from' if not place else 'merge'} :{parent + 1}" for place, parent in enumerate(parents)]
    git(folder, "fast-import", "--quiet", "--export-marks=marks", text="\n".join(lines) + "\n")
    marks = dict(line.split() for line in (folder / "marks").read_text().splitlines())
    return [marks[f":{number + 1}"] for number in range(len(graph))]


def git(folder: Path, *arguments: str, text: str = "") -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, input=text, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
