import json
import logging
import os
import sys
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera_host import logs
from chimera_host.trace import span


@pytest.fixture
def logged():
    """Configure logging onto a pipe; reads back the records."""
    root = logging.getLogger()
    before, level, out, err = root.handlers[:], root.level, sys.stdout, sys.stderr
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    logs.configure("test", descriptor=writer, host="h1")

    def read():
        data = b""
        while True:
            try:
                data += os.read(reader, 1 << 20)
            except BlockingIOError:
                return [json.loads(line) for line in data.splitlines()]

    yield read
    sys.stdout, sys.stderr = out, err
    logging.captureWarnings(False)
    root.handlers[:] = before
    root.setLevel(level)
    os.close(reader)
    os.close(writer)


def test_a_record_says_what_it_belongs_to(logged):
    token = logs.log_fields.set({"request": "r1", "agent": "a1"})
    with span("x") as opened:
        logging.getLogger("chimera_host.x").info("hello %s", "you", extra={"code": 7, "what": {"b": {1, 2}}})
    logs.log_fields.reset(token)
    first = logged()[0]
    assert first["message"] == "hello you" and first["level"] == "info" and first["process"] == "test"
    assert (first["host"], first["request"], first["agent"], first["code"]) == ("h1", "r1", "a1", 7)
    assert first["trace"] == opened.context.trace_id and first["time"].endswith("Z")


def test_errors_carry_their_traceback_and_others_speak_from_warning_on(logged):
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("chimera.x").exception("oh")
    logging.getLogger("httpx").info("a prompt, perhaps")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("careful", stacklevel=1)
    records = logged()
    assert "ValueError: broken" in records[0]["error"]
    assert len(records) == 2 and "careful" in records[1]["message"]


@given(st.dictionaries(st.text("xyz", min_size=1), st.one_of(st.text(), st.integers(), st.floats(), st.binary())))
def test_any_extra_makes_one_line_of_json(extra):
    record = logging.LogRecord("n", logging.INFO, "p", 1, "message\nwith lines", (), None)
    vars(record).update(extra)
    line = logs.JsonFormatter({"process": "p"}).format(record)
    assert "\n" not in line and json.loads(line)["message"] == "message\nwith lines"


def test_a_long_line_is_cut_and_still_json():
    record = logging.LogRecord("n", logging.INFO, "p", 1, "é" * 100_000, (), None)
    record.more = {n: "x" * 1000 for n in range(100)}
    line = logs.JsonFormatter({}).format(record)
    assert len(line.encode()) <= logs.MAX_LINE and json.loads(line)["message"].startswith("é")


def test_prints_are_attributed_line_by_line(logged):
    out, _ = logs.capture_prints()
    token = logs.log_fields.set({"request": "r1", "agent": "a1"})
    print("one\ntwo", end="")
    other = logs.log_fields.set({"request": "r2", "agent": "a2"})
    print("other")
    logs.log_fields.reset(other)
    print(" still two")
    print("rest", end="")
    out.finish("r1")
    logs.log_fields.reset(token)
    print("error", file=sys.stderr)
    found = [(r.get("agent"), r["message"], r["level"]) for r in logged()]
    assert found == [
        ("a1", "one", "info"),
        ("a2", "other", "info"),
        ("a1", "two still two", "info"),
        ("a1", "rest", "info"),
        (None, "error", "warning"),
    ]


def test_an_agent_that_prints_without_end_is_cut_off(logged):
    out, _ = logs.capture_prints()
    token = logs.log_fields.set({"request": "r1"})
    for _ in range(400):
        print("x" * 1000)
        got = logged()
    print("x" * 100_000, end="")
    assert len(out._pending) <= 1 and sum(map(len, out._pending.values())) <= logs.MAX_PRINTED_LINE
    assert got == []
    out.finish("r1")
    print("again")
    assert [r["message"] for r in logged()][-1] == "again"
    logs.log_fields.reset(token)


def test_printing_from_inside_the_log_does_not_go_round(logged, monkeypatch):
    logs.capture_prints()
    monkeypatch.setattr(logs.JsonFormatter, "format", lambda self, record: print("inside") or "{}")
    print("outside")
    assert logged() == [{}]
