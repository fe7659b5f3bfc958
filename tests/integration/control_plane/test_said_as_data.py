"""Commands that send definitions and come to nothing: whoever asked for data gets data, and nothing else."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chimera.entrypoints.cli.main import cli
from chimera.testing.definitions import definition

CASE = {"name": "any", "input": "Hi", "expect": {}}
COMMANDS = (("change", "open"), ("change", "amend", "chg-1"), ("rollout", "start"))


async def command(url: str, *arguments: str) -> Any:
    told = ["--url", url, "--key", "k", *arguments]
    return await asyncio.to_thread(lambda: CliRunner().invoke(cli, told, standalone_mode=False))


@pytest.mark.parametrize("words", COMMANDS)
async def test_faults_are_data(words: tuple[str, ...], url: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text('schema_version: "ADaC v2.0"\nmetadata: {name: x}\n')
    file = str(tmp_path / "bad.yaml")
    done = await command(url, *words, file, "--output", "json")
    assert done.return_value == 65
    assert {fault["file"] for fault in json.loads(done.stdout)["faults"]} == {file}
    assert done.stderr == ""
    told = await command(url, *words, file)
    assert told.return_value == 65 and told.stdout == ""
    assert "the field 'specification' is missing" in told.stderr and "Next: mend the faults." in told.stderr


async def test_that_all_is_live_already_is_data(client: Any, url: str, tmp_path: Path) -> None:
    (tmp_path / "anna.yaml").write_text(json.dumps(definition("anna")))
    file = str(tmp_path / "anna.yaml")
    assert (await command(url, "apply", file)).return_value == 0
    done = await command(url, "rollout", "start", file, "--output", "json")
    assert (done.return_value, json.loads(done.stdout)) == (0, {})
    assert "live as it is" in (await command(url, "rollout", "start", file)).stdout
    begun = await command(url, "rollout", "start", file, "--remove", "anna", "--output", "json")
    assert (begun.return_value, json.loads(begun.stdout)["agents"]) == (0, 1), "what is to be taken out goes alone"


@pytest.mark.parametrize("words", [("change", "open"), ("rollout", "start")])
async def test_warnings_are_told_to_people_and_are_no_data(words: tuple[str, ...], url: str, tmp_path: Path) -> None:
    (tmp_path / "anna.yaml").write_text(json.dumps(definition("anna", tests=[CASE])))
    file = str(tmp_path / "anna.yaml")
    told = await command(url, *words, file)
    assert told.return_value == 0 and "warning: " in told.stderr and "it expects nothing" in told.stderr
    (tmp_path / "anna.yaml").write_text(json.dumps(definition("bert", tests=[CASE])))
    done = await command(url, *words, file, "--output", "json")
    assert (done.return_value, done.stderr, json.loads(done.stdout)["agents"]) == (0, "", 1)
