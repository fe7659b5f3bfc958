"""The egress rule on real connections: redirects, names that change their address, bounds."""

import asyncio
import socket

import pytest
from aiohttp import web
from yarl import URL

from chimera_host.broker.egress import parse_list
from chimera_host.broker.http import MAX_REDIRECTS, CheckedHttp, CheckedSession
from chimera_host.errors import ToolFailed, ToolRefused
from chimera_host.steps import Scope, within
from chimera_host.testing.doubles import BreaksOnce


class Names:
    """A resolver from a dictionary; a list of addresses is used up one look-up at a time."""

    def __init__(self, **names):
        self.names = names
        self.looked_up = []

    async def resolve(self, host, port=0, family=socket.AF_INET):
        self.looked_up.append(host)
        found = self.names[host.replace(".", "_")]
        addresses = [found.pop(0)] if isinstance(found, list) else [found]
        return [
            {"hostname": host, "host": one, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}
            for one in addresses
        ]

    async def close(self):
        pass


@pytest.fixture
async def client():
    """`client(*egress, resolver=…)`: a client that may connect there."""
    sessions = []

    def make(*egress, resolver=None):
        sessions.append(CheckedSession(parse_list("t", egress), resolver))
        return CheckedHttp(sessions[-1], asyncio.get_running_loop())

    yield make
    for session in sessions:
        await session.aclose()


async def echo(request):
    body = await request.read()
    shown = {"path": request.path, "method": request.method, "body": body.decode(), "headers": dict(request.headers)}
    return web.json_response(shown, status=int(request.query.get("status", 200)))


async def test_a_listed_host_is_reached(client, serve):
    url = await serve(echo)
    answer = await client("127.0.0.1").request("post", f"{url}/x?status=418", json={"a": 1}, headers={"X-Key": "k"})
    assert answer.status == 418 and answer.json()["body"] == '{"a":1}' and answer.json()["headers"]["X-Key"] == "k"
    assert answer.headers["content-type"].startswith("application/json") and '"path"' in answer.text


async def test_a_host_that_isnt_listed_is_not(client, serve):
    seen = []

    async def handler(request):
        seen.append(request.path)
        return web.Response()

    url = await serve(handler)
    with pytest.raises(ToolRefused, match=r"may not connect to 127\.0\.0\.1"):
        await client("example.com").request("GET", url)
    with pytest.raises(ToolRefused, match=r"may not connect to localhost.*it may to: none"):
        await client().request("GET", url.replace("127.0.0.1", "localhost"))
    assert seen == []


async def test_localhost_listed_by_name_is_reached(client, serve):
    url = (await serve(echo)).replace("127.0.0.1", "localhost")
    assert (await client("localhost").request("GET", url)).status == 200


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/",
        "http://100.100.100.200/",
        "http://0.0.0.0/",
        "http://[::ffff:169.254.169.254]/",
    ],
)
async def test_a_redirect_to_a_metadata_service_is_refused(client, serve, target):
    async def redirect(_):
        raise web.HTTPFound(target)

    url = await serve(redirect)
    listed = ["127.0.0.1", URL(target).host or ""]
    with pytest.raises(ToolRefused, match=r"no tool may reach|may not connect"):
        await client(*listed).request("GET", url)


async def test_a_redirect_to_an_unlisted_host_is_refused(client, serve):
    elsewhere = await serve(echo)

    async def redirect(_):
        raise web.HTTPTemporaryRedirect(elsewhere)

    url = await serve(redirect)
    port = URL(url).port
    with pytest.raises(ToolRefused, match="may not connect"):
        await client(f"127.0.0.1:{port}").request("GET", url)


async def test_a_redirect_to_another_server_loses_the_credentials(client, serve):
    elsewhere = await serve(echo)

    async def redirect(request):
        raise web.HTTPTemporaryRedirect(elsewhere if request.path == "/away" else "/stay")

    async def stay_or_go(request):
        return await (echo(request) if request.path == "/stay" else redirect(request))

    url = await serve(stay_or_go)
    http = client("127.0.0.1")
    sent = {"Authorization": "Bearer s", "X-Key": "s", "Accept": "text/plain"}
    for path, kept in (("/away", False), ("/here", True)):
        seen = (await http.request("POST", url + path, headers=sent, body="b")).json()
        assert seen["method"] == "POST" and seen["body"] == "b" and seen["headers"]["Accept"] == "text/plain"
        assert ("Authorization" in seen["headers"], "X-Key" in seen["headers"]) == (kept, kept)


async def test_a_post_that_is_redirected_by_303_becomes_a_get(client, serve):
    async def handler(request):
        if request.path == "/":
            raise web.HTTPSeeOther("/done")
        return await echo(request)

    seen = (await client("127.0.0.1").request("POST", await serve(handler), body="b")).json()
    assert (seen["method"], seen["body"], seen["path"]) == ("GET", "", "/done")


async def test_redirects_end(client, serve):
    count = []

    async def handler(_):
        count.append(1)
        raise web.HTTPFound("/again")

    with pytest.raises(ToolFailed, match=f"more than {MAX_REDIRECTS} times"):
        await client("127.0.0.1").request("GET", await serve(handler))
    assert len(count) == MAX_REDIRECTS + 1


async def test_a_public_name_that_leads_inside_is_refused(client, serve):
    url = URL(await serve(echo))
    names = Names(api_example_com="127.0.0.1")
    with pytest.raises(ToolRefused, match=r"127\.0\.0\.1 is not on the public internet"):
        await client("api.example.com", resolver=names).request("GET", f"http://api.example.com:{url.port}/")
    assert (
        await client("api.example.com", "127.0.0.1", resolver=names).request(
            "GET", f"http://api.example.com:{url.port}/"
        )
    ).status == 200


async def test_a_name_that_leads_to_a_metadata_service_is_refused(client):
    names = Names(db_internal="169.254.169.254")
    with pytest.raises(ToolRefused, match="no tool may reach"):
        await client("db.internal", "169.254.169.254", resolver=names).request("GET", "http://db.internal/")


async def test_each_connection_is_to_an_address_that_was_judged(client, serve):
    """A name that changes its address: the look-up that was judged is the one that is connected to."""

    async def closing(_):
        return web.Response(text="ok", headers={"Connection": "close"})

    url = URL(await serve(closing))
    names = Names(app_internal=["127.0.0.1", "169.254.169.254", "127.0.0.1"])
    http = client("app.internal", resolver=names)
    address = f"http://app.internal:{url.port}/"
    assert (await http.request("GET", address)).text == "ok"
    with pytest.raises(ToolRefused):
        await http.request("GET", address)
    assert (await http.request("GET", address)).text == "ok"
    assert names.looked_up == ["app.internal"] * 3


async def test_an_answer_is_bounded(client, serve):
    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 10_000)

    with pytest.raises(ToolFailed, match="more than 50000 bytes"):
        await client("127.0.0.1").request("GET", await serve(endless), max_bytes=50_000)


async def test_an_answer_that_doesnt_come_is_given_up(client, serve):
    async def silent(_):
        await asyncio.sleep(30)

    with pytest.raises(ToolFailed, match=r"did not answer within 0\.05 s"):
        await client("127.0.0.1").request("GET", await serve(silent), seconds=0.05)


async def test_a_closed_port_is_named_without_the_path(client):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    with pytest.raises(ToolFailed, match=f"127.0.0.1:{port} can't be reached") as failed:
        await client("127.0.0.1").request("GET", f"http://127.0.0.1:{port}/secret-path?key=secret")
    assert "secret" not in failed.value.detail


async def test_a_thread_may_use_it(client, serve):
    url = await serve(echo)
    http = client("127.0.0.1")
    assert (await asyncio.to_thread(http.request_blocking, "GET", url)).status == 200


async def test_cookies_and_proxies_of_the_environment_are_not_used(client, serve, monkeypatch):
    async def handler(request):
        response = web.json_response(dict(request.headers))
        response.set_cookie("who", "me")
        return response

    url = await serve(handler)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    http = client("127.0.0.1")
    await http.request("GET", url)
    assert "Cookie" not in (await http.request("GET", url)).json()


@pytest.mark.parametrize("url", ["", "nonsense", "http://", "http://[::1", "http://exa mple.com/", "http://a:99999/"])
async def test_what_is_no_url_is_refused(client, url):
    with pytest.raises((ToolRefused, ToolFailed)):
        await client("a", "nonsense").request("GET", url)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_what_may_change_something_is_sent_once(client, method):
    """A deletion that happened isn't told as one of what isn't there."""
    server = BreaksOnce()
    async with await asyncio.start_server(server, "127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
        http = client("127.0.0.1")
        assert (await http.request("GET", url)).text == '"ok"'
        with pytest.raises(ToolFailed, match="may be done"):
            await http.request(method, url)
    assert server.heard == ["GET", method]


async def test_in_a_run_a_request_with_effects_has_a_key_that_stays(client, serve):
    seen = []

    async def handler(request):
        seen.append((request.method, request.headers.get("Idempotency-Key")))
        return web.Response(status=500 if request.path == "/fails" else 200)

    base = await serve(handler)
    http = client("127.0.0.1")
    await http.request("POST", base)
    for _ in range(2):
        with within(Scope("run", "step", "tool")):
            await http.request("GET", base)
            await http.request("POST", base, json={"a": 1})
            await http.request("POST", base, json={"a": 1})
            await http.request("POST", base, json={"a": 2})
            await http.request("POST", base, headers={"idempotency-key": "its own"})
    (_, none), *keyed = seen
    first, again = keyed[:5], keyed[5:]
    assert none is None and first[0] == ("GET", None) and first[4] == ("POST", "its own")
    assert first == again and len({key for _, key in first}) == 5
