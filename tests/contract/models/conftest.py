"""The three model providers behind one fixture, and an endpoint that answers as it is told."""

import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from chimera.adapters.models import local_server
from chimera.adapters.models.openai_compatible import OpenAICompatible
from chimera.gateway.ports import ModelRequest
from chimera.testing.scripted_model import Rule, ScriptedModel, When

KEY = "a-key"
RULES = (Rule(when=When(last="^slow"), delay=60.0),)


def model_request(text: str = "Say hello.", *, deadline: float = 300.0, **body: Any) -> ModelRequest:
    """A model call with one message."""
    whole = {"messages": [{"role": "user", "content": text}], "max_tokens": 24, **body}
    return ModelRequest(body=whole, model="m", tenant="default", agent="greeter", deadline=deadline, traceparent="00-t")


class Endpoint:
    """An OpenAI-compatible endpoint in front of a scripted model; `answer` replaces what it says."""

    def __init__(self) -> None:
        self.model = ScriptedModel(RULES)
        self.seen: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.answer: Callable[[], web.Response] | None = None
        self.chunks: list[bytes] | None = None
        self.url = ""

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = msgspec.json.decode(await request.read())
        self.seen.append((body, dict(request.headers)))
        if self.answer is not None:
            return self.answer()
        asked = ModelRequest(body=body, model="m", tenant="t", agent="a", deadline=60.0)
        if not body.get("stream"):
            return web.Response(body=msgspec.json.encode(await self.model.complete(asked)))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async for line in self._lines(asked):
            await response.write(line)
        if self.chunks is not None and not self.chunks[-1].endswith(b"\n"):
            assert request.transport is not None
            request.transport.abort()
        return response

    async def _lines(self, asked: ModelRequest) -> AsyncIterator[bytes]:
        if self.chunks is not None:
            for chunk in self.chunks:
                yield chunk
            return
        async for chunk in self.model.stream(asked):
            line = b": a comment\n\ndata: " + msgspec.json.encode(chunk) + b"\n\n"
            yield line[:20]  # a line may come in pieces
            yield line[20:]
        yield b"data: [DONE]\n\n"


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", made.chat)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield made
    await runner.cleanup()


@pytest.fixture
async def openai(endpoint: Endpoint) -> AsyncIterator[OpenAICompatible]:
    made = OpenAICompatible(base_url=endpoint.url, model="big", api_key=KEY, connections=4)
    yield made
    await made.aclose()


@pytest.fixture(scope="session")
def local_model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The bundled model as a process; its base URL."""
    python = os.environ.get("CHIMERA_RUNTIME_LOCAL_MODEL_PYTHON")
    if python is None or shutil.which(python) is None:
        pytest.skip("no environment of the local model: set CHIMERA_RUNTIME_LOCAL_MODEL_PYTHON to its python")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("local-model")
    key = folder / "key"
    key.write_text(KEY)
    read, write = os.pipe()
    arguments = [python, local_server.__file__, f"--port={port}", f"--key-file={key}", f"--lifeline-fd={read}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(arguments, pass_fds=[read], stdout=subprocess.PIPE, stderr=log)
    os.close(read)
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if b"local model ready" in line:
                break
        else:
            raise AssertionError((folder / "log").read_text()[-3000:])
        yield f"http://127.0.0.1:{port}/v1"
        os.close(write)
        assert process.wait(10) == 75, "it ends when its parent does"


@pytest.fixture(params=["scripted", "openai", "local"])
async def provider(request: pytest.FixtureRequest, openai: OpenAICompatible) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        if request.param == "scripted":
            made: Any = ScriptedModel(RULES)
        elif request.param == "openai":
            made = openai
        else:
            url = request.getfixturevalue("local_model")
            made = OpenAICompatible(base_url=url, model="smollm2", api_key=KEY, connections=4, drop_tools=True)
        stack.push_async_callback(made.aclose)  # closing twice does no harm
        yield made


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def ask() -> Callable[..., ModelRequest]:
    return model_request
