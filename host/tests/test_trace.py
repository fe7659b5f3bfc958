import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera_host import trace

hex_digits = st.sampled_from("0123456789abcdef")
ids = {size: st.text(hex_digits, min_size=size, max_size=size).filter(lambda t: t.strip("0")) for size in (16, 32)}
contexts = st.builds(trace.TraceContext, ids[32], ids[16], st.booleans())


@given(contexts)
def test_what_is_written_is_read_back(context):
    assert trace.parse(context.header()) == context


@given(st.text())
def test_any_text_is_read_or_refused(text):
    context = trace.parse(text)
    assert context is None or trace.parse(context.header()) == context


@given(contexts, st.text(hex_digits, min_size=2, max_size=2), st.text(hex_digits, min_size=1))
def test_a_later_version_may_carry_more(context, version, more):
    header = f"{version}{context.header()[2:]}-{more}"
    assert (trace.parse(header) == context) == (version not in ("00", "ff"))


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
    ],
)
def test_what_breaks_the_rules_is_ignored(header):
    assert trace.parse(header) is None


@given(contexts)
def test_a_child_stays_in_its_trace(context):
    child = context.child()
    assert (child.trace_id, child.sampled) == (context.trace_id, context.sampled)
    assert child.span_id != context.span_id


def test_spans_nest_and_are_logged(caplog):
    caplog.set_level(logging.INFO, logger="chimera_host.trace")
    with trace.span("outer") as outer:
        with pytest.raises(KeyError), trace.span("inner", tool="x"):
            raise KeyError("secret")
        assert trace.current_trace.get() == outer.context
    assert trace.current_trace.get() is None
    inner, outermost = (record.span for record in caplog.records)
    assert inner["parent"] == outermost["span_id"] and inner["trace_id"] == outermost["trace_id"]
    assert inner["attributes"] == {"tool": "x"} and inner["error"] == "KeyError"
    assert outermost["parent"] is None and "error" not in outermost


def test_what_is_not_sampled_is_not_logged(caplog):
    caplog.set_level(logging.INFO, logger="chimera_host.trace")
    with trace.span("quiet", remote=trace.new_trace(sampled=False)) as quiet:
        assert quiet.context.sampled is False
    assert not caplog.records
