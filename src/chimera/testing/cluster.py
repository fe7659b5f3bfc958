"""A Kubernetes API server in memory: list in pages, watch with bookmarks, server-side apply, delete, and faults.

It keeps any kind of object by its path and knows nothing of what they mean; a test plays the controllers by `put`. What
it takes from the real server is what clients stand on: one version for all objects that grows with each change, a watch
from a version, 410 for a version that is forgotten, owners of fields, preconditions, and a generation that grows when
anything but metadata and status changes. The same contract tests run on it and on a real one
(`tests/contract/cluster`). Not here: validation, admission, garbage collection, subresources other than `status`,
`log` and `portforward`.
"""

import asyncio
import copy
import re
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from typing import Any, Self
from uuid import uuid4

import msgspec
from aiohttp import web

from chimera.testing.applying import differences, managed_fields, merge, remove

Json = dict[str, Any]
Fault = Callable[[web.BaseRequest], web.StreamResponse | None]
"""Looks at a request and answers it in place of the server, or lets it pass (None)."""

_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>[^/]+))?"
)
KEPT_CHANGES = 1_000
METRICS = "metrics.k8s.io"
VERBS = {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}


class _Kept:
    """An object, and what each field manager applied to it."""

    def __init__(self, value: Json) -> None:
        self.value = value
        self.applied: dict[str, Json] = {}
        self.foreign = False


class FakeCluster:
    """Use as an asynchronous context manager; `url` is its address.

    `calls` counts requests by method and plural (a watch as `WATCH`), `verbs` are what was asked for as roles say it:
    namespace, resource, verb. `ports` are where on this machine a pod's port is served. `faults` are asked in order,
    the first answer is given. Times of a log are told in `zone`, as by a node whose clock shows it. What pods use
    (`metrics.k8s.io`) is kept as `pods.metrics.k8s.io`, and unknown to the server while it `measures` nothing.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """An empty cluster; with `tls` it is reached by that alone."""
        self._tls = tls
        self.calls: Counter[tuple[str, str]] = Counter()
        self.verbs: set[tuple[str, str, str]] = set()
        self.faults: list[Fault] = []
        self.measures = False
        self.zone: tzinfo = UTC
        self.reviews: dict[str, Json] = {}
        self.url = ""
        self._logs: dict[tuple[str, str, str, bool], list[tuple[str, str]]] = {}
        self._log_lines = 0
        self.ports: dict[tuple[str, int], int] = {}
        self._version = 100
        self._oldest = 100
        self._kept: dict[tuple[str, str, str], _Kept] = {}
        self._changes: list[tuple[int, str, str, str, Json]] = []
        self._news = asyncio.Condition()
        self._runner: web.ServerRunner | None = None
        self._watching: set[asyncio.Transport] = set()

    async def __aenter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._runner = web.ServerRunner(
            web.Server(self._handle, access_log=None, handler_cancellation=True), shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    # -- what a test does --------------------------------------------------------------------------------------------

    def writes(self) -> int:
        """Requests so far that could change something."""
        return sum(count for (method, _), count in self.calls.items() if method in ("POST", "PATCH", "PUT", "DELETE"))

    async def put(self, plural: str, value: Json) -> Json:
        """Make or replace an object as a controller or a person would, its status included; the stored object."""
        return await self._store(plural, copy.deepcopy(value), applied=None)

    def object(self, plural: str, namespace: str, name: str) -> Json | None:
        """An object as it is kept."""
        kept = self._kept.get((plural, namespace, name))
        return None if kept is None else copy.deepcopy(kept.value)

    def objects(self, plural: str, chosen: Callable[[Json], bool] = lambda _: True) -> list[Json]:
        """All objects of a kind, or those that are chosen, by namespace and name."""
        found = [kept.value for (kind, _, _), kept in sorted(self._kept.items(), key=_key) if kind == plural]
        return [copy.deepcopy(value) for value in found if chosen(value)]

    async def remove(self, plural: str, namespace: str, name: str) -> None:
        """Take an object away."""
        kept = self._kept.pop((plural, namespace, name))
        await self._note("DELETED", plural, kept.value)

    async def log(self, namespace: str, pod: str, container: str, *lines: str, previous: bool = False) -> None:
        """Let a container write lines, each a millisecond after the one before, whoever wrote that."""
        for line in lines:
            self._log_lines += 1
            seconds, thousandths = divmod(self._log_lines, 1_000)
            at = f"2026-01-02T03:04:{seconds % 60:02}.{thousandths:03}000000Z"
            self._logs.setdefault((namespace, pod, container, previous), []).append((at, line))
        async with self._news:
            self._news.notify_all()

    @property
    def version(self) -> int:
        """Grows with each change of anything."""
        return self._version

    async def news(self, after: int) -> None:
        """Wait until the version is above `after`."""
        await self._news_after(after)

    def forget(self) -> None:
        """Forget all history: a watch from any older version is answered 410."""
        self._oldest = self._version + 1
        self._version += 1
        self._changes.clear()

    def cut_watches(self) -> None:
        """Break every watch as a restarting server does."""
        for transport in tuple(self._watching):
            transport.abort()

    # -- the server ----------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        found = _PATH.fullmatch(request.path)
        if found is None:
            return _status(404, "NotFound", f"no such path {request.path}")
        plural, namespace, name = found["plural"], found["namespace"] or "", found["name"]
        plural = f"{plural}.{METRICS}" if found["group"] == METRICS else plural
        watching = request.query.get("watch") in ("1", "true")
        kind = f"{plural}/{found['sub']}" if found["sub"] else plural
        self.calls["WATCH" if watching else request.method, kind] += 1
        reading = "watch" if watching else "get" if name is not None else "list"
        self.verbs.add((namespace, kind, VERBS.get(request.method, reading)))
        for fault in (*self.faults, self._unmeasured):
            if (answer := fault(request)) is not None:
                return answer
        if request.method == "GET" and watching:
            return await self._watch(request, plural, namespace)
        if request.method == "GET" and name is not None and found["sub"] == "log":
            return await self._show_log(request, namespace, name)
        if request.method == "GET" and name is not None and found["sub"] == "portforward":
            return await self._forward(request, namespace, name)
        if request.method == "GET" and name is None:
            return self._list(request, plural, namespace)
        if request.method == "GET":
            kept = self._kept.get((plural, namespace, name))
            return _absent(plural, name) if kept is None else _json(kept.value)
        if request.method == "PATCH" and name is not None:
            return await self._apply(request, plural, namespace, name)
        if request.method == "DELETE" and name is not None:
            return await self._delete(request, plural, namespace, name)
        if request.method == "POST" and plural == "tokenreviews":
            return self._review(msgspec.json.decode(await request.read()))
        return _status(405, "MethodNotAllowed", f"{request.method} is not served")

    def _unmeasured(self, request: web.BaseRequest) -> web.Response | None:
        unknown = request.path.startswith(f"/apis/{METRICS}/") and not self.measures
        return _status(404, "NotFound", "the server could not find the requested resource") if unknown else None

    def _list(self, request: web.BaseRequest, plural: str, namespace: str) -> web.Response:
        wanted = _chosen(request)
        found = [
            kept.value
            for (kind, where, _), kept in sorted(self._kept.items())
            if kind == plural and namespace in ("", where) and wanted(kept.value)
        ]
        begin, limit = int(request.query.get("continue", "0")), int(request.query.get("limit", "0"))
        page = found[begin : begin + limit] if limit else found
        meta = {"resourceVersion": str(self._version)}
        if limit and begin + limit < len(found):
            meta["continue"] = str(begin + limit)
        return _json({"kind": "List", "metadata": meta, "items": page})

    async def _watch(self, request: web.BaseRequest, plural: str, namespace: str) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self._oldest:
            return _status(410, "Expired", f"too old resource version: {since} ({self._oldest})")
        wanted = _chosen(request)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            return response
        self._watching.add(transport)
        try:
            async with asyncio.timeout(float(request.query.get("timeoutSeconds", "300"))):
                while True:
                    upto = self._version
                    for version, event, kind, where, value in tuple(self._changes):
                        if since < version <= upto and kind == plural and namespace in ("", where) and wanted(value):
                            await response.write(msgspec.json.encode({"type": event, "object": value}) + b"\n")
                    if since < upto and request.query.get("allowWatchBookmarks") == "true":
                        mark = {"metadata": {"resourceVersion": str(upto)}}
                        await response.write(msgspec.json.encode({"type": "BOOKMARK", "object": mark}) + b"\n")
                    since = upto
                    await self._news_after(upto)
        except (TimeoutError, ConnectionError):
            return response
        finally:
            self._watching.discard(transport)

    async def _show_log(self, request: web.BaseRequest, namespace: str, pod: str) -> web.StreamResponse:
        query = request.query
        if ("pods", namespace, pod) not in self._kept:
            return _absent("pods", pod)
        key = (namespace, pod, query.get("container", ""), query.get("previous") == "true")
        if key not in self._logs:
            return _status(400, "BadRequest", f'container "{key[2]}" in pod "{pod}" is waiting to start')
        since = query.get("sinceTime", "")
        if since and not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", since):
            return _status(400, "BadRequest", f"invalid sinceTime {since}")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        shown = [(at, line) for at, line in self._logs[key] if at >= since.removesuffix("Z")]
        shown = shown[-int(query["tailLines"]) :] if "tailLines" in query else shown
        upto = len(self._logs[key])
        while True:
            for at, line in shown:
                told = f"{_in_zone(at, self.zone)} " if query.get("timestamps") else ""
                await response.write(f"{told}{line}\n".encode())
            if query.get("follow") != "true" or ("pods", namespace, pod) not in self._kept:
                return response
            async with self._news:
                while len(self._logs[key]) == upto:
                    await self._news.wait()
            shown, upto = self._logs[key][upto:], len(self._logs[key])

    async def _forward(self, request: web.BaseRequest, namespace: str, pod: str) -> web.StreamResponse:
        if ("pods", namespace, pod) not in self._kept:
            return _absent("pods", pod)
        port = int(request.query["ports"])
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        for channel in (0, 1):  # each begins with its port, low byte first
            await socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[pod, port])
        except (KeyError, OSError):
            await socket.send_bytes(b"\x01" + f"nothing listens at {port}".encode())
            await socket.close()
            return socket

        async def back() -> None:
            while piece := await reader.read(65_536):
                await socket.send_bytes(b"\x00" + piece)
            await socket.close()

        backwards = asyncio.create_task(back(), name="forward-back")
        try:
            async for message in socket:
                writer.write(message.data[1:])
        finally:
            writer.close()
            backwards.cancel()
            await asyncio.gather(backwards, return_exceptions=True)
            with suppress(ConnectionError):
                await writer.wait_closed()
        return socket

    async def _news_after(self, version: int) -> None:
        async with self._news:
            await self._news.wait_for(lambda: self._version > version)

    async def _apply(self, request: web.BaseRequest, plural: str, namespace: str, name: str) -> web.Response:
        if not request.headers.get("Content-Type", "").startswith("application/apply-patch"):
            return _status(415, "UnsupportedMediaType", "only server-side apply is served")
        if request.path.endswith(f"/{name}/status"):
            return await self._apply_status(request, plural, namespace, name)
        wanted: Json = msgspec.json.decode(await request.read())
        uid = wanted["metadata"].pop("uid", None)
        manager = request.query["fieldManager"]
        kept = self._kept.get((plural, namespace, name))
        if uid is not None and (kept is None or kept.value["metadata"]["uid"] != uid):
            return _status(409, "Conflict", "uid mismatch: the object is gone, or another of that name")
        before = kept.applied.get(manager, {}) if kept is not None else {}
        value: Json = copy.deepcopy(kept.value) if kept is not None else {}
        others = [applied for owner, applied in kept.applied.items() if owner != manager] if kept else []
        taken = [path for other in others for path in differences(other, wanted)]
        if taken and request.query.get("force") != "true":
            fields = ", ".join(".".join(path) for path in taken)
            return _status(409, "Conflict", f"Apply failed with {len(taken)} conflicts: {fields}")
        remove(value, before, wanted, others)
        merge(value, wanted)
        value.setdefault("metadata", {}).update(name=name, **({"namespace": namespace} if namespace else {}))
        if request.query.get("dryRun") == "All":
            return _json(value)
        stored = await self._store(plural, value, applied=(manager, wanted))
        return _json(stored, 201 if kept is None else 200)

    async def _apply_status(self, request: web.BaseRequest, plural: str, namespace: str, name: str) -> web.Response:
        """Nothing but the status is taken, of an object that is there; a kind of Kubernetes wants the one meant."""
        kept = self._kept.get((plural, namespace, name))
        if kept is None:
            return _absent(plural, name)
        told: Json = msgspec.json.decode(await request.read())
        uid = told["metadata"].get("uid")
        built_in = not request.path.startswith("/apis/chimera.ecosystem/")  # of a custom resource it is not looked at
        if built_in and uid is not None and uid != kept.value["metadata"]["uid"]:
            return _status(422, "Invalid", f"metadata.uid: Invalid value: {uid!r}: field is immutable")
        manager = f"{request.query['fieldManager']}/status"
        wanted = {"status": told.get("status", {})}
        value = copy.deepcopy(kept.value)
        remove(value, kept.applied.get(manager, {}), wanted, [])
        merge(value, wanted)
        return _json(await self._store(plural, value, applied=(manager, wanted)))

    async def _delete(self, request: web.BaseRequest, plural: str, namespace: str, name: str) -> web.Response:
        kept = self._kept.get((plural, namespace, name))
        if kept is None:
            return _absent(plural, name)
        options = msgspec.json.decode(await request.read() or b"{}")
        uid = options.get("preconditions", {}).get("uid")
        if uid is not None and uid != kept.value["metadata"]["uid"]:
            return _status(409, "Conflict", "the UID in the precondition does not match")
        await self.remove(plural, namespace, name)
        return _json({"kind": "Status", "status": "Success"})

    def _review(self, asked: Json) -> web.Response:
        """A token that a test put into `reviews` is good, for the audiences that are given there."""
        known = self.reviews.get(asked["spec"]["token"])
        audiences = set(asked["spec"].get("audiences") or ())
        good = known is not None and audiences & set(known.get("audiences", ()))
        status = {"authenticated": True, **(known or {})} if good else {"error": "[invalid bearer token]"}
        return _json({**asked, "status": status}, 201)

    async def _store(self, plural: str, value: Json, *, applied: tuple[str, Json] | None) -> Json:
        meta = value.setdefault("metadata", {})
        key = (plural, meta.get("namespace", ""), meta["name"])
        kept = self._kept.get(key)
        meta.setdefault("uid", str(uuid4()))
        foreign = kept is not None and applied is None and bool(kept.applied) and _spec(kept.value) != _spec(value)
        foreign = foreign or (kept is not None and applied is None and kept.foreign)
        owners = {} if kept is None else dict(kept.applied)
        if applied is not None:
            owners[applied[0]] = applied[1]
        meta["managedFields"] = managed_fields(owners, foreign=foreign)
        if kept is not None and {**value, "metadata": 0} == {**kept.value, "metadata": 0} and _same(kept.value, value):
            kept.applied = owners
            return copy.deepcopy(kept.value)
        changed = kept is None or _spec(kept.value) != _spec(value)
        meta["generation"] = (kept.value["metadata"]["generation"] if kept else 0) + (1 if changed else 0)
        self._version += 1
        meta["resourceVersion"] = str(self._version)
        entry = self._kept[key] = _Kept(value)
        entry.applied, entry.foreign = owners, foreign
        await self._note("ADDED" if kept is None else "MODIFIED", plural, value, version=self._version)
        return copy.deepcopy(value)

    async def _note(self, event: str, plural: str, value: Json, *, version: int | None = None) -> None:
        if version is None:
            self._version += 1
            version = self._version
            value = {**value, "metadata": {**value["metadata"], "resourceVersion": str(version)}}
        self._changes.append((version, event, plural, value["metadata"].get("namespace", ""), copy.deepcopy(value)))
        if len(self._changes) > KEPT_CHANGES:
            self._oldest = self._changes.pop(0)[0]
        async with self._news:
            self._news.notify_all()


def _key(entry: tuple[tuple[str, str, str], _Kept]) -> tuple[str, str, str]:
    return entry[0]


def _in_zone(at: str, zone: tzinfo) -> str:
    """A time of a log as a kubelet writes it: nine digits, and `Z` or how far the node's clock is from it."""
    moved = datetime.fromisoformat(at).astimezone(zone).isoformat(timespec="seconds")
    offset = moved[19:]
    return f"{moved[:19]}{at[19:-1]}{'Z' if offset == '+00:00' else offset}"


def _spec(value: Json) -> Json:
    return {name: part for name, part in value.items() if name not in ("metadata", "status")}


def _same(one: Json, other: Json) -> bool:
    ignored = ("resourceVersion", "generation")
    left, right = ({k: v for k, v in value["metadata"].items() if k not in ignored} for value in (one, other))
    return left == right


def _chosen(request: web.BaseRequest) -> Callable[[Json], bool]:
    """What the labels choose, and of fields the name alone (`metadata.name=x`)."""
    by_label = _selector(request.query.get("labelSelector", ""))
    name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
    return lambda value: by_label(value) and name in ("", value["metadata"]["name"])


def _selector(text: str) -> Callable[[Json], bool]:
    """`a=b`, `a` (is there) and `a!=b`, joined by commas."""
    terms = [term.strip() for term in text.split(",") if term.strip()]

    def matches(value: Json) -> bool:
        labels = value["metadata"].get("labels") or {}
        for term in terms:
            name, unequal, wanted = term.partition("!=")
            if not unequal:
                name, equal, wanted = term.partition("=")
                if (labels.get(name) != wanted) if equal else (name not in labels):
                    return False
            elif labels.get(name) == wanted:
                return False
        return True

    return matches


def refusal(code: int, reason: str, message: str, **headers: str) -> Fault:
    """A fault that answers every request so."""
    return lambda _: _status(code, reason, message, **headers)


def _absent(plural: str, name: str) -> web.Response:
    return _status(404, "NotFound", f'{plural} "{name}" not found')


def _json(value: Json, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")


def _status(code: int, reason: str, message: str, **headers: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.Response(
        status=code, body=msgspec.json.encode(body), headers={"Content-Type": "application/json", **named}
    )
