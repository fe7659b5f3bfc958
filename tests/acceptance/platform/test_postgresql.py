"""Two platforms on one PostgreSQL database: two control planes, two gateways, two sets of hosts, one catalogue.

Nothing that one of them acknowledged is lost or doubled by the other, and each follows the other's changes. Last, the
server is killed under both.
"""

import asyncio
import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from chimera.testing.postgresql import PostgreSQLServer

DEFINITION = """\
schema_version: "ADaC v2.0"
metadata: {{name: {name}, version: {version}, description: Says it again}}
specification: {{framework: function}}
capabilities: {{primary_functions: [echo]}}
"""
CHIMERA = str(Path(sys.executable).with_name("chimera"))
PASSWORD = "not needed by a server that trusts its socket"


SUCCEEDED = 'chimera_gateway_tasks_total{outcome="succeeded"}'

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQLServer]:
    with PostgreSQLServer(durable=True) as made:
        yield made


@pytest.fixture(scope="module")
def two(server: PostgreSQLServer, new_platform: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Any]]:
    database = server.new_database(migrated=False)
    folder = tmp_path_factory.mktemp("two")
    running = [
        new_platform(
            folder / name,
            CHIMERA_NODE__DATABASE=database,
            CHIMERA_NODE__DATABASE_PASSWORD="secret:database",
            CHIMERA_SECRET_database=PASSWORD,
        )
        for name in ("one", "other")
    ]
    yield running
    for platform in running:
        assert platform.stop() == 0


def until(holds: Any, within: float = 90.0) -> None:
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.1)


def applied(platform: Any, name: str, version: str = "1.0.0") -> dict[str, Any]:
    text = DEFINITION.format(name=name, version=version)
    return json.loads(platform.ok("apply", "-", "--output", "json", text=text))


def answers(platform: Any, agent: str) -> bool:
    return "You said: hello" in platform.run("invoke", agent, "hello").stdout


def session(platform: Any, agent: str, name: str) -> Any:
    url = f"{platform.url}/v1/tenants/default/agents/{agent}/sessions/{name}"
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {platform.key}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.load(answer)


def asked(platform: Any, method: str, path: str, body: Any = None) -> Any:
    url = f"{platform.url}/v1/tenants/default/{path}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    request.add_header("Authorization", f"Bearer {platform.key}")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def succeeded(platform: Any) -> int:
    """Tasks that this platform's gateway has answered."""
    request = urllib.request.Request(f"{platform.url}/metrics", headers={"Authorization": f"Bearer {platform.key}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith(SUCCEEDED))


async def invoke(http: aiohttp.ClientSession, platform: Any, agent: str, **body: Any) -> tuple[int, Any]:
    url = f"{platform.url}/v1/tenants/default/agents/{agent}/invoke"
    headers = {"Authorization": f"Bearer {platform.key}"}
    async with http.post(url, json={"input": "hello", **body}, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


def test_what_is_applied_here_answers_there(two: list[Any]) -> None:
    one, other = two
    assert applied(one, "shared")["created"] == 1
    assert answers(one, "shared")
    until(lambda: answers(other, "shared"))

    assert applied(other, "shared", "2.0.0")["updated"] == 1
    until(lambda: one.data("describe", "shared")["version"] == "2.0.0")
    for platform in two:
        assert [row["version"] for row in platform.data("get", "revisions", "shared")] == ["2.0.0", "1.0.0"]
        assert not (platform.home / "chimera.db").exists()


def test_both_apply_at_once_and_no_number_is_given_twice(two: list[Any]) -> None:
    async def apply(platform: Any, number: int) -> tuple[int | None, bytes]:
        text = "---\n".join(
            DEFINITION.format(name=f"many-{index}", version=f"{number}.0.{index}") for index in range(5)
        )
        process = await asyncio.create_subprocess_exec(
            *(CHIMERA, "apply", "-", "--output", "json"),
            env=platform.environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await process.communicate(text.encode())
        return process.returncode, said

    async def main() -> list[tuple[int | None, bytes]]:
        return await asyncio.gather(*(apply(two[number % 2], number + 1) for number in range(6)))

    ended = asyncio.run(main())

    assert [code for code, _ in ended] == [0] * 6
    assert len({json.loads(said)["sequence"] for _, said in ended}) == 6
    histories = [two[0].data("get", "revisions", f"many-{index}") for index in range(5)]
    numbers = [row["sequence"] for history in histories for row in history]
    assert len(numbers) == len(set(numbers)) == 30
    live = {two[1].data("describe", f"many-{index}")["version"].partition(".")[0] for index in range(5)}
    assert len(live) == 1, "two batches are mixed"


def test_a_session_used_through_both_loses_no_turn(two: list[Any]) -> None:
    applied(two[0], "keeper")
    until(lambda: all(answers(platform, "keeper") for platform in two))

    async def talk(http: aiohttp.ClientSession, platform: Any) -> int:
        kept = 0
        for _ in range(15):
            status, body = await invoke(http, platform, "keeper", session="ours")
            assert status in (200, 409), body
            kept += status == 200
        return kept

    async def main() -> int:
        async with aiohttp.ClientSession() as http:
            return sum(await asyncio.gather(*(talk(http, platform) for platform in two for _ in range(2))))

    kept = asyncio.run(main())

    assert kept >= 15
    found = [session(platform, "keeper", "ours") for platform in two]
    assert found[0] == found[1]
    assert found[0]["version"] == kept
    assert len(found[0]["state"]["messages"]) == 2 * kept


def test_tasks_are_shared_each_is_done_once_and_an_agents_limit_holds(two: list[Any]) -> None:
    """Tasks of one agent that takes four calls at once, submitted through both; each takes a second and a half."""
    text = DEFINITION.format(name="slowly", version="1.0.0") + "scaling: {max_instances: 1, concurrency_target: 4}\n"
    assert json.loads(two[0].ok("apply", "-", "--output", "json", text=text))["created"] == 1
    until(lambda: all(answers(platform, "slowly") for platform in two))
    before = [succeeded(platform) for platform in two]
    tasks = [
        asked(platform, "POST", "agents/slowly/tasks", {"input": "slow", "priority": number})["task"]
        for number in range(6)
        for platform in two
    ]

    def shown() -> list[Any]:
        return [asked(two[0], "GET", f"agents/slowly/tasks/{task}") for task in tasks]

    until(lambda: {task["state"] for task in shown()} == {"succeeded"}, within=90)
    done = shown()
    assert [[change["why"] for change in task["history"]] for task in done] == [
        ["submitted", "claimed", "succeeded"]
    ] * len(tasks)
    by = [succeeded(platform) - earlier for platform, earlier in zip(two, before, strict=True)]
    assert sum(by) == len(tasks) and all(by), f"done by each: {by}"
    most = max(sum(one["started"] <= at < one["finished"] for one in done) for at in (one["started"] for one in done))
    assert most <= 4, "each gateway has an equal share of the agent's calls"


def test_calls_and_changes_come_back_after_the_server(two: list[Any], server: PostgreSQLServer) -> None:
    applied(two[0], "steady")
    until(lambda: all(answers(platform, "steady") for platform in two))
    before = session(two[0], "keeper", "ours")

    server.kill()
    assert answers(two[0], "steady"), "calls without state need no database"
    refused = two[1].run("invoke", "keeper", "hello", "--session", "ours")
    assert refused.returncode != 0
    assert "database" in refused.stderr
    server.start()

    until(lambda: all(answers(platform, "steady") for platform in two))
    until(lambda: two[1].run("invoke", "keeper", "hello", "--session", "ours").returncode == 0)
    assert session(two[0], "keeper", "ours")["version"] == before["version"] + 1
    until(lambda: two[0].run("get", "agents").returncode == 0)
    assert applied(two[1], "later")["created"] == 1


def test_the_password_is_nowhere(two: list[Any]) -> None:
    for platform in two:
        for file in platform.home.rglob("*"):
            if file.is_file():
                assert PASSWORD.encode() not in file.read_bytes(), file
