"""An agent that stands for a function elsewhere: the gateway is asked, with the conversation and the run's key."""

import pytest

from chimera_host.contract.behaviour import Behaviour, FunctionBehaviour, FunctionEndpoint
from chimera_host.contract.function import FunctionAsk, answer_of
from chimera_host.testing.builders import document, invoke_request, session
from chimera_host.testing.doubles import refused
from chimera_host.testing.platform import problem

REMOTE = document(
    "remote",
    behaviour=Behaviour(function=FunctionBehaviour(endpoint=FunctionEndpoint(url="https://fn.example/answer"))),
)


async def test_the_function_is_asked_with_the_conversation(platform, local_host) -> None:
    host = await local_host()
    asked: list[FunctionAsk] = []
    platform.function = lambda ask: asked.append(ask) or "an answer"
    request = invoke_request(
        REMOTE, platform.add(REMOTE), "and now?", session=session(("user", "a"), ("assistant", "b"))
    )
    answer = await host.invoke(request)
    assert answer.output == "an answer" and answer.model_calls == 0
    assert [one.content for one in asked[0].messages] == ["a", "b", "and now?"]
    assert [one.content for one in answer.session.messages] == ["a", "b", "and now?", "an answer"]
    assert platform.keys == [None] and not platform.chats


async def test_a_stream_gets_its_answer(platform, local_host) -> None:
    host = await local_host()
    events = [event async for event in host.stream(invoke_request(REMOTE, platform.add(REMOTE), "hello"))]
    assert events[0] == ("delta", {"text": "function: hello"}) and events[-1][1]["output"] == "function: hello"


async def test_what_the_platform_refuses_comes_through(platform, local_host) -> None:
    host = await local_host()
    platform.function = lambda _: problem("function-unavailable", 503, "gone", retry_after=7.0)
    refusal = await refused(host.invoke(invoke_request(REMOTE, platform.add(REMOTE))))
    assert (refusal.code, refusal.status, refusal.retry_after) == ("function-unavailable", 503, 7.0)


async def test_work_that_is_done_again_has_the_same_key(platform, local_host) -> None:
    host = await local_host()
    revision = platform.add(REMOTE)
    for _ in range(2):
        request = platform.runs.begin(invoke_request(REMOTE, revision, "pay"), "run-1")
        await host.invoke(request)
    await host.invoke(platform.runs.begin(invoke_request(REMOTE, revision, "pay"), "run-2"))
    first, again, other = platform.keys
    assert first == again and first is not None and other != first


@pytest.mark.parametrize(
    ("data", "media", "output"),
    [
        (b'{"output": "a"}', "application/json", "a"),
        (b'{"output": "a"}', "application/json; charset=utf-8", "a"),
        (b'"a"', "application/json", "a"),
        ("é".encode(), "text/plain; charset=utf-8", "é"),
        (b"", "text/plain", ""),
        (b'{"data": {"output": "a"}}', "application/cloudevents+json", "a"),
        (b'{"data": "a"}', "Application/CloudEvents+JSON", "a"),
    ],
)
def test_answers(data: bytes, media: str, output: str) -> None:
    assert answer_of(data, media) == output


@pytest.mark.parametrize(
    ("data", "media"),
    [
        *(
            (b"", "application/json"),
            (b"{", "application/json"),
            (b"\xff", "text/plain"),
            (b"\xff", "application/json"),
        ),
        *((b"[]", "application/json"), (b'{"output": 1}', "application/json"), (b"{}", "application/cloudevents+json")),
        *((b"[]", "application/cloudevents+json"), (b"<p>", "text/html"), (b'{"output": null}', "")),
    ],
)
def test_what_is_no_answer(data: bytes, media: str) -> None:
    with pytest.raises(ValueError, match=r"neither JSON nor a text|holds no text"):
        answer_of(data, media)
