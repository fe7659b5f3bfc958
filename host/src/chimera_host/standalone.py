"""An agent without the platform: one document, one model endpoint, served as a Knative Function.

`chimera export function` writes projects that use this. `AgentFunction` is what func's middleware (`func-python`) makes
with `new()`: it starts, answers requests (ASGI), and tells whether it lives and is ready. It runs the same host as the
platform does (admission, deadlines, cancellation, the framework's adapter), with a model endpoint in the gateway's
place. What only the platform gives isn't there: sessions, runs, shared spaces, other agents, credentials.

It takes the contract of `chimera_host.contract.function`: JSON, a text, or a CloudEvent, binary or structured.
"""

import asyncio
import hashlib
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import aiohttp
import msgspec

from chimera_host.config import HostConfig
from chimera_host.contract.agent import AgentDocument
from chimera_host.contract.call import (
    HEADER_CALL,
    HEADER_DEADLINE,
    HEADER_TRACEPARENT,
    InvokeRequest,
    Message,
    SessionState,
)
from chimera_host.contract.function import CALL_DECODER, EVENT_MEDIA_TYPE, FunctionCall
from chimera_host.contract.problem import PROBLEM_MEDIA_TYPE, ProblemError
from chimera_host.contract.token import FreshToken
from chimera_host.errors import AgentFailed, AgentLoadError, CallCancelled, CallTooLarge, InvalidCall, ModelFailed
from chimera_host.frameworks import adapter as find_adapter
from chimera_host.host import Host
from chimera_host.platform_client import PlatformClient
from chimera_host.trace import parse

log = logging.getLogger(__name__)

DOCUMENT, SOURCE = "agent.json", "source.tar.gz"
MODEL_URL, MODEL_KEY, MODEL_NAME = "CHIMERA_MODEL_URL", "CHIMERA_MODEL_KEY", "CHIMERA_MODEL"
ANSWER_TYPE = "chimera.agent.answer"
SHOWN = 300

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class ModelEndpoint(PlatformClient):
    """An OpenAI-compatible endpoint in the gateway's place, and the one agent that there is."""

    def __init__(self, document: AgentDocument, source: bytes | None, *, url: str, key: str, model: str | None) -> None:
        """Ask the endpoint at `url` with `key`; `model` stands above the document's name for it."""
        super().__init__(url, key)
        self._document = document
        self._source = source
        self._model = model
        if not key:
            del self._session.headers["Authorization"]

    async def revision(self, digest: str, at: str | None = None) -> AgentDocument:
        """The agent."""
        return self._document

    async def bundle(self, digest: str, at: str | None = None) -> bytes:
        """Its source."""
        if self._source is None:
            raise AgentLoadError(f"the project holds no {SOURCE}", next_step="export the agent again")
        return self._source

    async def renew(self, identity: str | None = None) -> FreshToken:
        """The key stays as it is."""
        return FreshToken(token="", expires_in=3_600.0)

    async def chat(self, call_id: str, body: dict[str, Any], deadline: float, key: str | None = None) -> dict[str, Any]:
        """One model call."""
        asked = {**body, "model": self._model or body.get("model")}
        asked.pop("stream_options", None)
        try:
            async with self._session.post(
                f"{self._base}/chat/completions",
                data=msgspec.json.encode(asked),
                headers={"Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(total=deadline),
            ) as answer:
                data = await answer.read()
                if answer.status >= 400:
                    passing = answer.status in (408, 429) or answer.status >= 500
                    raise ModelFailed(
                        f"the model's endpoint answered {answer.status}: {data[:SHOWN].decode(errors='replace')}",
                        next_step=f"see {MODEL_URL}, {MODEL_KEY} and {MODEL_NAME}" if not passing else "try again",
                        retry_after=1.0 if passing else None,
                    )
        except (aiohttp.ClientError, OSError) as error:
            raise ModelFailed(
                f"the model's endpoint can't be reached: {type(error).__name__}: {error}",
                next_step=f"see {MODEL_URL}",
                retry_after=1.0,
            ) from error
        try:
            found = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ModelFailed(f"the model's endpoint answered no JSON: {error}") from error
        if not isinstance(found, dict):
            raise ModelFailed("the model's endpoint answered no chat completion")
        return found

    async def chat_stream(
        self, call_id: str, body: dict[str, Any], deadline: float, key: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """A function answers whole, so nothing is streamed."""
        self._missing()
        yield {}

    async def _get(self, path: str, call_id: str | None = None, *, at: str | None = None) -> bytes:
        self._missing()

    async def _post(self, *_: Any, **__: Any) -> bytes:
        self._missing()

    def _missing(self) -> NoReturn:
        raise AgentFailed(
            f"agent {self._document.name} asks for what only the platform has: sessions, runs, shared spaces, other "
            "agents and credentials aren't there in an exported function",
            next_step="run it on Chimera",
            agent=self._document.name,
        )


class AgentFunction:
    """One agent as a function, from a folder with its document and, where it has code, its source."""

    def __init__(self, folder: Path) -> None:
        """Read the agent and import its framework, before the first request."""
        data = (folder / DOCUMENT).read_bytes()
        self._document = msgspec.json.decode(data, type=AgentDocument)
        self._revision = "sha256:" + hashlib.sha256(data).hexdigest()
        source = folder / SOURCE
        self._source = source.read_bytes() if source.exists() else None
        self._adapter = find_adapter(self._document.framework)
        self._adapter.preload()
        self._host: Host | None = None
        self._closing: asyncio.Task[None] | None = None

    # -- what func's middleware calls -------------------------------------------------------------------------------

    def start(self, cfg: Mapping[str, str]) -> None:
        """Make the host, in the running event loop."""
        url = cfg.get(MODEL_URL)
        if not url:
            raise ProblemError(f"{MODEL_URL} is not set", next_step="name an OpenAI-compatible endpoint, such as …/v1")
        work_dir = cfg.get("CHIMERA_WORK_DIR") or str(Path(tempfile.gettempdir()) / "chimera")
        config = HostConfig(
            host=cfg.get("HOSTNAME", "function"),
            cell="function",
            framework=self._document.framework,
            platform_url=url,
            work_dir=work_dir,
            memory_bytes=int(cfg.get("CHIMERA_MEMORY_BYTES", 2 * 1024**3)),
            request_timeout=float(cfg.get("CHIMERA_REQUEST_TIMEOUT", 295)),
        )
        endpoint = ModelEndpoint(
            self._document, self._source, url=url, key=cfg.get(MODEL_KEY, ""), model=cfg.get(MODEL_NAME)
        )
        self._host = Host(config, self._adapter, platform=endpoint)

    def stop(self) -> None:
        """Let go of everything."""
        if self._host is not None:
            self._host.draining = True
            self._closing = asyncio.get_running_loop().create_task(self._host.aclose(), name="close")

    def alive(self) -> tuple[bool, str]:
        """Whether it lives."""
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Whether it takes requests."""
        ready = self._host is not None and self._host.ready
        return ready, "ready" if ready else "not ready"

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        try:
            output = await self._answer(scope, headers, receive)
        except ProblemError as error:
            more = {} if error.retry_after is None else {"retry-after": str(max(1, round(error.retry_after)))}
            body = msgspec.json.encode(error.problem())
            await _respond(send, error.status, {"content-type": PROBLEM_MEDIA_TYPE, **more}, body)
            return
        except Exception:
            log.exception("request failed")
            body = msgspec.json.encode(ProblemError("the function failed", next_step="see its log").problem())
            await _respond(send, 500, {"content-type": PROBLEM_MEDIA_TYPE}, body)
            return
        event = {}
        if _is_event(headers):
            source = f"/functions/{self._document.name}"
            event = {"ce-specversion": "1.0", "ce-id": uuid4().hex, "ce-source": source, "ce-type": ANSWER_TYPE}
        await _respond(
            send, 200, {"content-type": "application/json", **event}, msgspec.json.encode({"output": output})
        )

    # -- one request ------------------------------------------------------------------------------------------------

    async def _answer(self, scope: Scope, headers: Mapping[str, str], receive: Receive) -> str:
        if self._host is None:
            self.start(os.environ)
        host = self._host
        assert host is not None
        if scope["method"] != "POST":
            raise InvalidCall("a function takes POST", next_step='send {"input": "…"} as JSON')
        asked = _asked(headers, await _body(receive, host.config.max_body_bytes))
        *before, last = asked.messages or (Message(role="user", content=asked.input),)
        call = host.begin(
            InvokeRequest(
                call=headers.get(HEADER_CALL.lower()) or asked.call or uuid4().hex,
                tenant=self._document.tenant,
                agent=self._document.name,
                revision=self._revision,
                messages=(last,),
                session=SessionState(messages=tuple(before)) if before else None,
                deadline=_deadline(headers.get(HEADER_DEADLINE.lower()), host.config.request_timeout),
            ),
            parse(headers.get(HEADER_TRACEPARENT)),
            None,
        )
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((call.answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if not call.answer.done():
                call.cancel(CallCancelled("the caller went away", agent=self._document.name))
            return (await call.answer).output
        except asyncio.CancelledError:
            call.cancel(CallCancelled("the caller went away", agent=self._document.name))
            raise
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone


def _asked(headers: Mapping[str, str], data: bytes) -> FunctionCall:
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if media == "text/plain" and "ce-specversion" not in headers:
            return FunctionCall(input=data.decode())
        if media == EVENT_MEDIA_TYPE:
            event = msgspec.json.decode(data)
            if not isinstance(event, dict) or "data" not in event:
                raise ValueError("the event has no data")
            return msgspec.convert(event["data"], FunctionCall)
        return CALL_DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise InvalidCall(f"the body is not a call: {error}", next_step='send {"input": "…"} as JSON') from error


def _is_event(headers: Mapping[str, str]) -> bool:
    return "ce-specversion" in headers or headers.get("content-type", "").lower().startswith(EVENT_MEDIA_TYPE)


def _deadline(given: str | None, longest: float) -> float:
    try:
        wanted = float(given) if given else longest
    except ValueError:
        wanted = -1.0
    if not 0 < wanted < float("inf"):
        raise InvalidCall(f"{HEADER_DEADLINE} {given!r} is no number of seconds")
    return min(wanted, longest)


async def _body(receive: Receive, most: int) -> bytes:
    data = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise CallCancelled("the caller went away")
        data += message.get("body", b"")
        if len(data) > most:
            raise CallTooLarge(f"the body is larger than {most} bytes", next_step="send less")
        if not message.get("more_body"):
            return bytes(data)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _respond(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    pairs = [(key.encode(), value.encode("latin-1", "replace")) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
