"""`chimera size`: options become a demand, and what is wrong with one is said."""

import json

import pytest
from click.testing import CliRunner

from chimera.entrypoints.cli.main import cli
from chimera.platform.sizing import LIST_PRICES, Demand, size

WANTED = ["size", "--agents", "12000", "--calls-per-second", "1000"]


def test_it_says_what_is_reckoned() -> None:
    done = CliRunner().invoke(cli, [*WANTED, "-o", "json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)
    found = size(Demand(agents=12_000, calls_per_second=1_000.0))
    assert said["size"]["usd_per_month"] == pytest.approx(found.usd_per_month)
    assert said["size"]["host_pods"] == found.host_pods and said["demand"]["agents"] == 12_000
    assert said["prices"]["source"] == LIST_PRICES.source
    assert f"{found.host_pods} pods of hosts" in CliRunner().invoke(cli, WANTED).output


def test_shares_and_prices_of_ones_own() -> None:
    words = ["--framework", "crewai=3", "--framework", "autogen", "--price", "agent_node_hour=1", "--tenants", "2"]
    said = json.loads(CliRunner().invoke(cli, [*WANTED, *words, "-o", "json"]).output)
    assert said["demand"]["mix"] == {"crewai": 3, "autogen": 1} and said["size"]["cells"] == 4
    assert said["prices"]["agent_node_hour"] == 1 and said["prices"]["disk_gb_month"] == LIST_PRICES.disk_gb_month
    assert said["prices"]["source"].startswith("given: agent_node_hour")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--framework", "function=1"], "one of autogen, langgraph, crewai"),
        (["--framework", "autogen=no"], "NAME=SHARE"),
        (["--framework", "autogen=0"], "NAME=SHARE"),
        (["--price", "gold=1"], "agent_node_hour"),
        (["--price", "disk_gb_month=inf"], "NAME=USD"),
        (["--price", "source=1"], "NAME=USD"),
        (["--large", "2"], "0<=x<=1"),
        (["--call-seconds", "0"], "x>0"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], says: str) -> None:
    done = CliRunner().invoke(cli, [*WANTED, *words])
    assert done.exit_code == 2 and says in done.output
