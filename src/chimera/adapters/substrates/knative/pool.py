"""Pods as hosts: the gateway's `HostPool` on Knative.

Two watches, one of Knative Services and one of the EndpointSlices of their revisions, give every pod that takes calls.
The gateway calls the pod it chose through the pod's queue-proxy (the port that the slice names), so that Knative's
autoscaler counts the call as any other. While a new revision becomes ready, calls go to those that Knative gives
traffic, as they would through its ingress.

A sleeping cell is woken by one request to its Service: the activator holds it until a pod is ready, which is what makes
the autoscaler start one. The callers themselves wait in the gateway's bounded queue, so that waking costs one
connection whoever waits. docs/adr/0021 has the alternatives.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import aiohttp

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.objects import ENDPOINT_SLICES, KNATIVE_SERVICES, EndpointSlice, KnativeService
from chimera.adapters.substrates.knative.plan import troubles
from chimera.gateway.errors import CellUnavailable
from chimera.platform.model import CellSpec, Endpoint

log = logging.getLogger(__name__)

PORT = "http"
"""The port of queue-proxy in a revision's slices."""
POKE_PATH = "/readyz"
POKE_TIMEOUT = 30.0
POKE_AGAIN = 1.0
FIRST_SUSPICION, LONGEST_SUSPICION, FORGOTTEN = 1.0, 30.0, 60.0
"""A pod that failed gets no calls for a second, longer each time: its container starts again in a second or two, and a
node that is gone is noticed by the cluster much later. What is a minute old is forgotten."""

KeyOf = Callable[[str, str], str]
"""The key of a pod, from its name and its unique id."""


class _Suspicion(NamedTuple):
    until: float
    times: int


class KnativePool:
    """The hosts of all cells. Made inside the event loop; `run` it, `aclose` it when done."""

    def __init__(self, api: Kubernetes, *, namespace: str, key_of: KeyOf) -> None:
        """Follow the cells in `namespace`; `key_of` makes the key that a pod wants."""
        self._api = api
        self._key_of = key_of
        self._services: Following[KnativeService] = Following(
            api, KNATIVE_SERVICES, namespace=namespace, selector=names.managed()
        )
        self._slices: Following[EndpointSlice] = Following(
            api, ENDPOINT_SLICES, namespace=namespace, selector=f"{names.SERVICE_TYPE}=Private,{names.KNATIVE_SERVICE}"
        )
        self._services.on_change(self._services_changed)
        self._slices.on_change(self._slices_changed)
        self._endpoints: dict[str, list[Endpoint]] = {}
        self._service_of: dict[str, str] = {}
        self._suspects: dict[str, _Suspicion] = {}
        self._changed: Callable[[str], None] = lambda _: None
        self._news = asyncio.Event()
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=POKE_TIMEOUT, sock_connect=5.0)
        )

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with each cell whose hosts changed."""
        self._changed = callback

    # -- HostPool ----------------------------------------------------------------------------------------------------

    def endpoints(self, cell: str) -> Sequence[Endpoint]:
        """See `HostPool`."""
        return self._endpoints.get(cell, ())

    async def wake(self, cell: CellSpec, within: float) -> Sequence[Endpoint]:
        """See `HostPool`."""
        poking = asyncio.create_task(self._poke(cell), name=f"poke-{cell.cell}")
        try:
            async with asyncio.timeout(within):
                while not (found := self.endpoints(cell.cell)):
                    if (why := self._why_none(cell)) is not None:
                        raise why
                    await self._until_news(POKE_AGAIN)
                return found
        except TimeoutError:
            raise CellUnavailable(
                f"no pod of cell {cell.cell} was ready after {within:.0f} s",
                next_step="see `chimera status` and the pods' events in the namespace of cells",
                retry_after=5,
            ) from None
        finally:
            poking.cancel()
            await asyncio.gather(poking, return_exceptions=True)

    async def report(self, host: str, *, kind: str, agent: str, call: str) -> None:
        """A pod that failed gets no calls for a while; what became of it the cluster sees by itself."""
        log.warning("host reported", extra={"host": host, "kind": kind, "agent": agent, "call": call})
        if kind not in ("unreachable", "crashed"):
            return
        loop = asyncio.get_running_loop()
        times = self._suspects[host].times + 1 if host in self._suspects else 1
        pause = min(LONGEST_SUSPICION, FIRST_SUSPICION * 2.0 ** (times - 1))
        self._suspects[host] = _Suspicion(until=loop.time() + pause, times=times)
        self._refresh_all()
        loop.call_later(pause + 0.01, self._refresh_all)

    def observe(self, cell: str, in_flight: int) -> None:
        """Nothing: queue-proxy counts."""

    # -- loops -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._services.run(), name="knative-services")
            group.create_task(self._slices.run(), name="endpoint-slices")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()
        await self._api.aclose()

    async def _poke(self, cell: CellSpec) -> None:
        """Ask the cell's Service until it answers: the activator holds the request until a pod is there."""
        while True:
            url = self._address(cell)
            if url is not None:
                try:
                    async with self._session.get(url + POKE_PATH) as answer:
                        await answer.read()
                except (aiohttp.ClientError, OSError) as error:
                    log.info("a cell did not wake yet", extra={"cell": cell.cell, "error": repr(error)})
            await asyncio.sleep(POKE_AGAIN)

    def _address(self, cell: CellSpec) -> str | None:
        service = self._service(cell)
        if service is None or service.status.address is None or service.status.address.url is None:
            return None
        return service.status.address.url.rstrip("/")

    def _service(self, cell: CellSpec) -> KnativeService | None:
        name = names.service_name(cell.cell, cell.runtime_class.framework)
        return next((one for one in self._services.objects.values() if one.metadata.name == name), None)

    def _why_none(self, cell: CellSpec) -> CellUnavailable | None:
        service = self._service(cell)
        if service is None or service.status.observed_generation != service.metadata.generation:
            return None
        found = troubles((one.type, one.status, one.reason, one.message) for one in service.status.conditions)
        if found is None:
            return None
        cause, step = found
        return CellUnavailable(f"cell {cell.cell} can't start: {cause}", next_step=step, retry_after=5)

    async def _until_news(self, most: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(most):
                await self._news.wait()

    # -- from objects to endpoints ------------------------------------------------------------------------------------

    def _services_changed(self, changed: Iterable[KnativeService]) -> None:
        self._refresh({item.metadata.name for item in changed})

    def _slices_changed(self, changed: Iterable[EndpointSlice]) -> None:
        self._refresh({item.metadata.labels.get(names.KNATIVE_SERVICE, "") for item in changed})

    def _refresh_all(self) -> None:
        self._refresh({item.metadata.name for item in self._services.objects.values()})

    def _refresh(self, services: set[str]) -> None:
        now = asyncio.get_running_loop().time()
        self._suspects = {host: one for host, one in self._suspects.items() if one.until + FORGOTTEN > now}
        by_name = {item.metadata.name: item for item in self._services.objects.values()}
        for name in services:
            service = by_name.get(name)
            cell = self._service_of.get(name) if service is None else service.metadata.annotations.get(names.CELL)
            if cell is None:
                continue
            found = [] if service is None else self._hosts(service, cell)
            if service is None:
                self._service_of.pop(name, None)
            else:
                self._service_of[name] = cell
            if found != self._endpoints.get(cell, []):
                self._endpoints[cell] = found
                self._changed(cell)
        self._news.set()  # whoever waits looks again, at a state that may be any other than when it began to wait
        self._news = asyncio.Event()

    def _hosts(self, service: KnativeService, cell: str) -> list[Endpoint]:
        """The ready pods of the revisions that have traffic, each once, by name."""
        now = asyncio.get_running_loop().time()
        serving = {part.revision_name for part in service.status.traffic if part.percent}
        found: dict[str, Endpoint] = {}
        for item in self._slices.objects.values():
            labels = item.metadata.labels
            if labels.get(names.KNATIVE_SERVICE) != service.metadata.name:
                continue
            if labels.get(names.KNATIVE_REVISION) not in serving:
                continue
            port = next((one.port for one in item.ports or () if one.name == PORT and one.port), None)
            for endpoint in item.endpoints or ():
                pod = endpoint.target_ref
                if port is None or pod is None or not endpoint.addresses or endpoint.conditions.ready is False:
                    continue
                if pod.name not in self._suspects or self._suspects[pod.name].until <= now:
                    url = f"http://{_shown(endpoint.addresses[0])}:{port}"
                    key = self._key_of(pod.name, pod.uid)
                    found[pod.name] = Endpoint(host=pod.name, cell=cell, url=url, key=key)
        return [found[name] for name in sorted(found)]


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address
