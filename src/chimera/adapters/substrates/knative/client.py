"""A client of the Kubernetes API: list, watch, server-side apply, delete, and nothing that isn't used.

One pool of connections; JSON by msgspec, straight into the types of `objects`. It holds no state and retries nothing,
but a request whose token isn't taken any more: who asks knows whether to ask again (`following`, `reconciler`).
docs/adr/0020 says why it is Chimera's own.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from chimera.adapters.substrates.knative.access import ClusterAccess
from chimera.adapters.substrates.knative.errors import ClusterAway, ClusterThrottled, NotInCluster
from chimera.adapters.substrates.knative.objects import PODS, Meta, Resource
from chimera.adapters.substrates.knative.refusals import RETRY_AFTER, code_of, refusal

PAGE = 500
REQUEST_TIMEOUT = 30.0
PATIENCE = 60.0
"""For how long those ask again who do something once, such as an installer."""
LEAST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
WATCH_SECONDS = 300
WATCH_SILENCE = WATCH_SECONDS + 30.0
LOG_SILENCE = 20.0
"""Longest wait for more of a log that is read and not followed: a node that is gone may say nothing for longer."""
MAX_OBJECT = 4 * 1024**2
FIELD_MANAGER = "chimera"
APPLY = "application/apply-patch+yaml"  # which takes JSON, being YAML

T = TypeVar("T")


class _ListMeta(Struct, frozen=True, kw_only=True, rename="camel"):
    resource_version: str = ""
    # Empty on the last page; a list that is read from a cache leaves it out.
    next: str = msgspec.field(default="", name="continue")


class _List(Struct, frozen=True, kw_only=True):
    metadata: _ListMeta = _ListMeta()
    items: list[msgspec.Raw] | None = None


class _Event(Struct, frozen=True, kw_only=True):
    type: str
    object: msgspec.Raw


class _OnlyMeta(Struct, frozen=True, kw_only=True):
    metadata: Meta = Meta()


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """All objects at one version."""

    items: list[T]
    version: str


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One event of a watch: an object as it is now (None for a bookmark), whether it is gone, and the version."""

    version: str
    item: T | None = None
    gone: bool = False


_encode = msgspec.json.Encoder().encode
_lists = msgspec.json.Decoder(_List)
_events = msgspec.json.Decoder(_Event)
_metas = msgspec.json.Decoder(_OnlyMeta)


class Kubernetes:
    """A client of one cluster. Made inside the event loop; `aclose` when done."""

    def __init__(self, access: ClusterAccess, wall: Callable[[], float] = time.time, *, patience: float = 0.0) -> None:
        """Open no connection yet. `wall` is this machine's clock, which the server's is compared with.

        A request that the server throttles (429), as it does while it makes room for a kind that has just come, is made
        again for `patience` seconds: such a one has done nothing. Loops have pauses of their own, and none of it.
        """
        self._access = access
        self._wall = wall
        self._patience = patience
        self.skew = 0.0
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=32, ssl=access.tls if access.tls is not None else True),
            headers={"User-Agent": "chimera", "Accept": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0),
            read_bufsize=MAX_OBJECT,
        )

    @property
    def namespace(self) -> str:
        """The namespace that is meant where none is named."""
        return self._access.namespace

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def list(
        self, resource: Resource[T], namespace: str | None, selector: str = "", *, name: str | None = None
    ) -> Listing[T]:
        """All objects of a kind whose labels match (or the one called `name`), read in pages."""
        decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(resource.type)
        parameters = {"limit": str(PAGE), **_chosen(selector, name)}
        items: list[T] = []
        while True:
            page = _lists.decode(await self._request("GET", resource.path(namespace), parameters))
            items.extend(decoder.decode(raw) for raw in page.items or ())
            if not page.metadata.next:
                return Listing(items, page.metadata.resource_version)
            parameters["continue"] = page.metadata.next

    async def watch(
        self, resource: Resource[T], namespace: str | None, selector: str, version: str, *, name: str | None = None
    ) -> AsyncIterator[Change[T]]:
        """Changes after `version`, until the server ends the watch; raises `WatchExpired` where that is too old.

        The first is `version` itself, as a bookmark: the server watches from there. A quiet one says nothing else.
        """
        decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(resource.type)
        parameters = {
            **{"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"},
            **{"timeoutSeconds": str(WATCH_SECONDS), **_chosen(selector, name)},
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=WATCH_SILENCE)
        try:
            headers = await self._headers()
            async with self._session.get(
                self._access.server + resource.path(namespace),
                params=parameters,
                headers=headers,
                timeout=timeout,
                server_hostname=self._access.server_name,
            ) as answer:
                if answer.status != 200:
                    self._renews(answer.status, headers)
                    raise refusal(answer.status, answer.headers, await answer.read(), f"watching {resource.plural}")
                self._look_at_clock(answer.headers)
                yield Change(version)
                async for line in answer.content:
                    if line.strip():
                        yield _change(decoder, line)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._away(error) from error

    async def log(self, namespace: str, pod: str, options: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The lines of a container's log, by the API's own options, until it ends.

        What there is comes at once. Who follows may wait for ever: a quiet container answers with its next line.
        """
        path = PODS.path(namespace, pod) + "/log"
        silence = None if options.get("follow") == "true" else LOG_SILENCE
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=silence)
        try:
            headers = await self._headers()
            async with self._session.get(
                self._access.server + path,
                params=options,
                headers=headers,
                timeout=timeout,
                server_hostname=self._access.server_name,
            ) as answer:
                if answer.status != 200:
                    self._renews(answer.status, headers)
                    raise refusal(answer.status, answer.headers, await answer.read(), f"GET {path}")
                async for line in answer.content:
                    yield line
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._away(error) from error

    async def get(self, resource: Resource[T], namespace: str | None, name: str) -> T:
        """One object."""
        return msgspec.json.decode(await self._request("GET", resource.path(namespace, name)), type=resource.type)

    async def apply(
        self,
        resource: Resource[T],
        manifest: Mapping[str, Any],
        *,
        force: bool = False,
        dry_run: bool = False,
        manager: str | None = None,
        part: str = "",
    ) -> T:
        """Apply a manifest on the server's side as `manager` (`chimera`); `force` takes fields from others.

        `part` is the subresource that is meant, such as `status`.
        """
        metadata = manifest["metadata"]
        as_whom = manager or FIELD_MANAGER
        parameters = {"fieldManager": as_whom, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            parameters["dryRun"] = "All"
        path = resource.path(metadata.get("namespace"), metadata["name"]) + (f"/{part}" if part else "")
        data = await self._request("PATCH", path, parameters, _encode(manifest), APPLY)
        return msgspec.json.decode(data, type=resource.type)

    async def create(self, path: str, manifest: Mapping[str, Any]) -> bytes:
        """Post an object that isn't kept, such as a TokenReview; the answer as it came."""
        return await self._request("POST", path, None, _encode(manifest), "application/json")

    async def delete(
        self, resource: Resource[Any], namespace: str | None, name: str, *, uid: str | None = None
    ) -> bool:
        """Delete the object, if it is still the one with `uid`; False where it was gone already."""
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._request("DELETE", resource.path(namespace, name), None, _encode(options), "application/json")
        except NotInCluster:
            return False
        return True

    def _look_at_clock(self, headers: Mapping[str, str]) -> None:
        """How far the server's clock is ahead, in seconds: its answers say when they were made."""
        with suppress(ValueError):
            self.skew = parsedate_to_datetime(headers.get("Date", "")).timestamp() - self._wall()

    async def _headers(self, media_type: str | None = None) -> dict[str, str]:
        headers = {"Content-Type": media_type} if media_type is not None else {}
        if (shown := await self._access.credentials.header()) is not None:
            headers["Authorization"] = shown
        return headers

    def _renews(self, status: int, headers: Mapping[str, str]) -> bool:
        """Whether an answer is no to a token in place of which another one may be had."""
        shown = headers.get("Authorization")
        return status == 401 and shown is not None and self._access.credentials.refused(shown)

    async def _request(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        body: bytes | None = None,
        media_type: str | None = None,
    ) -> bytes:
        until = asyncio.get_running_loop().time() + self._patience
        while True:
            try:
                return await self._ask(method, path, parameters, body, media_type)
            except ClusterThrottled as error:
                pause = min(max(error.retry_after or 0.0, LEAST_PAUSE), LONGEST_PAUSE)
                if asyncio.get_running_loop().time() + pause >= until:
                    raise
                await asyncio.sleep(pause)

    async def _ask(
        self, method: str, path: str, parameters: Mapping[str, str] | None, body: bytes | None, media_type: str | None
    ) -> bytes:
        for again in (True, False):
            try:
                headers = await self._headers(media_type)
                async with self._session.request(
                    method,
                    self._access.server + path,
                    params=parameters,
                    data=body,
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=10.0),
                    server_hostname=self._access.server_name,
                ) as answer:
                    data = await answer.read()
            except (aiohttp.ClientError, OSError) as error:  # OSError covers the time-out
                raise self._away(error) from error
            self._look_at_clock(answer.headers)
            if not (self._renews(answer.status, headers) and again):
                break
        if answer.status >= 400:
            raise refusal(answer.status, answer.headers, data, f"{method} {path}")
        return data

    def _away(self, error: BaseException) -> ClusterAway:
        return ClusterAway(
            f"the API server at {self._access.server} does not answer ({type(error).__name__}: {error})",
            next_step="see whether the cluster is there (`kubectl get --raw /readyz`); running hosts go on",
            retry_after=RETRY_AFTER,
        )


def _chosen(selector: str, name: str | None) -> dict[str, str]:
    """One object by its name is asked for so that a right to that name is enough."""
    found = {"labelSelector": selector} if selector else {}
    return found if name is None else {**found, "fieldSelector": f"metadata.name={name}"}


def _change(decoder: "msgspec.json.Decoder[T]", line: bytes) -> Change[T]:
    event = _events.decode(line)
    if event.type == "ERROR":
        raise refusal(code_of(event.object), {}, bytes(event.object), "a watch")
    version = _metas.decode(event.object).metadata.resource_version
    if event.type == "BOOKMARK":
        return Change(version)
    return Change(version, decoder.decode(event.object), gone=event.type == "DELETED")
