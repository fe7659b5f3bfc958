"""The scripted model's rules."""

import pytest

from chimera.gateway.errors import ModelRejected, ModelUnavailable
from chimera.gateway.ports import ModelRequest
from chimera.testing.scripted_model import Rule, ScriptedModel, When


def ask(text="hi", *, agent="a", role="user", deadline=5.0, **body):
    messages = [{"role": role, "content": text}]
    return ModelRequest(
        body={"messages": messages, **body}, model="m", tenant="default", agent=agent, deadline=deadline
    )


async def said(model, *args, **kwargs):
    return (await model.complete(ask(*args, **kwargs)))["choices"][0]["message"]["content"]


async def test_without_a_script_it_repeats_the_last_message():
    model = ScriptedModel()
    assert await said(model, "one two") == "You said: one two"
    assert await said(model, "one two") == "You said: one two"


async def test_the_first_rule_that_fits_answers():
    rules = [
        Rule(when=When(last="refund", agent="^billing"), reply="billing"),
        Rule(when=When(last="refund"), reply="anybody"),
        Rule(when=When(tools=True), reply="tools"),
        Rule(when=When(tool_result=True), reply="result"),
    ]
    model = ScriptedModel(rules)
    assert await said(model, "a refund", agent="billing-1") == "billing"
    assert await said(model, "a refund", agent="other") == "anybody"
    assert await said(model, tools=[{}]) == "tools"
    assert await said(model, "7", role="tool") == "result"
    assert await said(model) == "You said: hi"


async def test_a_rule_may_serve_so_many_times():
    model = ScriptedModel([Rule(reply="first", times=2), Rule(reply="then")])
    assert [await said(model) for _ in range(4)] == ["first", "first", "then", "then"]


@pytest.mark.parametrize(("status", "error"), [(503, ModelUnavailable), (429, ModelUnavailable), (400, ModelRejected)])
async def test_it_fails_as_an_endpoint_would(status, error):
    model = ScriptedModel([Rule(status=status)])
    with pytest.raises(error, match=str(status)):
        await model.complete(ask())


async def test_a_script_is_read_from_a_file_and_calls_tools_whole_and_streamed(tmp_path):
    file = tmp_path / "script.yaml"
    file.write_text("- when: {tools: true, tool_result: false}\n  tool_calls: [{name: look, arguments: {id: 7}}]\n")
    model = ScriptedModel.from_file(file)
    choice = (await model.complete(ask(tools=[{}])))["choices"][0]
    [call] = choice["message"]["tool_calls"]
    assert (call["function"], choice["finish_reason"]) == ({"name": "look", "arguments": '{"id":7}'}, "tool_calls")
    chunks = [chunk async for chunk in model.stream(ask(tools=[{}]))]
    [streamed] = chunks[0]["choices"][0]["delta"]["tool_calls"]
    assert streamed["function"] == call["function"] and streamed["index"] == 0
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


async def test_it_keeps_the_newest_requests():
    model = ScriptedModel()
    for n in range(150):
        await said(model, str(n))
    assert len(model.seen) == 100 and model.seen[-1].body["messages"][0]["content"] == "149"
