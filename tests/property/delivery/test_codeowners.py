"""CODEOWNERS: whatever the files, each has its own team's line and nobody else's, by both kinds of patterns."""

import re

from hypothesis import given
from hypothesis import strategies as st

from chimera.delivery.git.codeowners import Style, codeowners
from chimera.delivery.git.layout import LaidOut, decide, sealed, with_part

segments = st.text(st.sampled_from("ab .+é*#"), min_size=1, max_size=4).filter(lambda text: text.strip(". ") != "")
paths = st.lists(segments, min_size=1, max_size=3).map(lambda parts: "/".join(["agents", *parts]) + ".yaml")
teams = st.frozensets(st.sampled_from(["red", "blue", "green"]), max_size=2)


def matches(line: str, path: str, style: Style) -> bool:
    pattern = line[: re.search(r"(?<!\\) @", line).start()]  # type: ignore[union-attr]
    if style == "regex":
        return re.fullmatch(pattern, path) is not None
    plain = pattern.replace("\\ ", " ")
    return f"/{path}".startswith(plain) if plain.endswith("/") else f"/{path}" == plain


@given(files=st.dictionaries(paths, teams, max_size=12), style=st.sampled_from(["glob", "regex"]))
def test_each_file_has_the_line_of_its_teams(files: dict[str, frozenset[str]], style: Style) -> None:
    made = codeowners(files, lambda team: f"@{team}", style)
    for path, theirs in files.items():
        found = [line for line in made.text.splitlines() if matches(line, path, style)]
        if path in made.unowned:
            assert not found
        else:
            assert len(found) == 1
            assert frozenset(re.findall(r"@(\w+)", found[0])) == theirs


@given(
    body=st.text(st.characters(exclude_categories=["Cs"])),
    edit=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_an_edited_file_is_kept(body: str, edit: str) -> None:
    ours, newer = sealed("x", body), LaidOut(path="f", text=sealed("x", body + "\n"), generated=True)
    assert decide(ours, newer) == "renewed"
    assert decide(ours + edit, newer) in ("kept", "unchanged")
    assert decide(None, newer) == "written"


lines = st.lists(st.sampled_from(["/docs/ @a", "* @b", ""]), max_size=4).map(
    lambda found: "".join(f"{one}\n" for one in found)
)


@given(before=lines, first=lines, second=lines)
def test_only_the_generated_part_changes(before: str, first: str, second: str) -> None:
    once = with_part(before, "x", first)
    assert with_part(once, "x", first) == once
    assert with_part(once, "x", second) == with_part(before, "x", second)
    if before.strip():
        assert once.endswith(before)
