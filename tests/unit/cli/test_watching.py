"""Log records as people read them."""

from chimera.entrypoints.cli.watching import log_line

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
