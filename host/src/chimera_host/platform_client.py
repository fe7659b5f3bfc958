"""The gateway's internal API as a host uses it: revisions, bundles, models, other agents, credentials, state.

One pool of kept-alive connections, to `http://…` or `unix:/path`. The platform knows which agent a call is for and
which model it may use: a host only names the call. Deadline and trace go with each request, and the idempotency key of
what belongs to a run (`chimera_host.steps`). Errors come back as the problem that the platform answered
(`RemoteProblem`), or as `PlatformUnavailable` where it did not answer.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from chimera_host.contract.agent import AgentDocument
from chimera_host.contract.call import HEADER_CALL, HEADER_DEADLINE, HEADER_TRACEPARENT
from chimera_host.contract.function import PATH_FUNCTION, FunctionAsk
from chimera_host.contract.problem import Problem, RemoteProblem
from chimera_host.contract.state import (
    CHECKPOINT_ANSWERS,
    CHECKPOINT_ENCODER,
    HEADER_IDEMPOTENCY,
    CheckpointAnswer,
    CheckpointAsk,
    SharedAnswer,
    SharedBody,
    StepBody,
    StepPage,
    StepSaved,
)
from chimera_host.contract.token import PATH_TOKEN, FreshToken
from chimera_host.errors import AgentFailed, HostError, ModelFailed, PlatformUnavailable, ToolFailed
from chimera_host.trace import current_trace

MAX_BUNDLE = 64 * 1024**2
MAX_LINE = 4 * 1024**2
KEEPALIVE = 30.0
DOCUMENT_TIMEOUT = 30.0
STATE_TIMEOUT = 30.0
UNIX = "unix:"
JSON = "application/json"
MSGPACK = "application/msgpack"
CHAT = "/internal/v1/chat/completions"

T = TypeVar("T")
_encode = msgspec.json.Encoder(enc_hook=str).encode
_documents = msgspec.json.Decoder(AgentDocument)
_problems = msgspec.json.Decoder(Problem)
_chats = msgspec.json.Decoder(dict[str, Any])
_tokens = msgspec.json.Decoder(FreshToken)
_outputs = msgspec.json.Decoder(dict[str, str])
_saved = msgspec.json.Decoder(StepSaved)
_pages = msgspec.json.Decoder(StepPage)
_shared = msgspec.json.Decoder(SharedAnswer)


class PlatformClient:
    """A client of the internal API. Made inside the event loop that uses it; `aclose` when done."""

    def __init__(self, url: str, token: str) -> None:
        """Reach the platform at `url` with `token`."""
        connector: aiohttp.BaseConnector
        if url.startswith(UNIX):
            connector = aiohttp.UnixConnector(url.removeprefix(UNIX), limit=0, keepalive_timeout=KEEPALIVE)
            self._base = "http://platform"
        else:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE, ttl_dns_cache=60)
            self._base = url.rstrip("/")
        self._where = url
        self._at: dict[str, str] = {}
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"Authorization": f"Bearer {token}"},
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept"),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
            read_bufsize=MAX_LINE,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    def at(self, call_id: str, url: str | None) -> None:
        """Ask on behalf of `call_id` at `url`, where the gateway that made it is one of several; None: it ended."""
        if url is not None:
            self._at[call_id] = url.rstrip("/")
        else:
            self._at.pop(call_id, None)

    async def revision(self, digest: str, at: str | None = None) -> AgentDocument:
        """The agent's document of this revision, from the gateway `at`, which has a call of it."""
        data = await self._get(f"/internal/v1/revisions/{quote(digest)}", at=at)
        return _decoded(_documents, data, "an agent's document")

    async def bundle(self, digest: str, at: str | None = None) -> bytes:
        """A source bundle, as packed."""
        return await self._get(f"/internal/v1/bundles/{quote(digest)}", at=at)

    async def renew(self, identity: str | None = None) -> FreshToken:
        """Change the token, or an `identity` of the platform's, for a fresh token, which is shown from then on."""
        if identity is not None:
            self._session.headers["Authorization"] = f"Bearer {identity}"
        data = await self._post(PATH_TOKEN, b"", None, 30.0, PlatformUnavailable, again=True)
        fresh = _decoded(_tokens, data, "a token")
        self._session.headers["Authorization"] = f"Bearer {fresh.token}"
        return fresh

    async def chat(self, call_id: str, body: dict[str, Any], deadline: float, key: str | None = None) -> dict[str, Any]:
        """A whole model call; `deadline` is the seconds left. What has a `key` is answered and paid once in its run."""
        data = await self._post(CHAT, _encode(body), call_id, deadline, ModelFailed, again=True, key=key)
        return _decoded(_chats, data, "a chat completion")

    async def chat_stream(
        self, call_id: str, body: dict[str, Any], deadline: float, key: str | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """A model call as OpenAI's chunks."""
        headers = _headers(call_id, deadline, key)
        data = _encode({**body, "stream": True})
        try:
            async with self._session.post(self._url(CHAT, call_id), data=data, headers=headers) as answer:
                if answer.status >= 400:
                    raise _refusal(answer.status, await answer.read(), ModelFailed)
                async for line in answer.content:
                    if line.startswith(b"data:") and (payload := line[5:].strip()) != b"[DONE]" and payload:
                        chunk = _decoded(_chats, payload, "a chunk of a chat completion")
                        if isinstance(error := chunk.get("error"), dict):
                            raise ModelFailed(f"the model failed in its answer: {error.get('message', error)}")
                        yield chunk
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unavailable(error) from error

    async def agent_invoke(
        self, call_id: str, agent: str, message: str, deadline: float, key: str | None = None
    ) -> str:
        """Call another agent of the same tenant; its answer. With a `key` that call is a run of its own."""
        path = f"/internal/v1/agents/{quote(agent, safe='')}/invoke"
        data = await self._post(
            path, _encode({"message": message}), call_id, deadline, ToolFailed, again=False, key=key
        )
        return str(_decoded(_chats, data, "an agent's answer").get("output", ""))

    async def agent_message(
        self, call_id: str, agent: str, message: str, reply: bool, deadline: float, key: str | None = None
    ) -> str:
        """Send a message to another agent of the tenant; its id. With a `key` of the call's run it is sent once."""
        path = f"/internal/v1/agents/{quote(agent, safe='')}/messages"
        data = await self._post(
            path, _encode({"message": message, "reply": reply}), call_id, deadline, ToolFailed, again=False, key=key
        )
        return str(_decoded(_chats, data, "a message that was sent").get("id", ""))

    async def function(self, call_id: str, ask: FunctionAsk, deadline: float, key: str | None = None) -> str:
        """What the function answers that the agent of the call stands for."""
        data = await self._post(PATH_FUNCTION, _encode(ask), call_id, deadline, AgentFailed, again=False, key=key)
        return _decoded(_outputs, data, "a function's answer").get("output", "")

    async def credentials(self, call_id: str, names: list[str]) -> dict[str, str]:
        """The values of credentials that the agent's document refers to."""
        path = "/internal/v1/credentials"
        data = await self._post(path, _encode({"names": list(names)}), call_id, 30.0, ToolFailed, again=True)
        return _decoded(_outputs, data, "credentials")

    # -- state ----------------------------------------------------------------------------------------------------

    async def save_step(self, call_id: str, body: StepBody) -> StepSaved:
        """Commit a finished step of the call's run; sent twice it is one step."""
        path = "/internal/v1/state/steps"
        data = await self._post(path, _encode(body), call_id, STATE_TIMEOUT, PlatformUnavailable, again=True)
        return _decoded(_saved, data, "a saved step")

    async def steps(self, call_id: str, after: int = 0) -> StepPage:
        """The finished steps of the call's run that come after number `after`: one page of them."""
        data = await self._get(f"/internal/v1/state/steps?after={after}", call_id)
        return _decoded(_pages, data, "a page of steps")

    async def shared(self, call_id: str, space: str, body: SharedBody, key: str | None = None) -> SharedAnswer:
        """Write and read keys of a shared space, as the call's agent. With a `key` the writes happen once in a run."""
        path = f"/internal/v1/state/shared/{quote(space, safe='')}"
        again = key is not None or not body.write
        data = await self._post(path, _encode(body), call_id, STATE_TIMEOUT, PlatformUnavailable, again=again, key=key)
        return _decoded(_shared, data, "a shared space's keys")

    async def checkpoints(self, call_id: str, ask: CheckpointAsk, deadline: float) -> CheckpointAnswer:
        """Keep or read checkpoints of the call's run; asked twice it is done once."""
        path = "/internal/v1/state/checkpoints"
        try:
            async with asyncio.timeout(min(deadline, STATE_TIMEOUT)):
                data = await self._post(
                    path,
                    CHECKPOINT_ENCODER.encode(ask),
                    call_id,
                    deadline,
                    PlatformUnavailable,
                    again=True,
                    content=MSGPACK,
                )
        except TimeoutError as error:
            raise self._unavailable(error) from error
        return _decoded(CHECKPOINT_ANSWERS, data, "checkpoints")

    # -- requests -------------------------------------------------------------------------------------------------

    def _url(self, path: str, call_id: str | None) -> str:
        return self._at.get(call_id or "", self._base) + path

    async def _get(self, path: str, call_id: str | None = None, *, at: str | None = None) -> bytes:
        trace = current_trace.get()
        headers = {HEADER_TRACEPARENT: trace.header()} if trace is not None else {}
        if call_id is not None:
            headers[HEADER_CALL] = call_id
        try:
            async with (
                asyncio.timeout(DOCUMENT_TIMEOUT),
                self._session.get(at + path if at else self._url(path, call_id), headers=headers) as answer,
            ):
                data = await _bounded(answer, MAX_BUNDLE)
                if answer.status >= 400:
                    raise _refusal(answer.status, data, PlatformUnavailable)
                return data
        except (aiohttp.ClientError, OSError) as error:  # OSError covers the time-out
            raise self._unavailable(error) from error

    async def _post(
        self,
        path: str,
        data: bytes,
        call_id: str | None,
        deadline: float,
        otherwise: Callable[[str], HostError],
        *,
        again: bool,
        key: str | None = None,
        content: str = JSON,
    ) -> bytes:
        headers = _headers(call_id, deadline, key, content)
        try:
            async with self._session.post(self._url(path, call_id), data=data, headers=headers) as answer:
                body = await answer.read()
                if answer.status >= 400:
                    raise _refusal(answer.status, body, otherwise)
                return body
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            # A kept-alive connection may close just as it is used again. What has no effects is asked once more.
            if not again or isinstance(error, aiohttp.ClientConnectorError):
                raise self._unavailable(error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._unavailable(error) from error
        return await self._post(path, data, call_id, deadline, otherwise, again=False, key=key, content=content)

    def _unavailable(self, error: BaseException) -> PlatformUnavailable:
        what = "did not answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
        return PlatformUnavailable(
            f"the platform at {self._where} is not reachable ({what})",
            next_step="see whether the gateway runs (`chimera status`)",
            retry_after=1.0,
        )


def _headers(call_id: str | None, deadline: float, key: str | None = None, content: str = JSON) -> dict[str, str]:
    headers = {HEADER_DEADLINE: f"{deadline:.3f}", "Content-Type": content}
    if call_id is not None:
        headers[HEADER_CALL] = call_id
    if key is not None:
        headers[HEADER_IDEMPOTENCY] = key
    if (trace := current_trace.get()) is not None:
        headers[HEADER_TRACEPARENT] = trace.header()
    return headers


def _refusal(status: int, body: bytes, otherwise: Callable[[str], HostError]) -> HostError | RemoteProblem:
    try:
        return RemoteProblem(_problems.decode(body))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return otherwise(f"the platform answered {status}: {body[:200].decode(errors='replace')}")


def _decoded(decoder: "msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T]", data: bytes, what: str) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise PlatformUnavailable(
            f"the platform answered what is not {what}: {error}",
            next_step="run the same release of the host and of the platform",
        ) from error


async def _bounded(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    data = bytearray()
    async for piece in answer.content.iter_chunked(256 * 1024):
        data += piece
        if len(data) > limit:
            raise PlatformUnavailable(f"the platform answered more than {limit} bytes")
    return bytes(data)
