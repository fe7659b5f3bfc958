"""What the figures rest on: percentiles, verdicts, process accounting, the load generator and the report."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks import machine
from benchmarks.agents import Agent, dedicated, read
from benchmarks.figures import ROWS, Measured, Row, Sizes, verdict
from benchmarks.load import Plan, Request, run
from benchmarks.report import Beside, Report, keep, report, show
from benchmarks.rows import evenly
from benchmarks.stats import median, percentile, spread
from chimera.agents.validate import check_text


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_a_value_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values) + 1e-9


def test_spread_and_median_of_runs() -> None:
    assert (median([3, 1, 2]), spread([3, 1, 2])) == (2, 2)
    assert percentile([], 0.5) != percentile([], 0.5)


@pytest.mark.parametrize(
    ("better", "value", "expected"),
    [("less", 5, "aim"), ("less", 7, "must"), ("less", 30, "missed"), ("more", 5, "missed"), ("more", 30, "aim")],
)
def test_a_verdict_knows_which_way_is_better(better: str, value: float, expected: str) -> None:
    bounds = {"must": 20, "aim": 6} if better == "less" else {"must": 6, "aim": 20}
    row = Row(id="x", what="x", unit="s", better=better, **bounds)  # type: ignore[arg-type]
    assert verdict(row, value) == expected


def test_every_row_has_an_aim_beyond_what_it_must() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)
    for row in ROWS:
        if row.aim is None:
            assert row.must is None and verdict(row, 1.0) == ""
            continue
        assert verdict(row, row.aim) == "aim"
        assert (row.aim < row.must) == (row.better == "less")


@given(st.integers(1, 500))
def test_a_scaled_run_measures_a_part_of_everything(by: int) -> None:
    whole, part = Sizes(), Sizes().scaled(by)
    for field in Sizes.__struct_fields__:
        assert 1 < getattr(part, field) <= max(60, getattr(whole, field))


def test_cpu_of_a_tree_counts_children_that_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    script = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); print('done', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"done\n"
        assert machine.cpu_seconds(process.pid) >= 0.28
        assert machine.tree_memory(process.pid) > machine.MIB
        assert process.pid in {one.pid for one in machine.tree(os.getpid())}
        process.stdin.close()
    assert machine.tree(process.pid) == []
    assert machine.proportional(process.pid) == 0


async def test_the_load_generator_sends_each_request_once_with_bounded_clients() -> None:
    seen: Counter[str] = Counter()
    now = most = 0

    async def answer(request: web.BaseRequest) -> web.Response:
        nonlocal now, most
        now += 1
        most = max(most, now)
        data = await request.json()
        seen[request.path] += 1
        now -= 1
        if request.headers["Authorization"] != "Bearer key" or data["n"] == 7:
            return web.Response(status=503, text="busy")
        return web.Response(text="{}")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    requests = [Request(f"/{number}", {"n": number}) for number in range(40)]
    try:
        result = await run(Plan(base=f"http://127.0.0.1:{port}", key="key", requests=requests, clients=4))
    finally:
        await runner.cleanup()
    assert seen == Counter({f"/{number}": 1 for number in range(40)})
    assert most <= 4
    assert result.errors == {"503 busy": 1}
    assert len(result.latencies) == 40
    assert min(result.latencies) > 0
    assert result.rate == pytest.approx(39 / result.seconds)


async def test_the_load_generator_counts_what_never_answered() -> None:
    result = await run(Plan(base="http://127.0.0.1:9", requests=[Request("/", {})] * 3, clients=2, timeout=5))
    assert sum(result.errors.values()) == 3


@given(st.integers(0, 60), st.integers(1, 80))
def test_agents_are_taken_from_all_parts(many: int, count: int) -> None:
    agents = [Agent(str(number), "AutoGen", "", Path(str(number))) for number in range(many)]
    taken = evenly(agents, count)
    assert len(taken) == min(many, count)
    assert taken == sorted(set(taken), key=agents.index)


def test_agents_that_sleep_alone_are_valid_definitions(tmp_path: Path) -> None:
    for framework in ("AutoGen", "CrewAI", "LangGraph"):
        for agent in dedicated(tmp_path, framework, 2):
            checked = check_text(agent.file.read_text())
            assert checked.definition.isolation == "dedicated"
            assert read(agent.file).framework == framework


def test_the_report_shows_every_row_and_keeps_what_was_measured(tmp_path: Path) -> None:
    runs = [
        {
            "apply": Measured(value=5.0, cpu=6.0, generator=1.0),
            "wake_crewai": Measured(value=9.0, errors=2, note="2 x 503"),
        },
        {"apply": Measured(value=8.0, cpu=6.5, generator=1.1), "wake_crewai": Measured(value=9.5)},
    ]
    beside = [Beside(what="a process for each of 12,000 agents", value=1e6, unit="MB", extrapolated="50")]
    made = report(Sizes(), 1, runs, beside, {"share_autogen": "no environment"})
    console = Console(width=220, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    show(made, console)
    console.file.close()
    text = console.export_text()
    for row in ROWS:
        assert row.what.split("{")[0] in text
    assert "17,597 definitions" in text
    assert "2 errors" in text
    assert "not measured: no environment" in text
    assert "extrapolated from 50" in text
    keep(made, tmp_path / "results" / "one.json")
    assert msgspec.json.decode((tmp_path / "results" / "one.json").read_bytes(), type=Report) == made
