"""The public listener: who may speak, what it refuses, what it passes on, what it says of itself."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import openai
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from yarl import URL

from chimera.entrypoints.gateway import openapi
from chimera.entrypoints.gateway.http import decoded
from chimera.entrypoints.gateway.operations import SERVED
from chimera.entrypoints.gateway.state_operations import STATE
from chimera.gateway import api
from chimera.gateway.errors import InvalidRequest
from chimera.gateway.identity.principal import BOOTSTRAP_ADMIN, decode_header

INVOKE = "/v1/tenants/default/agents/agent/invoke"
GOLDEN = Path(__file__).parents[3] / "schemas" / "openapi.json"


@asynccontextmanager
async def unix_server(path: str, handle: Any) -> AsyncIterator[None]:
    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.UnixSite(runner, path).start()
    yield
    await runner.cleanup()


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Authorization": ""}, 401, "unauthenticated"),
        ({"Authorization": "Bearer wrong"}, 401, "unauthenticated"),
        ({"Authorization": "Basic " + "k" * 32}, 401, "unauthenticated"),
        ({"Host": "evil.example"}, 403, "forbidden"),
        ({"Host": "127.0.0.1.evil.example:8080"}, 403, "forbidden"),
        ({"Origin": "https://evil.example"}, 403, "forbidden"),
        ({"Origin": "null"}, 403, "forbidden"),
    ],
)
async def test_strangers_are_refused(world: Any, headers: dict[str, str], status: int, code: str) -> None:
    for path in (INVOKE, "/v1/tenants/default/agents", "/v1/chat/completions"):
        got, body = await world.post(path, {"input": "x"}, **headers)
        assert (got, body["code"]) == (status, code)
    for path in ("/metrics", "/openapi.json", "/v1/models"):
        got, _ = await world.get(path, **headers)
        assert got == status


async def test_a_page_of_the_same_origin_and_localhost_may(world: Any) -> None:
    port = world.url.rpartition(":")[2]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}"):
        status, _ = await world.get("/v1/models", Host=host, Origin=f"http://{host}")
        assert status == 200


async def test_no_answer_allows_another_origin(world: Any) -> None:
    async with world.http.options(world.url + INVOKE, headers={"Origin": "https://evil.example"}) as answer:
        assert answer.status == 403
        assert not any(name.lower().startswith("access-control") for name in answer.headers)


async def test_probes_are_open(world: Any) -> None:
    async with aiohttp.ClientSession() as http:
        for path in ("/livez", "/readyz"):
            async with http.get(world.url + path) as answer:
                assert answer.status == 200
    world.gateway.public.draining = True
    assert (await world.get("/readyz"))[0] == 503


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"input": 1}',
        b'{"input": "a", "messages": []}',
        b"{}",
        b'{"messages": []}',
        b'{"messages": [{"role": "assistant", "content": "x"}]}',
        b'{"input": "a", "unknown": 1}',
        b'{"input": "a", "session": "../etc"}',
        b'{"input": "a", "deadline": -1}',
        b'{"input": "a", "deadline": 1e9}',
        b"[" * 100_000,
    ],
)
async def test_malformed_bodies_are_problems(world: Any, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    async with world.http.post(world.url + INVOKE, data=body, headers=headers) as answer:
        problem = json.loads(await answer.read())
        assert (answer.status, answer.content_type) == (400, "application/problem+json")
        assert (problem["code"], problem["status"]) == ("invalid-request", 400)
        assert problem["request"] == answer.headers["X-Request-Id"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda value: json.dumps(value).encode())
)
def test_no_body_breaks_the_decoders(body: bytes) -> None:
    for kind in (api.InvokeBody, api.ChatBody):
        try:
            decoded(msgspec.json.Decoder(kind), body).said()
        except InvalidRequest as error:
            assert error.detail


async def test_a_body_may_not_be_too_large_or_compressed(make_world: Any) -> None:
    async with make_world(settings={"http": {"body_bytes": 2048}}) as world:
        status, body = await world.post(INVOKE, {"input": "x" * 4096})
        assert (status, body["code"]) == (413, "payload-too-large")

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b" " * 100

        headers = {"Content-Type": "application/json"}
        async with world.http.post(world.url + INVOKE, data=pieces(), headers=headers) as answer:
            assert answer.status == 413
        for unwanted in ({"Content-Encoding": "gzip"}, {"Content-Type": "text/plain"}):
            for path in (INVOKE, "/v1/tenants/default/apply"):
                async with world.http.post(world.url + path, data=b"{}", headers=headers | unwanted) as answer:
                    assert answer.status == 415
                    assert (await answer.json(content_type=None))["code"] == "unsupported-media-type"


async def test_a_slow_body_and_a_silent_connection_end(make_world: Any) -> None:
    async with make_world(settings={"http": {"body_timeout": 0.1, "header_timeout": 1}}) as world:
        host, port = "127.0.0.1", int(world.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection(host, port)
        head = (
            f"POST {INVOKE} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {'k' * 32}\r\nContent-Length: 9\r\n\r\n"
        )
        writer.write(head.encode() + b"{")
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 15)
        writer.close()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"POST / HTTP/1.1\r\nHost:")
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 15) == b""
        writer.close()


async def test_connections_are_limited(make_world: Any) -> None:
    async with make_world(settings={"http": {"connections": 2}}) as world:
        port = int(world.url.rpartition(":")[2])
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await asyncio.sleep(0.05)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 15) == b""
        for _, each in (*kept, (reader, writer)):
            each.close()


async def test_unknown_paths_and_methods(world: Any) -> None:
    assert (await world.get("/nothing"))[1]["code"] == "not-found"
    assert (await world.get(INVOKE))[1]["code"] == "method-not-allowed"
    assert (await world.get("/v1/models/gpt-4"))[1]["code"] == "agent-not-found"


@pytest.mark.parametrize("path", ["/v1/models/agent/a%00b", "/v1/models?after=%00", "/v1/tenants/default/keys/%00"])
async def test_nothing_is_named_by_nul(world: Any, path: str) -> None:
    status, problem = await world.get(path)
    assert (status, problem["code"]) == (400, "invalid-request")
    assert "NUL" in problem["detail"]


async def test_the_request_id_is_echoed_or_made(world: Any) -> None:
    async with world.http.get(world.url + "/v1/models", headers={"X-Request-Id": "mine-1"}) as answer:
        assert answer.headers["X-Request-Id"] == "mine-1"
    async with world.http.get(world.url + "/v1/models", headers={"X-Request-Id": "a b\tc"}) as answer:
        assert answer.headers["X-Request-Id"].startswith("req_")


async def test_refusals_that_pass_say_when(world: Any) -> None:
    await world.agent()
    async with world.http.post(world.url + "/v1/tenants/default/apply", json={}) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        assert (await answer.json(content_type=None))["code"] == "control-plane-unavailable"
    status, body = await world.get("/v1/cells")
    assert (status, body["code"]) == (503, "node-unavailable")


async def test_the_catalogue_is_passed_on_and_own_writes_are_read(make_world: Any) -> None:
    async with make_world(settings={"routes": {"poll": 1000}}) as world:
        seen: list[Any] = []
        await world.host()

        async def control(request: web.BaseRequest) -> web.Response:
            body = await request.read()
            seen.append((request.method, request.raw_path, dict(request.headers), body))
            from chimera_host.testing import builders

            route = world.store.put_agent(builders.document("applied"), "cell-1")
            headers = {"Chimera-Sequence": str(route.sequence), "X-Kept": "yes"}
            return web.json_response({"done": True}, status=201, headers=headers)

        async with unix_server(world.config.control_plane_socket, control):
            assert (await world.invoke("applied"))[0] == 404
            path = "/v1/tenants/default/apply?x=a%2Fb"
            async with world.http.post(URL(world.url + path, encoded=True), json={"a": 1}) as answer:
                assert (answer.status, await answer.json()) == (201, {"done": True})
                assert answer.headers["X-Kept"] == "yes"
            assert (await world.invoke("applied"))[0] == 200
        method, raw, headers, body = seen[0]
        assert (method, raw, json.loads(body)) == ("POST", path, {"a": 1})
        assert "Authorization" not in headers
        assert decode_header(headers["Chimera-Principal"]) == BOOTSTRAP_ADMIN


async def test_models_are_paged_by_name(world: Any) -> None:
    for n in range(5):
        await world.agent(f"agent-{n}")
    status, page = await world.get("/v1/models?limit=2")
    assert (status, [card["id"] for card in page["data"]]) == (200, ["agent/agent-0", "agent/agent-1"])
    assert page["has_more"] is True
    _, page = await world.get(f"/v1/models?limit=3&after={page['last_id']}")
    assert ([card["id"] for card in page["data"]], page["has_more"]) == (
        ["agent/agent-2", "agent/agent-3", "agent/agent-4"],
        False,
    )
    assert (await world.get("/v1/models?limit=0"))[0] == 400
    world.store.remove_agent("default", "agent-0")
    await world.gateway.routes.refresh()
    _, page = await world.get("/v1/models?limit=1")
    assert page["first_id"] == "agent/agent-1"
    assert (await world.get("/v1/tenants/other/models"))[1]["data"] == []


async def test_the_openai_client_works_unchanged(world: Any) -> None:
    await world.host()
    await world.agent()
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="k" * 32, max_retries=0) as client:
        messages: Any = [
            {"role": "developer", "content": "be kind"},
            {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        ]
        answer = await client.chat.completions.create(model="agent/agent", messages=messages, temperature=0.1)
        assert answer.choices[0].message.content == "echo: hello"
        assert answer.usage is not None
        stream = await client.chat.completions.create(
            model="agent/agent", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "echo: hello"
        assert chunks[-1].usage is not None
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
        assert [model.id async for model in client.models.list()] == ["agent/agent"]
        assert (await client.models.retrieve("agent/agent")).id == "agent/agent"
        with pytest.raises(openai.NotFoundError) as missing:
            await client.chat.completions.create(model="agent/nobody", messages=messages)
        assert missing.value.code == "agent-not-found"
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="gpt-4o", messages=messages)
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="agent/agent", messages=messages, n=2)
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_metrics_name_no_agent(world: Any) -> None:
    await world.host()
    await world.agent("very-special")
    await world.invoke("very-special")
    status, text = await world.get("/metrics")
    assert status == 200
    assert 'chimera_gateway_calls_total{outcome="ok",protocol="http"} 1.0' in text
    assert "very-special" not in text


def test_the_openapi_document_is_valid_and_as_published() -> None:
    validate(json.loads(openapi.encoded()))
    assert GOLDEN.read_bytes() == openapi.encoded(), "run: python -m chimera.entrypoints.gateway.openapi > the file"


async def test_every_served_operation_has_a_handler(world: Any) -> None:
    for operation in (*SERVED, *STATE):
        path = operation.path
        for field in ("tenant", "agent", "session", "subject", "space"):
            path = path.replace("{" + field + "}", "default" if field == "tenant" else "a")
        async with world.http.request(operation.method, world.url + path, json={}) as answer:
            assert b"nothing serves" not in await answer.read()
