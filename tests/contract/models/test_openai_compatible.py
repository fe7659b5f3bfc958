"""What the adapter sends to an endpoint, and how it sorts what goes wrong there."""

import socket

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from chimera.adapters.models.openai_compatible import OpenAICompatible, _seconds
from chimera.gateway.errors import ModelRejected, ModelUnavailable


async def test_it_names_the_endpoints_model_shows_the_key_and_passes_the_trace(endpoint, openai, ask):
    await openai.complete(ask(temperature=0.5))
    [(body, headers)] = endpoint.seen
    assert body["model"] == "big" and body["temperature"] == 0.5 and "stream" not in body
    assert headers["Authorization"] == "Bearer a-key" and headers["traceparent"] == "00-t"


async def test_a_stream_asks_for_its_use(endpoint, openai, ask):
    async for _ in openai.stream(ask()):
        pass
    assert endpoint.seen[0][0]["stream_options"] == {"include_usage": True}


async def test_tools_are_dropped_for_a_model_that_cant_use_them(endpoint, ask):
    model = OpenAICompatible(base_url=endpoint.url, model="small", api_key=None, connections=1, drop_tools=True)
    await model.complete(ask(tools=[{"type": "function"}], tool_choice="auto"))
    await model.aclose()
    [(body, headers)] = endpoint.seen
    assert "tools" not in body and "tool_choice" not in body and "Authorization" not in headers


@pytest.mark.parametrize(
    ("status", "error", "after"),
    [
        (429, ModelUnavailable, 7.5),
        (500, ModelUnavailable, None),
        (503, ModelUnavailable, 0.0),
        (400, ModelRejected, None),
        (401, ModelRejected, None),
        (404, ModelRejected, None),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_status_says_whether_to_try_again(endpoint, openai, ask, status, error, after, streamed):
    headers = {} if after is None else {"Retry-After": str(after)}
    endpoint.answer = lambda: web.Response(status=status, text="because", headers=headers)
    with pytest.raises(error, match=f"{status}: because") as caught:
        if streamed:
            await anext(aiter(openai.stream(ask())))
        else:
            await openai.complete(ask())
    assert caught.value.retry_after == after


async def test_nobody_there_is_a_failure_that_may_pass(ask):
    with socket.socket() as bound:  # bound, but not listening
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
        model = OpenAICompatible(base_url=url, model="m", api_key=None, connections=1)
        with pytest.raises(ModelUnavailable, match="can't be reached"):
            await model.complete(ask())
        await model.aclose()


async def test_an_answer_that_isnt_json_is_a_failure(endpoint, openai, ask):
    endpoint.answer = lambda: web.Response(text="<html>")
    with pytest.raises(ModelUnavailable, match="not JSON"):
        await openai.complete(ask())


@pytest.mark.parametrize(
    ("last", "match"),
    [
        (b'data: {"error": {"message": "overloaded"}}\n\n', "broke off.*overloaded"),
        (b"data: <html>\n\n", "not JSON"),
        (b"data: {", "can't be reached"),
    ],
)
async def test_a_stream_that_breaks_off_fails(endpoint, openai, ask, last, match):
    endpoint.chunks = [b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n', last]
    chunks = openai.stream(ask())
    assert (await anext(chunks))["choices"][0]["delta"] == {"content": "a"}
    with pytest.raises(ModelUnavailable, match=match):
        await anext(chunks)


@given(st.text() | st.floats().map(str) | st.integers().map(str))
def test_whatever_retry_after_says_it_is_a_sensible_wait_or_none(text):
    seconds = _seconds(text)
    assert seconds is None or 0 <= seconds < 86_400
