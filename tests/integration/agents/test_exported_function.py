"""An exported agent, installed from its project and served by func's own middleware, answers as on the platform."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uv
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.formats.json import JSONFormat

from chimera.agents.compile import compile_definition
from chimera.agents.validate import check_text
from chimera_host.contract.problem import PROBLEM_TYPE_PREFIX, Problem
from chimera_host.testing.builders import invoke_request
from chimera_host.testing.doubles import until
from chimera_host.testing.platform import FakePlatform
from chimera_host.testing.process import HostProcess

CHIMERA = str(Path(sys.executable).with_name("chimera"))
MIDDLEWARE = "func-python==0.8.1"
# What func's scaffolding for Python does with a project that has `new`.
SERVICE = "from func_python.http import serve\nfrom function import new\nserve(new)\n"
DEFINITION = """
schema_version: ADaC v2.0
metadata: {{name: exported, version: 1.0.0, description: Answers what it is asked.}}
specification: {{framework: {framework}{source}}}
capabilities: {{primary_functions: [answer]}}
"""
CODE = """
from chimera_host.contract.state import SharedBody

def make(context):
    async def answer(prompt, call):
        if prompt == "shared":
            await call.shared("space", SharedBody())
        if prompt == "raise":
            raise RuntimeError("no such luck")
        said = await call.chat({"messages": [{"role": "user", "content": prompt}]})
        return said["choices"][0]["message"]["content"].upper()
    return answer
"""


def run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Export a definition, and install its project with func's middleware; its Python and its document."""

    def make(framework: str, code: str | None = None) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp(framework)
        source = ', source: code, entrypoint: "told:make"' if code else ""
        (folder / "agent.yaml").write_text(DEFINITION.format(framework=framework, source=source))
        if code:
            (folder / "code").mkdir()
            (folder / "code" / "told.py").write_text(code)
        run(CHIMERA, "export", "function", "agent.yaml", "--to", "project", cwd=folder)
        tool = uv.find_uv_bin()
        run(tool, "venv", "--quiet", "--python", sys.executable, "env", cwd=folder)
        python = folder / "env" / "bin" / "python"
        run(tool, "pip", "install", "--quiet", "--python", python, MIDDLEWARE, "./project", cwd=folder)
        (folder / "main.py").write_text(SERVICE)
        return python, folder

    return make


class Served:
    """A running function."""

    def __init__(self, url: str, session: aiohttp.ClientSession, log: Path) -> None:
        self.url = url
        self.session = session
        self.log = log

    async def post(self, data: bytes | str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        async with self.session.post(self.url, data=data, headers=named) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read()

    async def ask(self, **body: Any) -> tuple[int, Any]:
        status, _, data = await self.post(json.dumps(body), Content_Type="application/json")
        return status, json.loads(data)


@asynccontextmanager
async def served(python: Path, folder: Path, platform: FakePlatform) -> AsyncIterator[Served]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    environ = {
        "PATH": os.defpath,
        "HOME": str(folder),
        "LISTEN_ADDRESS": f"127.0.0.1:{port}",
        "CHIMERA_MODEL_URL": f"{platform.url}/internal/v1",  # the fake's model, which is an endpoint like any
        "CHIMERA_MODEL_KEY": platform.token,
        "CHIMERA_MODEL": "my-model",
        "CHIMERA_WORK_DIR": str(folder / "work"),
    }
    log = folder / "log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            python, "main.py", cwd=folder, env=environ, stdout=file, stderr=file
        )
    async with aiohttp.ClientSession() as session:

        async def ready() -> bool:
            assert process.returncode is None, log.read_text()
            try:
                async with session.get(f"http://127.0.0.1:{port}/health/readiness") as answer:
                    return answer.status == 200
            except aiohttp.ClientError:
                return False

        await until(ready)
        yield Served(f"http://127.0.0.1:{port}/", session, log)
    if process.returncode is None:
        process.terminate()
    async with asyncio.timeout(30):
        await process.wait()


@pytest.mark.parametrize(
    "framework",
    [
        "function",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("LangGraph", "AutoGen", "CrewAI")),
    ],
)
async def test_it_answers_and_asks_the_model_as_on_the_platform(install: Any, framework: str) -> None:
    runtime = os.environ.get(f"CHIMERA_RUNTIME_{framework.upper()}_PYTHON")
    if runtime is None:
        pytest.skip(f"the runtime is not installed: chimera runtime install {framework.lower()}")
    python, folder = install(framework)
    checked = check_text((folder / "agent.yaml").read_text())
    document = compile_definition(checked, tenant="default").value.agent
    async with FakePlatform() as platform:
        async with HostProcess(platform, document.framework, python=runtime) as host:
            there = await host.invoke(invoke_request(document, platform.add(document), "What is up?"))
        asked = [chat.body for chat in platform.chats]
        platform.chats.clear()
        async with served(python, folder, platform) as function:
            status, body = await function.ask(input="What is up?")
        assert (status, body) == (200, {"output": there.output})
        told = [{**chat.body, "model": one["model"]} for chat, one in zip(platform.chats, asked, strict=True)]
        assert told == asked and {chat.body["model"] for chat in platform.chats} == {"my-model"}


async def test_code_of_its_own_every_form_and_what_is_wrong(install: Any) -> None:
    python, folder = install("function", CODE)
    async with FakePlatform() as platform, served(python, folder, platform) as function:
        assert await function.ask(input="hello") == (200, {"output": "ECHO: HELLO"})
        conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        asked = {"input": "", "messages": [*conversation, {"role": "user", "content": "last"}]}
        assert (await function.ask(**asked))[1] == {"output": "ECHO: LAST"}
        status, _, data = await function.post("plain", Content_Type="text/plain")
        assert (status, data) == (200, b'{"output":"ECHO: PLAIN"}')
        await events(function)
        await wrong(function, platform)


async def events(function: Served) -> None:
    """The forms of CloudEvents, read by their own library."""
    attributes = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "chimera.agent.call"}
    structured = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": {"input": "event"}}
    for data, headers in (
        ('{"input": "event"}', {**attributes, "content-type": "application/json"}),
        (json.dumps(structured), {"content-type": "application/cloudevents+json"}),
    ):
        status, answered, body = await function.post(data, **headers)
        event = from_http_event(HTTPMessage(headers=answered, body=body), JSONFormat())
        assert status == 200 and event.get_type() == "chimera.agent.answer"
        assert event.get_data() == {"output": "ECHO: EVENT"} and event.get_source() == "/functions/exported"


async def wrong(function: Served, platform: FakePlatform) -> None:
    """Each is a problem with a code; the process goes on."""
    for data, media in (
        (b"", "application/json"),
        (b"[]", "application/json"),
        (b"\xff", "text/plain"),
        (b"{}", "text/html"),
    ):
        status, headers, body = await function.post(data, Content_Type=media)
        assert status == 400 and headers["content-type"].startswith("application/problem+json")
        assert json.loads(body)["code"] == "invalid-call"
    async with function.session.get(function.url) as answer:
        assert answer.status == 400
    status, body = await function.ask(input="raise")
    assert (status, body["code"]) == (502, "agent-failed") and "no such luck" in body["detail"]
    status, body = await function.ask(input="shared")
    assert status == 502 and "only the platform has" in body["detail"]
    platform.say(Problem(type=PROBLEM_TYPE_PREFIX + "x", title="x", status=429, detail="slow down", code="x"))
    status, headers, data = await function.post('{"input": "hello"}', Content_Type="application/json")
    assert (status, json.loads(data)["code"], headers["retry-after"]) == (502, "model-failed", "1")
    platform.model_delay = 30.0
    late = {"Content_Type": "application/json", "Chimera_Deadline": "0.2"}
    status, _, data = await function.post('{"input": "hello"}', **late)
    assert (status, json.loads(data)["code"]) == (504, "deadline-exceeded")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await function.ask(input="gone")
    await until(lambda: platform.chats[-1].cancelled)
    platform.model_delay = 0.0
    assert (await function.ask(input="still there"))[0] == 200
