"""Log records as people read them, and the tables of `top`."""

import pytest

from chimera.entrypoints.cli.watching import log_line, tables

HEAD = {"time": "2026-01-02T03:04:05.678Z", "level": "info", "process": "host", "logger": "chimera_host.trace"}


def test_a_span_is_told_by_its_name_its_time_and_what_it_was_for():
    span = {
        "name": "host.invoke",
        "trace_id": "a" * 32,
        "seconds": 1.765308,
        "attributes": {"model_calls": 2, "x": None},
    }
    record = {**HEAD, "message": "span", "agent": "hello", "trace": "a" * 32, "span": span}
    assert log_line(record) == "2026-01-02T03:04:05.678Z INFO    host: host.invoke 1765.3 ms model_calls=2 agent=hello"
    failed = {**record, "span": {**span, "error": "AgentNotFound", "attributes": "none"}}
    assert log_line(failed).endswith("host.invoke 1765.3 ms error=AgentNotFound agent=hello")


def test_a_traceback_stands_below_its_line():
    record = {**HEAD, "level": "error", "message": "call failed", "error": "Traceback:\n  File x\nOSError: no\n"}
    line, *below = log_line(record).split("\n")
    assert line == "2026-01-02T03:04:05.678Z ERROR   host: call failed"
    assert below == ["    Traceback:", "      File x", "    OSError: no"]
    assert log_line({**HEAD, "error": "short"}).endswith("host:  error=short")


def test_any_record_has_a_line():
    assert log_line({}) == "- -       -:"
    assert log_line({"span": {}, "level": None}) == "- NONE    -: span 0.0 ms"


GATEWAY = {"process": "gateway", "pid": 7, "cpu_seconds": 61.5, "proportional_bytes": 100 << 20}


def test_top_shows_of_pods_what_the_cluster_measures_and_says_what_is_not_known(capsys: pytest.CaptureFixture[str]):
    measured = {**GATEWAY, "pod": "gateway-1", "cpu_cores": 1.25, "working_set_bytes": 200 << 20}
    other = {"process": "operator", "pid": None, "cpu_seconds": None, "proportional_bytes": None, "pod": "operator-1"}
    nothing = {"cells": [], "hosts": [], "incidents": []}
    tables({"processes": [measured, other], "missing": ["what operator-1 uses: \x1b[31mno"], **nothing})
    head, first, second, said, *_ = capsys.readouterr().out.splitlines()
    assert head.split("\t") == ["PROCESS", "CPU (CORES)", "MEMORY", "POD"]
    assert first.split("\t") == ["gateway", "1.25", "200 MiB", "gateway-1"]
    assert second.split("\t") == ["operator", "-", "-", "operator-1"]
    assert said.startswith("not known: what operator-1 uses") and "\x1b" not in said
    tables({"processes": [GATEWAY], **nothing})  # one machine, or a gateway of the release before
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert head.split("\t")[2] == "CPU (S)" and first.split("\t") == ["gateway", "7", "61.5", "100 MiB"]
