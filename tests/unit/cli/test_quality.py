"""`chimera quality` without an API: scores, reasons, faults, and the exit code."""

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from chimera.entrypoints.cli.main import cli
from chimera.kernel.settings import SettingsError
from chimera.testing.definitions import definition


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = "Compares a supplier's invoice with its order and names every difference in amount, tax or quantity."
    for name in ("invoice-auditor", "bill-auditor"):
        made = definition(name, metadata={"description": text}, capabilities={"primary_functions": [text]})
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(made))
    return tmp_path


def asked(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["quality", *arguments], standalone_mode=False)
    return int(done.return_value or 0), done.output


def test_definitions_are_scored_and_held_against_each_other(folder: Path) -> None:
    code, output = asked(str(folder), "--offline", "--output", "json")
    rows = json.loads(output)
    assert code == 0
    assert [row["quality"]["agent"] for row in rows] == ["bill-auditor", "invoice-auditor"]
    assert [twin["agent"] for twin in rows[0]["quality"]["twins"]] == ["invoice-auditor"]


def test_the_table_names_the_weakest_criteria_and_explaining_says_what_would_meet_them(folder: Path) -> None:
    _, output = asked(str(folder), "--offline")
    assert "bill-auditor\t" in output and "unique" in output
    assert "0 of 2 would need no person's approval; held against each other" in output
    _, output = asked(str(folder), "--offline", "--explain")
    assert "invoice-auditor is in the same change and nearly the same" in output
    assert "set `owner.team` and `owner.contact`" in output


def test_without_an_api_the_home_says_what_criteria_weigh(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()

    def scores() -> list[float]:
        told = ["--home", str(home), "quality", str(folder), "--offline", "-o", "json"]
        done = CliRunner().invoke(cli, told, standalone_mode=False)
        return [row["quality"]["score"] for row in json.loads(done.stdout)]

    before = scores()
    (home / "settings.toml").write_text("[quality]\nunique = 0\ntests = 0\n")
    assert all(after > one for after, one in zip(scores(), before, strict=True))
    (home / "settings.toml").write_text("[quality]\nunique = -1\n")
    with pytest.raises(SettingsError, match="unique"):
        cli.main(["--home", str(home), "quality", str(folder), "--offline"], standalone_mode=False)


def test_a_least_score_and_a_fault_end_with_65(folder: Path) -> None:
    assert asked(str(folder), "--offline", "--least", "10")[0] == 0
    assert asked(str(folder), "--offline", "--least", "90")[0] == 65
    (folder / "broken.yaml").write_text('schema_version: "ADaC v2.0"\nmetadata: {name: BAD}\n')
    code, output = asked(str(folder), "--offline")
    assert code == 65 and "broken.yaml" in output
