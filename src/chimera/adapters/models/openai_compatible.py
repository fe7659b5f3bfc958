"""Any OpenAI-compatible endpoint as a model provider: chat completions, whole and streamed.

Failures are sorted once, here: what may pass (no connection, time-out, 408, 409, 429, 5xx) is `ModelUnavailable` with
the provider's own Retry-After, the rest `ModelRejected`. Prompts and answers are never logged.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn

import aiohttp
import msgspec

from chimera.gateway.errors import ModelRejected, ModelTimeout, ModelUnavailable
from chimera.gateway.ports import ModelRequest

PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
LONGEST_LINE = 4 * 1024 * 1024
SHOWN = 500
LONGEST_RETRY = 86_400.0


class OpenAICompatible:
    """One endpoint. `drop_tools` leaves tools out of requests, for a model that can't use them."""

    def __init__(
        self, *, base_url: str, model: str, api_key: str | None, connections: int, drop_tools: bool = False
    ) -> None:
        """Reach `base_url` (ends in /v1) with `api_key`. Made inside the event loop."""
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._model = model
        self._drop_tools = drop_tools
        headers = {"Content-Type": "application/json"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        self._session = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=30.0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def complete(self, request: ModelRequest) -> dict[str, Any]:
        """See `ModelProvider`."""
        try:
            async with self._send(request, stream=False) as answer:
                data = await answer.read()
                if answer.status != 200:
                    _raise(answer.status, answer.headers, data)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _away(error) from error
        try:
            completion: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ModelUnavailable("the model's endpoint answered something that is not JSON") from error
        return completion

    async def stream(self, request: ModelRequest) -> AsyncIterator[dict[str, Any]]:
        """See `ModelProvider`."""
        try:
            async with self._send(request, stream=True) as answer:
                if answer.status != 200:
                    _raise(answer.status, answer.headers, await answer.read())
                async for chunk in _events(answer.content):
                    yield chunk
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _away(error) from error

    async def aclose(self) -> None:
        """See `ModelProvider`."""
        await self._session.close()

    def _send(self, request: ModelRequest, *, stream: bool) -> "aiohttp.client._RequestContextManager":
        body = {**request.body, "model": self._model}
        if self._drop_tools:
            body = {name: value for name, value in body.items() if name not in ("tools", "tool_choice")}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        headers = {"traceparent": request.traceparent} if request.traceparent else {}
        return self._session.post(
            self._url,
            data=msgspec.json.encode(body),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=max(0.05, request.deadline), sock_connect=10.0),
        )


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    pending = b""
    async for piece in content.iter_any():
        *lines, pending = (pending + piece).split(b"\n")
        if len(pending) > LONGEST_LINE:
            raise ModelUnavailable("the model's endpoint sent a line without end")
        for line in lines:
            data = line.strip()
            if data.startswith(b"data:") and (data := data[5:].strip()) != b"[DONE]":
                yield _chunk(data)


def _chunk(data: bytes) -> dict[str, Any]:
    try:
        chunk: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ModelUnavailable("the model's endpoint sent a chunk that is not JSON") from error
    if "error" in chunk:  # too late for a status: this is how endpoints say that an answer broke off
        raise ModelUnavailable(f"the model's endpoint broke off: {str(chunk['error'])[:SHOWN]}")
    return chunk


def _raise(status: int, headers: Mapping[str, str], data: bytes) -> NoReturn:
    said = data[:SHOWN].decode("utf-8", "replace")
    detail = f"the model's endpoint answered {status}: {said}"
    if status in PASSING:
        raise ModelUnavailable(detail, retry_after=_seconds(headers.get("Retry-After", "")))
    step = "check the model's key in the settings" if status in (401, 403) else None
    raise ModelRejected(detail, next_step=step)


def _seconds(text: str) -> float | None:
    """A `Retry-After` in seconds; one that is a date is left out, since clocks differ."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < LONGEST_RETRY else None


def _away(error: BaseException) -> ModelUnavailable:
    if isinstance(error, TimeoutError):
        return ModelTimeout("the model's endpoint did not answer in time", next_step="see `chimera doctor`")
    return ModelUnavailable(f"the model's endpoint can't be reached: {error}", next_step="see `chimera doctor`")
