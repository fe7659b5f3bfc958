"""What a terminal gets of other people's words."""

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from chimera.entrypoints.cli import definitions, looking, text, watching
from chimera.entrypoints.cli.failing import place
from chimera.entrypoints.cli.main import cli
from chimera.entrypoints.cli.output import cell
from chimera.entrypoints.cli.text import clean


@pytest.mark.parametrize(
    ("given_text", "seen"),
    [
        ("plain: é, 日本, עברית\u200f, \U0001f642\n\ttab", "plain: é, 日本, עברית\u200f, \U0001f642\n\ttab"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\rb\x00c\x9bd", "a\\rb\\x00c\\x9bd"),
        ("pay \u202etxt.exe", "pay \\u202etxt.exe"),
    ],
)
def test_what_steers_a_terminal_is_written_out(given_text: str, seen: str) -> None:
    assert clean(given_text) == seen
    assert cell([given_text]) == seen
    assert place({"message": given_text}) == seen


@given(st.text())
def test_cleaning_twice_is_cleaning_once_and_loses_no_letter(given_text: str) -> None:
    seen = clean(given_text)
    assert clean(seen) == seen and "\x1b" not in seen and len(seen) >= len(given_text)


def test_a_program_gets_an_answer_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, seen in ((False, "\x1b"), (True, "\\x1b")):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal, raising=False)
        assert text.shown("\x1b") == seen


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output looks like a terminal to `shown`, also where click's runner stands in for it."""
    monkeypatch.setattr(text, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))


STEERING = "\u202e\x9b2J"


@pytest.mark.parametrize(
    ("command", "module", "answer"),
    [
        ("describe hello", looking, {"name": STEERING, "notes": [STEERING]}),
        ("describe hello -o json", looking, {"name": STEERING}),
        ("status", watching, {"url": STEERING}),
        ("get agents -o yaml", looking, [{"name": STEERING}]),
        (
            "diff hello.yaml",
            definitions,
            [
                {
                    "agent": STEERING,
                    "state": "changed",
                    "advice": STEERING,
                    "changes": [{"kind": "a", "path": STEERING, "reason": STEERING, "old": STEERING, "new": STEERING}],
                }
            ],
        ),
    ],
)
def test_what_comes_from_definitions_steers_no_terminal(
    command: str, module: ModuleType, answer: Any, terminal: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "run", lambda *_: answer)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hello.yaml").touch()
    done = CliRunner().invoke(cli, command.split())
    assert done.exit_code == 0, done.output
    assert "2J" in done.output and not set(STEERING[:2]) & set(done.output)
