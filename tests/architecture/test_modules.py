"""The shape of the code: small modules that say why they are there, and nothing of the machine they were written on."""

import ast
import re
from pathlib import Path

import pytest

LONGEST = 500
PATHS_OF_A_MACHINE = re.compile(r"(?<![\w.~$}:/-])/(?:home|Users|root|work|mnt|tmp|var/tmp)/[\w.-]+")
UNNAMED_IGNORE = re.compile(r"#\s*(?:noqa(?!: ?[A-Z]+\d+)|type:\s*ignore(?!\[))")


def of_product(tracked: list[Path], root: Path) -> list[Path]:
    """Python that users run or read; tests explain themselves by their names."""
    folders = [root / name for name in ("src", "host/src", "benchmarks", "examples", "docs", "tests")]
    return [file for file in tracked if file.suffix == ".py" and any(file.is_relative_to(folder) for folder in folders)]


def test_every_module_says_what_it_is(tracked: list[Path], root: Path) -> None:
    silent = [file for file in of_product(tracked, root) if not ast.get_docstring(ast.parse(file.read_text()))]
    assert not silent


def test_no_module_is_too_long_to_read(tracked: list[Path]) -> None:
    code = [file for file in tracked if file.suffix in (".py", ".mjs", ".js", ".ts")]
    lengths = {file: len(file.read_text().splitlines()) for file in code}
    assert lengths
    assert not {file: lines for file, lines in lengths.items() if lines > LONGEST}


def test_no_file_names_a_place_of_one_machine(tracked: list[Path]) -> None:
    found = []
    for file in tracked:
        if file == Path(__file__):
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{file}: {match[0]}" for match in PATHS_OF_A_MACHINE.finditer(text)]
    assert not found


@pytest.mark.parametrize(
    ("line", "caught"),
    [
        ('open("/home/somebody/agents")', True),
        ("see /tmp/plan.md", True),
        ("https://example.org/home/page", False),
        ("~/projects/agents", False),
        ("$HOME/tmp/x", False),
        ("/v1/tenants/default", False),
    ],
)
def test_the_look_for_places_finds_them(line: str, caught: bool) -> None:
    assert bool(PATHS_OF_A_MACHINE.search(line)) is caught


def test_every_ignore_names_its_rule(tracked: list[Path]) -> None:
    code = [file for file in tracked if file.suffix == ".py" and file != Path(__file__)]
    assert not [file for file in code if UNNAMED_IGNORE.search(file.read_text())]
