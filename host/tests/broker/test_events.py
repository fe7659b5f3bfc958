"""Server-sent events in any pieces, and results as text."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera_host.broker.mcp.content import as_text
from chimera_host.broker.mcp.events import Event, EventParser
from chimera_host.errors import ToolFailed

LINE = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=12)


@given(
    st.lists(st.lists(LINE, min_size=1, max_size=3), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.data(),
)
def test_events_are_the_same_in_whatever_pieces_they_come(events, end, data):
    whole = "".join("".join(f"data: {line}{end}" for line in event) + end for event in events) + "data: cut"
    raw = whole.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    parser, found = EventParser(10_000), []
    for begin, stop in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        found += parser.feed(raw[begin:stop])
    assert [event.data for event in found] == ["\n".join(event) for event in events]


def test_ids_and_delays_are_kept_and_comments_dropped():
    parser = EventParser(1000)
    found = parser.feed(
        b": ping\nevent: message\nid: 7\nretry: 1500\ndata: a\ndata\n\nid: b\x00d\nretry: soon\ndata:b\n\n\n"
    )
    assert found == [Event("a\n", "7", 1.5), Event("b", "7", 1.5)]


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 50, b"x" * 101, b"data: x\n" * 30])
def test_an_event_that_grows_is_stopped(piece):
    parser = EventParser(100)
    with pytest.raises(ToolFailed, match="longer than 100 bytes"):
        for _ in range(3):
            parser.feed(piece)


PICTURE = base64.b64encode(b"123456").decode()


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "a\nb"),
        ({"content": [], "structuredContent": {"a": 1}}, '{"a":1}'),
        ({"content": [{"type": "text", "text": "a"}], "structuredContent": {"a": 1}}, "a"),
        (
            {"content": [{"type": "image", "mimeType": "image/png", "data": PICTURE}]},
            "[image image/png, 6 bytes, left out]",
        ),
        ({"content": [{"type": "resource", "resource": {"uri": "u", "text": "t"}}]}, "t"),
        (
            {"content": [{"type": "resource", "resource": {"uri": "u", "blob": PICTURE}}]},
            "[resource of unknown type, 6 bytes, left out]",
        ),
        ({"content": [{"type": "resource_link", "name": "n", "uri": "file:///x"}]}, "n: file:///x"),
        ({"content": [{"type": "hologram"}]}, "[hologram of unknown type, left out]"),
        ({}, ""),
        ({"content": "text"}, ""),
    ],
)
def test_a_result_is_text(result, text):
    assert as_text("t", result) == text


def test_a_result_that_says_it_failed_is_an_error():
    with pytest.raises(ToolFailed, match="tool 't' failed: no such city"):
        as_text("t", {"isError": True, "content": [{"type": "text", "text": "no such city"}]})
    with pytest.raises(ToolFailed, match="it does not say why"):
        as_text("t", {"isError": True})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "text", "resource", "data", "content", "blob"]), inner, max_size=4
            )
        ),
        max_leaves=10,
    )
)
def test_whatever_a_server_answers_is_text_or_an_error(content):
    try:
        assert isinstance(as_text("t", {"content": content}), str)
    except ToolFailed:
        raise AssertionError("only isError is one") from None
