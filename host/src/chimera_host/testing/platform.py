"""A fake platform: the gateway's internal API from dictionaries, with a scripted model.

The script is a queue of answers, taken one per model call; when it is empty, or none is given, `default_answer` speaks:
it echoes the last user message. An answer may be a text, a whole chat-completions answer (a dictionary), a `Problem`
to refuse with, or a function of the recorded call that returns one of these or awaits something first.

A call has a run where the test says so with `platform.runs.begin(request, name)` (`chimera_host.testing.runs`). Shared
spaces are counters and lists without rules, in `spaces`.
"""

import asyncio
import inspect
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

import msgspec
from aiohttp import web
from msgspec import Struct

from chimera_host.contract.agent import AgentDocument
from chimera_host.contract.call import HEADER_CALL, HEADER_DEADLINE, HEADER_TRACEPARENT
from chimera_host.contract.function import ASK_DECODER, PATH_FUNCTION, FunctionAsk
from chimera_host.contract.problem import PROBLEM_MEDIA_TYPE, PROBLEM_TYPE_PREFIX, Problem, RemoteProblem
from chimera_host.contract.state import (
    CHECKPOINT_ASKS,
    CHECKPOINT_ENCODER,
    HEADER_IDEMPOTENCY,
    SharedAnswer,
    SharedBody,
    SharedEntry,
    StepBody,
)
from chimera_host.contract.token import PATH_TOKEN, FreshToken
from chimera_host.testing import builders
from chimera_host.testing.checkpoints import MemoryCheckpoints
from chimera_host.testing.runs import FakeRuns

TOKEN = "platform-token"


class RecordedChat(Struct, kw_only=True):
    """One model call as the platform saw it."""

    body: dict[str, Any]
    call: str
    deadline: float | None
    traceparent: str | None
    key: str | None = None
    cancelled: bool = False

    @property
    def last(self) -> str:
        """The text of the last message."""
        return str(self.body["messages"][-1].get("content") or "")


Answer = str | dict[str, Any] | Problem
Script = Answer | Callable[[RecordedChat], Answer | Awaitable[Answer]]


def text_answer(text: str) -> dict[str, Any]:
    """A chat-completions answer that says `text`."""
    return _answer({"role": "assistant", "content": text}, "stop")


def tool_answer(*calls: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A chat-completions answer that asks for tools, each a name and its arguments."""
    asked = [
        {"id": f"tool-{n}", "type": "function", "function": {"name": name, "arguments": json.dumps(dict(arguments))}}
        for n, (name, arguments) in enumerate(calls)
    ]
    return _answer({"role": "assistant", "content": None, "tool_calls": asked}, "tool_calls")


def _answer(message: dict[str, Any], finish: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }


def problem(code: str, status: int, detail: str, **fields: Any) -> Problem:
    """A problem document to answer with."""
    return Problem(type=PROBLEM_TYPE_PREFIX + code, title=code, status=status, detail=detail, code=code, **fields)


def default_answer(chat: RecordedChat) -> Answer:
    """Echo the last user message."""
    users = [m for m in chat.body["messages"] if m.get("role") == "user"]
    return f"echo: {users[-1]['content'] if users else ''}"


class FakePlatform:
    """Use as an asynchronous context manager; `url` is the base of the internal API.

    `documents` and `bundles` are keyed by digest, `agents` answer agent-as-tool calls by name, `credentials` by
    reference, `function` answers for agents that stand for one; `checkpoints` are those of all calls, `identities` what
    a pod's token is changed for. `chats`, `fetched` and `invoked` record what was asked (`chats` not what is answered
    from a run's store), `keys` the idempotency keys of agents, functions and spaces; `model_delay` and `fetch_delay`
    (seconds) slow down the model, and revisions and bundles.
    """

    def __init__(self, *script: Script, token: str = TOKEN) -> None:
        """Answer model calls from `script`, then by `default_answer`."""
        self.token = token
        self.token_life = 3_600.0
        self.renewals = self.introductions = 0
        self.identities: dict[str, FreshToken] = {}
        self.script: deque[Script] = deque(script)
        self.default: Script = default_answer
        self.model_delay = 0.0
        self.fetch_delay = 0.0
        self.documents: dict[str, bytes] = {}
        self.bundles: dict[str, bytes] = {}
        self.agents: dict[str, Callable[[str], str]] = {}
        self.credentials: dict[str, str] = {}
        self.function: Callable[[FunctionAsk], str | Problem] = lambda ask: f"function: {ask.messages[-1].content}"
        self.chats: list[RecordedChat] = []
        self.fetched: list[str] = []
        self.invoked: list[tuple[str, str, str]] = []
        self.keys: list[str | None] = []
        self.runs = FakeRuns()
        self.spaces: dict[str, dict[str, SharedEntry]] = {}
        self.checkpoints = MemoryCheckpoints()
        self._written: dict[str, SharedAnswer] = {}
        self.url = ""
        self._runner: web.AppRunner | None = None

    def add(self, agent: AgentDocument) -> str:
        """Serve this agent; its revision."""
        data = builders.encode_document(agent)
        revision = builders.digest(data)
        self.documents[revision] = data
        return revision

    def add_bundle(self, files: Mapping[str, str]) -> str:
        """Serve a source bundle of these files; its digest."""
        data = builders.bundle(files)
        self.bundles[builders.digest(data)] = data
        return builders.digest(data)

    def say(self, *script: Script) -> None:
        """Append answers to the script."""
        self.script.extend(script)

    async def __aenter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_get("/internal/v1/revisions/{digest}", self._revision)
        app.router.add_get("/internal/v1/bundles/{digest}", self._bundle)
        app.router.add_post("/internal/v1/chat/completions", self._chat)
        app.router.add_post("/internal/v1/agents/{name}/invoke", self._invoke)
        app.router.add_post("/internal/v1/credentials", self._credentials)
        app.router.add_post(PATH_FUNCTION, self._function)
        app.router.add_post("/internal/v1/state/steps", self._save_step)
        app.router.add_get("/internal/v1/state/steps", self._steps)
        app.router.add_post("/internal/v1/state/shared/{space}", self._shared)
        app.router.add_post("/internal/v1/state/checkpoints", self._checkpoint)
        app.router.add_post(PATH_TOKEN, self._renew)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def _renew(self, request: web.Request) -> web.Response:
        """A token of its own for each renewal; the one before goes on. A known identity is changed for what it is."""
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.introductions += 1
        if (known := self.identities.get(shown)) is not None:
            return web.json_response(msgspec.to_builtins(known))
        if (refusal := self._refuse(request)) is not None:
            return refusal
        self.renewals += 1
        fresh = FreshToken(token=f"{self.token}-{self.renewals}", expires_in=self.token_life)
        return web.json_response(msgspec.to_builtins(fresh))

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _refuse(self, request: web.Request) -> web.Response | None:
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if shown in (self.token, f"{self.token}-{self.renewals}"):
            return None
        return _problem(problem("unauthorized", 401, "wrong platform token"))

    async def _revision(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.fetch_delay)
        return self._serve(request, self.documents, "application/json")

    async def _bundle(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.fetch_delay)
        return self._serve(request, self.bundles, "application/gzip")

    def _serve(self, request: web.Request, things: Mapping[str, bytes], media: str) -> web.Response:
        if (refused := self._refuse(request)) is not None:
            return refused
        digest = request.match_info["digest"]
        self.fetched.append(digest)
        if digest not in things:
            return _problem(problem("not-found", 404, f"nothing has the digest {digest}"))
        return web.Response(body=things[digest], content_type=media)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if (refused := self._refuse(request)) is not None:
            return refused
        left = request.headers.get(HEADER_DEADLINE)
        chat = RecordedChat(
            body=msgspec.json.decode(await request.read(), type=dict[str, Any]),
            call=request.headers.get(HEADER_CALL, ""),
            deadline=float(left) if left else None,
            traceparent=request.headers.get(HEADER_TRACEPARENT),
            key=request.headers.get(HEADER_IDEMPOTENCY),
        )
        whole = await self.runs.answer(chat.call, chat.key, chat.body, lambda: self._asked(chat))
        if isinstance(whole, Problem):
            return _problem(whole)
        if chat.body.get("stream"):
            return await _stream(request, whole)
        return web.Response(body=msgspec.json.encode(whole), content_type="application/json")

    async def _asked(self, chat: RecordedChat) -> dict[str, Any] | Problem:
        self.chats.append(chat)
        try:
            if self.model_delay:
                await asyncio.sleep(self.model_delay)
            answer = await self._next(chat)
        except asyncio.CancelledError:
            chat.cancelled = True
            raise
        return text_answer(answer) if isinstance(answer, str) else answer

    async def _next(self, chat: RecordedChat) -> Answer:
        answer = self.script.popleft() if self.script else self.default
        if not callable(answer):
            return answer
        said = answer(chat)
        return await said if inspect.isawaitable(said) else said

    async def _invoke(self, request: web.Request) -> web.Response:
        if (refused := self._refuse(request)) is not None:
            return refused
        name = request.match_info["name"]
        message = msgspec.json.decode(await request.read())["message"]
        self.invoked.append((request.headers.get(HEADER_CALL, ""), name, message))
        self.keys.append(request.headers.get(HEADER_IDEMPOTENCY))
        if name not in self.agents:
            return _problem(problem("agent-not-found", 404, f"no agent {name}"))
        output = self.agents[name](message)
        return web.Response(body=msgspec.json.encode({"output": output}), content_type="application/json")

    async def _function(self, request: web.Request) -> web.Response:
        if (refused := self._refuse(request)) is not None:
            return refused
        self.keys.append(request.headers.get(HEADER_IDEMPOTENCY))
        said = self.function(ASK_DECODER.decode(await request.read()))
        return _problem(said) if isinstance(said, Problem) else web.json_response({"output": said})

    async def _checkpoint(self, request: web.Request) -> web.Response:
        if (refused := self._refuse(request)) is not None:
            return refused
        try:
            answer = self.checkpoints.ask(CHECKPOINT_ASKS.decode(await request.read()))
        except RemoteProblem as refusal:
            return _problem(refusal.problem())
        return web.Response(body=CHECKPOINT_ENCODER.encode(answer), content_type="application/msgpack")

    async def _credentials(self, request: web.Request) -> web.Response:
        if (refused := self._refuse(request)) is not None:
            return refused
        names = msgspec.json.decode(await request.read())["names"]
        missing = [name for name in names if name not in self.credentials]
        if missing:
            return _problem(problem("credential-not-found", 404, f"no credential {missing[0]}"))
        found = {name: self.credentials[name] for name in names}
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")

    async def _save_step(self, request: web.Request) -> web.Response:
        if (refused := self._refuse(request)) is not None:
            return refused
        body = msgspec.json.decode(await request.read(), type=StepBody)
        return _told(self.runs.save(request.headers.get(HEADER_CALL, ""), body))

    async def _steps(self, request: web.Request) -> web.Response:
        if (refused := self._refuse(request)) is not None:
            return refused
        return _told(self.runs.page(request.headers.get(HEADER_CALL, ""), int(request.query["after"])))

    async def _shared(self, request: web.Request) -> web.Response:
        if (refused := self._refuse(request)) is not None:
            return refused
        body = msgspec.json.decode(await request.read(), type=SharedBody)
        key = request.headers.get(HEADER_IDEMPOTENCY)
        self.keys.append(key)
        if key is not None and key in self._written:
            return _told(self._written[key])
        space = self.spaces.setdefault(request.match_info["space"], {})
        for write in body.write:
            before = space.get(write.key, SharedEntry(key=write.key, version=0))
            value = write.value if write.op == "set" else (before.value or type(write.value)()) + write.value
            space[write.key] = SharedEntry(key=write.key, version=before.version + 1, value=value)
        asked = dict.fromkeys((*body.read, *(write.key for write in body.write)))
        entries = tuple(space.get(one, SharedEntry(key=one, version=0)) for one in asked)
        answer = SharedAnswer(version=sum(one.version for one in space.values()), entries=entries)
        if key is not None:
            self._written[key] = answer
        return _told(answer)


def _told(said: msgspec.Struct) -> web.Response:
    if isinstance(said, Problem):
        return _problem(said)
    return web.Response(body=msgspec.json.encode(said), content_type="application/json")


def _problem(document: Problem) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), status=document.status, content_type=PROBLEM_MEDIA_TYPE)


async def _stream(request: web.Request, whole: dict[str, Any]) -> web.StreamResponse:
    """The answer as OpenAI streams it: the text in words, tool calls in one piece, then usage and the end mark."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    message = whole["choices"][0]["message"]
    pieces: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    words = (message.get("content") or "").split(" ")
    pieces.extend({"content": word if n == 0 else " " + word} for n, word in enumerate(words) if word or n)
    if message.get("tool_calls"):
        pieces.append({"tool_calls": [{"index": n, **call} for n, call in enumerate(message["tool_calls"])]})
    frame = {"id": whole["id"], "object": "chat.completion.chunk", "created": 0, "model": "fake"}
    for piece in pieces:
        chunk = {**frame, "choices": [{"index": 0, "delta": piece, "finish_reason": None}]}
        await response.write(b"data: " + msgspec.json.encode(chunk) + b"\n\n")
    end = {"index": 0, "delta": {}, "finish_reason": whole["choices"][0]["finish_reason"]}
    for tail in ({**frame, "choices": [end]}, {**frame, "choices": [], "usage": whole["usage"]}):
        await response.write(b"data: " + msgspec.json.encode(tail) + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response
