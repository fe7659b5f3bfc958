"""What every model provider does, on the scripted one, on an OpenAI-compatible endpoint and on the bundled model."""

from contextlib import aclosing

import pytest

from chimera.gateway.errors import ModelUnavailable

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def assert_counted(usage):
    assert usage["prompt_tokens"] > 0 and usage["completion_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_whole_answer_has_a_message_and_its_use(provider, ask):
    answer = await provider.complete(ask())
    choice = answer["choices"][0]
    assert choice["message"]["role"] == "assistant" and choice["message"]["content"].strip()
    assert choice["finish_reason"] in ("stop", "length")
    assert_counted(answer["usage"])


async def test_a_stream_gives_pieces_then_why_it_ended_then_its_use(provider, ask):
    chunks = [chunk async for chunk in provider.stream(ask("Say five words."))]
    deltas = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    pieces = [delta["delta"]["content"] for delta in deltas if delta["delta"].get("content")]
    assert len(pieces) > 1 and "".join(pieces).strip()
    assert deltas[-1]["finish_reason"] in ("stop", "length")
    assert_counted(chunks[-1]["usage"])


async def test_tools_may_be_offered(provider, ask):
    answer = await provider.complete(ask(tools=[TOOL], tool_choice="auto"))
    assert answer["choices"][0]["message"]["content"]


async def test_an_answer_later_than_the_deadline_is_a_failure_that_may_pass(provider, ask):
    with pytest.raises(ModelUnavailable, match="in time"):
        await provider.complete(ask("slow " * 200, deadline=0.05, max_tokens=512))
    with pytest.raises(ModelUnavailable, match="in time"):
        async for _ in provider.stream(ask("slow " * 200, deadline=0.05, max_tokens=512)):
            pass


async def test_a_stream_left_early_leaves_the_provider_usable(provider, ask):
    for _ in range(6):
        async with aclosing(provider.stream(ask("Say many words."))) as chunks:
            async for _chunk in chunks:
                break
    assert (await provider.complete(ask()))["choices"]
