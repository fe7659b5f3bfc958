"""Malformed requests: each is answered with a problem document of 4xx, none harms the platform.

`CHIMERA_TEST_REQUESTS` sets how many are sent (500 by default), `CHIMERA_TEST_SEED` which. They go to a gateway with a
control plane behind it, as bytes, since a client would mend or refuse to send most of them. What breaks
the OpenAPI document (types, bounds, fields) is generated from it, in
`tests/acceptance/platform/test_malformed_generated.py`.
"""

import asyncio
import gzip
import hashlib
import json
import os
import random
import re
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from chimera.agents.archive import ArchivedFile
from chimera.agents.bundle import pack_files
from chimera.entrypoints.gateway.operations import OPERATIONS
from chimera.testing.definitions import definition

REQUESTS = int(os.environ.get("CHIMERA_TEST_REQUESTS", "500"))
SEED = int(os.environ.get("CHIMERA_TEST_SEED", "7"))
AT_ONCE = 8

TENANT = "/v1/tenants/default"
TAKE_JSON = {
    f"{TENANT}/agents/anna/invoke": ("input", "messages", "session", "deadline", "stream"),
    "/v1/chat/completions": ("model", "messages", "stream", "stream_options", "n"),
    f"{TENANT}/chat/completions": ("model", "messages", "tools", "functions"),
    f"{TENANT}/check": ("sources",),
    f"{TENANT}/batches/b/definitions": ("items", "first"),
    f"{TENANT}/batches/b/commit": ("keep_going", "expect"),
    f"{TENANT}/apply": ("items", "keep_going", "expect"),
    f"{TENANT}/validate": ("items",),
    f"{TENANT}/diff": ("items",),
    f"{TENANT}/agents/delete": ("names",),
}
FIELDS = {name for names in TAKE_JSON.values() for name in names}
PUBLISHED = (*TAKE_JSON, f"{TENANT}/agents", f"{TENANT}/batches", "/v1/status", "/v1/cells", "/v1/models", "/livez")
ODD = "\0\u202e\ufeff\ud7ff\U0001f916é日\u0301\u200b\x7f\x1b"

Make = Callable[["Maker"], bytes]


class Maker:
    """Makes requests that are wrong in one way, each for sure."""

    def __init__(self, chance: random.Random, key: str) -> None:
        self.chance = chance
        self._key = key

    def request(
        self,
        method: str | bytes,
        path: str | bytes,
        body: bytes = b"",
        *,
        without: tuple[str, ...] = (),
        version: str = "1.1",
        **headers: str | bytes,
    ) -> bytes:
        """One request; headers are given with `_` for `-`, and `without` leaves out some that are usual."""
        lines: dict[str, str | bytes] = {
            "Host": "127.0.0.1",
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        head = _bytes(method) + b" " + _bytes(path) + f" HTTP/{version}\r\n".encode()
        for name, value in lines.items():
            if name not in without:
                head += name.encode() + b": " + _bytes(value) + b"\r\n"
        return head + b"\r\n" + body

    def post(self, body: bytes, **more: Any) -> bytes:
        return self.request("POST", self.chance.choice([*TAKE_JSON]), body, **more)

    def item(self, **changes: Any) -> bytes:
        """One definition that is not valid, applied."""
        text = json.dumps({"items": [{"definition": definition("bert", **changes)}]})
        return self.request("POST", f"{TENANT}/apply", text.encode())

    def text(self, most: int = 12) -> str:
        return "".join(self.chance.choice(ODD + "az09-_/.%") for _ in range(self.chance.randint(1, most)))

    # -- bodies ----------------------------------------------------------------------------------------------------

    def bad_json(self) -> bytes:
        whole = json.dumps({self.chance.choice([*FIELDS]): [1, {"a": "b"}, None]}).encode()
        cut = whole[: self.chance.randint(1, len(whole) - 1)]
        noise = self.chance.randbytes(self.chance.randint(1, 200))
        made = [
            cut,
            b"\xff" + noise,
            b"\xef\xbb\xbf{}",
            b"{'a':1}",
            b'{"a":1,}',
            b"{}{}",
            b"NaN",
            b"\0",
            b'{"a":"\x01"}',
        ]
        return self.post(self.chance.choice(made))

    def huge_number(self) -> bytes:
        number = self.chance.choice(
            ["1" + "0" * self.chance.choice([19, 50, 400, 5000]), "1e999", "-1e400", "1e1000000"]
        )
        path, field = self.chance.choice(
            [
                *(
                    (f"{TENANT}/batches/b/{last}", name)
                    for last, name in (("definitions", "first"), ("commit", "expect"))
                ),
                (f"{TENANT}/apply", "expect"),
                (f"{TENANT}/agents/anna/invoke", "deadline"),
                ("/v1/chat/completions", "n"),
            ]
        )
        rest = {"items": [], "input": "x", "model": "agent/anna", "messages": [{"role": "user", "content": "x"}]}
        known = {name: value for name, value in rest.items() if name in TAKE_JSON[path]}
        if field == "deadline":
            known.pop("messages")
        body = f"{json.dumps(known)[:-1]}{', ' if known else ''}{json.dumps(field)}: {number}}}"
        return self.chance.choice(
            [
                lambda: self.request("POST", path, body.encode()),
                lambda: self.request("GET", f"{TENANT}/agents?limit={number}"),
                lambda: self.request("GET", f"/v1/models?limit={number}"),
                lambda: self.item(scaling={"max_instances": 10 ** self.chance.choice([9, 30, 400])}),
            ]
        )()

    def deep_nesting(self) -> bytes:
        levels = self.chance.choice([100, 1_000, 50_000])
        opening, closing = self.chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
        nested = opening * levels + b"1" + (closing * levels if self.chance.random() < 0.8 else b"")
        if self.chance.random() < 0.5:
            return self.post(nested)
        return self.request("POST", f"{TENANT}/apply", b'{"items":[{"definition":' + nested + b"}]}")

    def odd_unicode(self) -> bytes:
        odd = self.chance.choice(ODD) + self.text()
        return self.chance.choice(
            [
                lambda: self.item(metadata={"name": odd}),
                lambda: self.item(specification={"framework": odd}),
                lambda: self.item(capabilities={"communication_protocols": [odd]}),
                lambda: self.item(**{odd: 1}),
                lambda: self.item(metadata={"description": odd + "\0"}),
                lambda: self.item(tests=[{"name": "t", "input": odd + "\0" + odd, "expect": {"contains": ["x"]}}]),
                lambda: self.post(b'{"input":"\\ud800","model":"\\udfff"}'),
                lambda: self.request("POST", "/v1/chat/completions", _chat("agent/" + odd)),
                lambda: self.request("POST", f"{TENANT}/agents/anna/invoke", _json(input="x", session=odd)),
                lambda: self.request("POST", f"{TENANT}/batches", Idempotency_Key=odd.encode() + b"\xff"),
                lambda: self.request("POST", f"{TENANT}/batches", Idempotency_Key="k" * 200),
                lambda: self.request("PUT", f"{TENANT}/bundles/{'0' * 64}", odd.encode()),
            ]
        )()

    # -- headers ---------------------------------------------------------------------------------------------------

    def content_type(self) -> bytes:
        kinds = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "*/*", "json"]
        return self.post(
            b"{}", Content_Type=self.chance.choice([*kinds, "application/xml;charset=utf-7", ";;", "\x80"])
        )

    def content_encoding(self) -> bytes:
        encoding = self.chance.choice(["gzip", "br", "deflate", "zstd", "gzip, gzip", "rot13", "identity, gzip"])
        body = gzip.compress(b"{}" * self.chance.choice([1, 100_000]), mtime=0)
        return self.chance.choice(
            [self.post, lambda *body, **more: self.request("PUT", f"{TENANT}/bundles/d", *body, **more)]
        )(body, Content_Encoding=encoding)

    def content_length(self) -> bytes:
        length = self.chance.choice(["-1", "+2", "0x2", "2, 3", "two", "1e1", "", "2 2", "9" * 12, "9" * 40, "²"])
        body = b"{}"
        if self.chance.random() < 0.2:
            length = str(len(body) + self.chance.randint(1, 1000))  # more than comes
        if self.chance.random() < 0.2:
            return self.post(body, without=("Content-Length",), content_length="2", Content_length="3")
        return self.post(body, Content_Length=length)

    def transfer_encoding(self) -> bytes:
        chunks = self.chance.choice(
            [b"zz\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n", b"2\r\n{}XX0\r\n\r\n", b"\r\n\r\n", b"2;\n\n{}"]
        )
        named = {"without": ("Content-Length",)} if self.chance.random() < 0.7 else {}
        encoding = self.chance.choice(["chunked", "gzip, chunked"]) if named else "chunked"
        return self.post(chunks, Transfer_Encoding=encoding, **named)

    def odd_header(self) -> bytes:
        path = self.chance.choice(PUBLISHED[:-1])
        return self.chance.choice(
            [
                lambda: self.request("GET", path, Host=self.chance.choice(["", "evil.example", "[::1", "\x80", "a b"])),
                lambda: self.request("GET", path, Origin=self.chance.choice(["null", "http://[", "x" * 5000, "\xff"])),
                lambda: self.request("GET", path, Authorization=self.chance.choice(["", "Bearer", "Bearer \xff", "é"])),
                lambda: self.request("GET", path, without=("Host",)),
                lambda: self.request("GET", path, X_Long="x" * 100_000),
                lambda: self.request("GET", path, X_Null=b"a\0b"),
                lambda: self.request("GET", path, **{"X Y": "z"}),
                lambda: self.request("GET", path, **{"": "z"}),
            ]
        )()

    # -- request lines ---------------------------------------------------------------------------------------------

    def odd_path(self) -> bytes:
        text = self.text(30)
        bare = text.encode().translate(None, b" \r\n\t\0?#")
        odd = self.chance.choice(
            [
                *("*", "//", "/..", "/v1/../../etc/passwd", "/v1/tenants//agents", "/v1/tenants/default/agents/anna/"),
                *("/%", "/%zz", "/%00", "/v1/%ff%fe", "/v1/tenants/default/agents/%00/revisions", "nothing", "?", "#"),
                *("http://evil.example/", "http://[", "/v1/tenants/NOT/agents", "/v1/tenants/%2e%2e/agents"),
                *("/" + "a" * 9_000, "/" + "a/" * 3_000, "/v1/cells/c/wake", "/v1/models/agent/nobody"),
                *(b"/\xff\xfe", b"/v1/tenants/default/agents/\xff", b"/v1/status\xff", b"/v1/status?q=\xff", b"/\0"),
                *(
                    b"/nowhere/" + bare,
                    b"/v1/tenants/default/agents/_" + bare,
                    f"/v1/tenants/default/agents?{text[:3]}x",
                ),
                *(
                    "/v1/tenants/default/agents?limit=x",
                    "/v1/tenants/default/agents?limit=%00",
                    "/v1/models?limit=%C2%B2",
                ),
            ]
        )
        return self.request("GET", odd)

    def odd_name(self) -> bytes:
        """No tenant, agent, session, batch or digest has such a name; a person may have any."""
        operation = self.chance.choice([one for one in OPERATIONS if "{" in one.path])
        wrong = self.chance.choice([name for name in re.findall(r"{\w+}", operation.path) if name != "{subject}"])
        names = {"{tenant}": "default", "{agent}": "anna", wrong: quote("_" + self.text(), safe="")}
        path = re.sub(r"{\w+}", lambda found: names.get(found[0], "x"), operation.path)
        return self.request(operation.method, path, b"{}" if operation.body else b"")

    def bad_bundle(self) -> bytes:
        packed = pack_files({"main.py": ArchivedFile(data=b"def make(): ...\n", executable=False)}, name="code")
        data = bytearray(packed.data)
        data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        broken = self.chance.choice([bytes(data), packed.data[: self.chance.randrange(len(data))]])
        zeros = gzip.compress(bytes(self.chance.choice([1, 512, 10_000_000])), 1, mtime=0)
        sent = self.chance.choice([broken, zeros, gzip.compress(self.chance.randbytes(2_000), mtime=0), packed.data])
        digest = f"sha256:{hashlib.sha256(sent).hexdigest()}" if sent is not packed.data else f"sha256:{'0' * 64}"
        return self.request("PUT", f"{TENANT}/bundles/{digest}", sent, Content_Type="application/gzip")

    def odd_method(self) -> bytes:
        method: str | bytes = self.chance.choice(["PATCH", "OPTIONS", "TRACE", "QUERY", "CONNECT", "PROPFIND"])
        if self.chance.random() < 0.5:
            method = self.chance.choice(["G@T", "get", "", "GET" * 3_000, b"\xff", b"G\0T", "GET /", "PRI * HTTP/2.0"])
        return self.request(method, self.chance.choice(PUBLISHED))

    def not_http(self) -> bytes:
        noise = self.chance.randbytes(self.chance.randint(1, 300)).replace(b"\n", b"")
        return self.chance.choice(
            [
                b"\x80" + noise + b"\r\n\r\n",
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise + b"\r\n\r\n",
                b"GET /\r\n\r\n",
                b"GET\r\n\r\n",
                b"{}\r\n\r\n",
                self.request("GET", "/v1/status", version=self.chance.choice(["9.9", "x", "", "1.1 1.1", "-1"])),
                b"GET /v1/status HTTP/1.1\r\nHost 127.0.0.1\r\n\r\n",
                b"GET /v1/status HTTP/1.1\r\n Host: 127.0.0.1\r\n\r\n",
            ]
        )


KINDS: dict[str, Make] = {
    name: getattr(Maker, name)
    for name in (
        *("bad_json", "huge_number", "deep_nesting", "odd_unicode", "content_type", "content_encoding"),
        *("content_length", "transfer_encoding", "odd_header", "odd_path", "odd_method", "odd_name", "bad_bundle"),
        "not_http",
    )
}


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def _json(**body: Any) -> bytes:
    return json.dumps(body).encode()


def _chat(model: str) -> bytes:
    return _json(model=model, messages=[{"role": "user", "content": "x"}])


def requests(count: int, seed: int, key: str) -> list[tuple[str, bytes]]:
    """As many of each kind, in a mixed order; the same for the same seed."""
    maker = Maker(random.Random(seed), key)
    names = [*KINDS] * (count // len(KINDS) + 1)
    made = [(name, KINDS[name](maker)) for name in names[:count]]
    maker.chance.shuffle(made)
    return made


async def answer_to(port: int, request: bytes) -> bytes:
    """What comes back, up to the end of the first answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return head + await reader.readexactly(int(line[15:]))
        return head  # a stream, which no malformed request is answered with
    finally:
        writer.close()


def fault_of(answer: bytes) -> str | None:
    """What is wrong with an answer to a malformed request."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    status = int(first.split(" ")[1])
    headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
    if not 400 <= status < 500:
        return f"the status is {status}"
    if headers.get("content-type") != "application/problem+json":
        return f"it is a {headers.get('content-type')}"
    problem = json.loads(body)
    if problem["status"] != status or not (problem["code"] and problem["detail"] and problem["title"]):
        return "the problem document is not whole"
    if status == 405 and not headers.get("allow"):
        return "it names no allowed method"
    return None if problem.get("next_step") else "it names no next step"


def test_the_same_seed_makes_the_same_requests() -> None:
    assert requests(200, 3, "k") == requests(200, 3, "k") != requests(200, 4, "k")
    assert {name for name, _ in requests(200, 3, "k")} == set(KINDS)


@pytest.fixture
def settings() -> dict[str, dict[str, Any]]:
    """Bodies that never come are not waited for; one that comes in two pieces has the time of a busy machine."""
    return {"http": {"body_timeout": 1.0}}


async def test_malformed_requests_are_answered_with_problems(platform: Any) -> None:
    anna = {"items": [{"definition": definition("anna")}]}
    assert (await platform.ask("POST", f"{TENANT}/apply", anna))[0] == 200
    port = int(platform.url.rpartition(":")[2])
    made = requests(REQUESTS, SEED, platform.key)
    waiting = iter(made)
    wrong: list[str] = []
    sent: Counter[str] = Counter()

    async def send() -> None:
        for name, request in waiting:
            try:
                async with asyncio.timeout(20):
                    answer = await answer_to(port, request)
                fault = fault_of(answer)
            except (OSError, EOFError, TimeoutError) as error:
                answer, fault = b"", f"no answer: {error!r}"
            sent[name] += 1
            if fault is not None:
                wrong.append(f"{name}: {fault}\n  {request[:400]!r}\n  {answer[-600:]!r}")

    await asyncio.gather(*(send() for _ in range(AT_ONCE)))

    assert not wrong, f"{len(wrong)} of {len(made)} (seed {SEED}):\n" + "\n".join(wrong[:40])
    assert sent.total() == REQUESTS
    for name, process in platform.processes.items():
        assert process.returncode is None, platform.log(name)
        assert '"level":"error"' not in platform.log(name), platform.log(name)
        assert '"level":"info"' in platform.log(name)
    status, _, told = await platform.ask("GET", "/v1/status")
    assert (status, told["agents"]) == (200, 1)
    assert (await platform.ask("GET", "/v1/models/agent/anna"))[0] == 200
    assert (await platform.ask("POST", f"{TENANT}/apply", anna))[2]["unchanged"] == 1
