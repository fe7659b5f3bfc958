"""Credentials are fetched by reference and never seen in what is said."""

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera_host.broker.credentials import SHORTEST, Credentials
from chimera_host.errors import ToolFailed


class Source:
    def __init__(self, values):
        self.values = values
        self.asked = []

    async def credentials(self, call_id, names):
        self.asked.append((call_id, names))
        return {name: self.values[name] for name in names if name in self.values}


async def test_each_reference_is_asked_for_once_and_named_by_the_tool():
    source = Source({"secret:a": "alpha", "secret:b": "beta"})
    found = await Credentials(source).fetch("call-9", {"X": "secret:b", "Y": "secret:a", "Z": "secret:b"})
    assert found == {"X": "beta", "Y": "alpha", "Z": "beta"} and source.asked == [("call-9", ["secret:a", "secret:b"])]


async def test_nothing_is_asked_for_nothing():
    source = Source({})
    assert await Credentials(source).fetch("call", {}) == {} and source.asked == []


async def test_an_answer_that_lacks_one_is_an_error():
    with pytest.raises(ToolFailed, match="secret:a"):
        await Credentials(Source({})).fetch("call", {"X": "secret:a"})


def spellings(value):
    raw = value.encode()
    yield value
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield quote(value, safe="")
    yield quote_plus(value)
    yield repr(value)[1:-1]
    yield base64.b64encode(raw).decode()
    yield base64.urlsafe_b64encode(raw).decode()


@given(st.text(min_size=SHORTEST, max_size=40), st.text(max_size=20), st.text(max_size=20))
async def test_no_spelling_of_a_value_survives(value, before, after):
    credentials = Credentials(Source({"secret:k": value}))
    await credentials.fetch("call", {"K": "secret:k"})
    for spelt in spellings(value):
        scrubbed = credentials.scrub(f"{before}{spelt}{after}")
        assert "[secret:k]" in scrubbed or spelt in f"{before}{after}"


async def test_the_whole_is_hidden_before_a_part_of_it():
    credentials = Credentials(Source({"secret:long": "abcdefgh", "secret:part": "cdef"}))
    await credentials.fetch("call", {"L": "secret:long", "P": "secret:part"})
    assert credentials.scrub("abcdefgh and cdef") == "[secret:long] and [secret:part]"


async def test_a_rotated_value_is_hidden_like_the_one_before():
    source = Source({"secret:k": "first-value"})
    credentials = Credentials(source)
    await credentials.fetch("call", {"K": "secret:k"})
    source.values["secret:k"] = "second-value"
    assert (await credentials.fetch("call", {"K": "secret:k"}))["K"] == "second-value"
    assert credentials.scrub("first-value second-value") == "[secret:k] [secret:k]"
