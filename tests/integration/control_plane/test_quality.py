"""The operation `assess`: each definition with its quality beside what is live, or its faults."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chimera.entrypoints.cli import quality
from chimera.entrypoints.cli.main import cli
from chimera.testing.definitions import definition
from tests.integration.control_plane.conftest import Client

TEXT = "Compares a supplier's invoice with its order and names every difference in amount, tax or quantity."


def item(name: str, **changes: Any) -> dict[str, Any]:
    return {"definition": definition(name, **changes), "file": f"{name}.yaml"}


async def test_definitions_are_held_against_live_agents_and_nothing_is_kept(client: Client) -> None:
    described = {"metadata": {"description": TEXT}, "capabilities": {"primary_functions": [TEXT]}}
    await client.ask("POST", "apply", {"items": [item("invoice-auditor", **described)]})
    tool = [{"type": "agent", "name": "ask", "agent": "nobody"}]
    items = [item("bill-auditor", **described, tools=tool), item("anna", metadata={"version": "x"}), item("bert")]
    answer = await client.ask("POST", "quality", {"items": items})
    assert answer.status == 200
    copy, faulty, other = answer.json["agents"]
    assert answer.json["live"] == 1
    assert [one["agent"] for one in copy["quality"]["twins"]] == ["invoice-auditor"]
    assert [(one["code"], one["blocking"]) for one in copy["misfits"]] == [("unknown-agent", True)]
    assert faulty["faults"][0]["path"] == "metadata.version" and "quality" not in faulty
    assert other["quality"]["agent"] == "bert" and other["quality"]["twins"] == []
    assert (await client.ask("GET", "agents/bill-auditor")).status == 404
    assert client.changes == 1


async def test_a_deleted_agent_is_no_twin_any_more(client: Client) -> None:
    described = {"metadata": {"description": TEXT}, "capabilities": {"primary_functions": [TEXT]}}
    await client.ask("POST", "apply", {"items": [item("invoice-auditor", **described)]})
    body = {"items": [item("bill-auditor", **described)]}
    assert (await client.ask("POST", "quality", body)).json["agents"][0]["quality"]["twins"]
    await client.ask("DELETE", "agents/invoice-auditor")
    assert (await client.ask("POST", "quality", body)).json["agents"][0]["quality"]["twins"] == []


@pytest.mark.parametrize(("chunk", "misfits", "said"), [(quality.CHUNK, 0, ""), (1, 1, "in parts of 1")])
async def test_the_command_line_has_definitions_judged_together(
    chunk: int, misfits: int, said: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "CHUNK", chunk)
    tool = [{"type": "agent", "name": "ask", "agent": "bert"}]
    for made in (definition("anna", tools=tool), definition("bert")):
        (tmp_path / f"{made['metadata']['name']}.yaml").write_text(json.dumps(made))
    told = ["--url", url, "--key", "k", "quality", str(tmp_path)]
    done = await asyncio.to_thread(lambda: CliRunner().invoke(cli, [*told, "-o", "json"], standalone_mode=False))
    assert sum(len(row.get("misfits", ())) for row in json.loads(done.stdout)) == misfits
    done = await asyncio.to_thread(lambda: CliRunner().invoke(cli, told, standalone_mode=False))
    assert said in done.stderr and bool(done.stderr) == bool(said)
