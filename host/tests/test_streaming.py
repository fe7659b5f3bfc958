import asyncio

from hypothesis import given
from hypothesis import strategies as st

from chimera_host.contract.call import Delta
from chimera_host.streaming import MAX_WAITING, ChunkAssembler, EventQueue

texts = st.lists(st.text(max_size=10), max_size=10)
tools = st.lists(st.tuples(st.text("abc", min_size=1), st.lists(st.text(max_size=5), max_size=4)), max_size=3)


@given(texts, tools, st.sampled_from(["stop", "tool_calls", None]))
def test_chunks_give_the_whole_answer(pieces, calls, finish):
    whole = ChunkAssembler()
    said = [whole.add({"id": "x", "choices": [{"delta": {"content": piece}}]}) for piece in pieces]
    for index, (name, arguments) in enumerate(calls):
        first = {"index": index, "id": f"id-{index}", "function": {"name": name, "arguments": ""}}
        whole.add({"choices": [{"delta": {"tool_calls": [first]}}]})
        for piece in arguments:
            whole.add({"choices": [{"delta": {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}}]})
    whole.add({"choices": [{"delta": {}, "finish_reason": finish}]})
    whole.add({"choices": [], "usage": {"total_tokens": 3}})
    answer = whole.answer()
    message = answer["choices"][0]["message"]
    assert said == pieces and (message["content"] or "") == "".join(pieces)
    assert answer["usage"] == {"total_tokens": 3} and answer["choices"][0]["finish_reason"] == (finish or "stop")
    found = [(c["function"]["name"], c["function"]["arguments"], c["id"]) for c in message.get("tool_calls", [])]
    assert found == [(name, "".join(parts), f"id-{index}") for index, (name, parts) in enumerate(calls)]


async def test_events_wake_the_reader_in_order():
    events = EventQueue()
    waiting = asyncio.ensure_future(events.wait(30))
    await asyncio.sleep(0)
    events.put("delta", Delta(text="a"))
    events.put("delta", Delta(text="b"))
    assert await waiting
    assert events.take() == b'event: delta\ndata: {"text":"a"}\n\nevent: delta\ndata: {"text":"b"}\n\n'
    assert await events.wait(0.001) is False
    events.close()
    events.put("delta", Delta(text="late"))
    assert await events.wait(30) and events.take() == b""


def test_a_reader_that_takes_nothing_costs_bounded_memory():
    events = EventQueue()
    for _ in range(100):
        events.put("delta", Delta(text="x" * 100_000))
    assert events.dropped and len(events.take()) < MAX_WAITING + 200_000
