"""What `/v1/logs` shows: the newest lines of which processes, of whom, and what is added while somebody follows."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest


def write(folder: Path, process: str, *records: dict[str, Any] | str) -> None:
    with (folder / f"{process}.jsonl").open("a") as file:
        file.writelines((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records)


@pytest.fixture
def written(node) -> Any:
    write(
        node.logs,
        "gateway",
        {"time": "1", "message": "began", "level": "info"},
        {"time": "3", "message": "called", "level": "info", "agent": "default/anna", "request": "r-1"},
        {"time": "5", "message": "failed", "level": "ERROR", "agent": "default/berta", "request": "r-2"},
    )
    write(
        node.logs,
        "host_a",
        {"time": "2", "message": "loaded", "level": "info", "agent": "anna"},
        {"time": "4", "message": "ran", "level": "info", "agent": "default/anna", "request": "r-1"},
    )
    write(node.logs, "zygote-function", "Killed", "", "[1, 2]")
    return node


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", "Killed began loaded called ran failed"),
        ("lines=2", "ran failed"),
        ("agent=default/anna", "loaded called ran"),
        ("agent=anna", "loaded"),
        ("request=r-1", "called ran"),
        ("level=error", "failed"),
        ("process=gateway", "began called failed"),
        ("process=hosts", "loaded ran"),
        ("process=host_a&request=r-1", "ran"),
        ("process=host_a&level=error", ""),
        ("process=nobody", ""),
        ("process=../secret", ""),
    ],
)
async def test_lines_are_those_asked_for_in_order(written, query: str, shown: str) -> None:
    found = await written.lines(query)
    assert " ".join(line["message"] for line in found) == shown


async def test_each_line_names_its_process(written) -> None:
    assert {line["process"] for line in await written.lines("")} == {"gateway", "host_a", "zygote-function"}


async def test_who_follows_sees_what_is_added_and_nothing_else(written) -> None:
    async with written.session.get("/v1/logs?follow=1&lines=1&agent=default/anna") as answer:
        assert json.loads(await answer.content.readline())["message"] == "ran"
        write(written.logs, "gateway", {"time": "6", "message": "other", "agent": "default/berta"})
        write(written.logs, "host_b", {"time": "7", "message": "added", "agent": "default/anna"})
        line = await asyncio.wait_for(answer.content.readline(), 60)
        assert json.loads(line)["message"] == "added"


async def test_who_leaves_while_lines_come_is_no_failure(
    written, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chimera.entrypoints.node.logs.FOLLOW_INTERVAL", 0.05)
    with caplog.at_level(logging.WARNING):
        async with written.session.get("/v1/logs?follow=true&lines=1") as answer:
            await answer.content.readline()
            answer.close()
        for number in range(8):
            write(written.logs, "gateway", {"time": f"6{number}", "message": "late"})
            await asyncio.sleep(0.02)
    assert caplog.messages == []
