"""A setting is written into a settings file, and nothing else in it changes."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.entrypoints.cli.moving import with_settings

WANTED = {"database": "postgresql://chimera@db/chimera", "database_password": "secret:database"}
LINES = st.sampled_from(
    [
        "",
        "# a note with [node] in it",
        "[node]",
        "[node]  # this machine",
        "[quota]",
        "[model.default]",
        "max_hosts = 2",
        'database = "postgresql://other/one" # old',
        "database_password='env:OLD'",
        'provider = "openai"',
        "  tick = 3.0",
    ]
)


@given(st.lists(LINES, max_size=12).map("\n".join))
def test_the_settings_are_set_and_nothing_else_changes(text: str) -> None:
    try:
        before = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # the home's settings could not have been read
    made = with_settings(text, WANTED)
    if made is None:
        return
    assert tomllib.loads(made) == {**before, "node": {**before.get("node", {}), **WANTED}}
    assert [line for line in made.splitlines() if line.startswith("#")] == [
        line for line in text.splitlines() if line.startswith("#")
    ]
    assert with_settings(made, WANTED) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[node]\n",
        "# mine\n[node]\nmax_hosts = 2\n\n[quota]\n",
        '[quota]\n[node]\ndatabase = ""\n',
        "[model.a]\nprovider = 'x'",
    ],
)
def test_what_people_write_can_be_changed(text: str) -> None:
    assert with_settings(text, WANTED) is not None


@pytest.mark.parametrize("text", ["node = {max_hosts = 2}\n", "node.max_hosts = 2\n"])
def test_what_is_written_in_another_way_is_left_to_a_person(text: str) -> None:
    assert with_settings(text, WANTED) is None
