"""Pods as hosts: the gateway's `HostPool` on Knative.

Two watches, one of Knative Services and one of the EndpointSlices of their revisions, give every pod that takes calls.
The gateway calls the pod it chose through the pod's queue-proxy (the port that the slice names), so that Knative's
autoscaler counts the call as any other. While revisions change over, calls go to each by the share of traffic that
Knative gives it, as they would through its ingress.

A sleeping cell is woken by one request to its Service: the activator holds it until a pod is ready, which is what makes
the autoscaler start one. The callers themselves wait in the gateway's bounded queue, so that waking costs one
connection whoever waits. docs/adr/0021 has the alternatives.

A pod that broke a call gets no other until it was looked at: until its host, asked through queue-proxy as the kubelet
asks, says that it is ready. The cluster notices by itself what became of it, later.
"""

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import aiohttp
import msgspec

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.objects import (
    ENDPOINT_SLICES,
    KNATIVE_SERVICES,
    EndpointSlice,
    KnativeService,
    SliceEndpoint,
)
from chimera.adapters.substrates.knative.plan import troubles
from chimera.adapters.substrates.knative.pods import BrokenCall
from chimera.gateway.errors import CellUnavailable
from chimera.kernel.clock import Clock
from chimera.platform.conditions import Condition, why_not
from chimera.platform.model import BROKEN, CellSpec, Endpoint
from chimera.platform.reasons import MEANINGS
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

PORT = "http"
"""The port of queue-proxy in a revision's slices."""
POKE_PATH = "/readyz"
POKE_TIMEOUT = 30.0
POKE_AGAIN, LONGEST_POKE_AGAIN = 1.0, 8.0
LOOK_PATH, LOOK_TIMEOUT = "/readyz", 5.0
AS_KUBELET = {"User-Agent": "kube-probe/chimera", "K-Network-Probe": "queue"}
"""With these headers queue-proxy asks its container's own readiness probe and counts no call."""
FIRST_LOOK, LONGEST_LOOK = 0.2, 10.0
"""Seconds between two looks at a pod that failed: its container starts again in a second or two, and of a node that is
gone the cluster takes a minute to say so."""

LONGEST_WARMING = 15.0
KEPT_BROKEN = 200

KeyOf = Callable[[str, str], str]
"""The key of a pod, from its name and its unique id."""
Warmer = Callable[[str, Sequence[Endpoint], Sequence[Endpoint]], Awaitable[object]]
"""Loads on the second hosts of a cell what its first ones have loaded."""
ConditionsOf = Callable[[str], Awaitable[Sequence[Condition]]]
"""What is known of a cell's trouble now; nothing where nobody looks after it."""


async def nothing_known(_: str) -> Sequence[Condition]:
    """No conditions."""
    return ()


class KnativePool:
    """The hosts of all cells. Made inside the event loop; `run` it, `aclose` it when done."""

    def __init__(
        self,
        api: Kubernetes,
        clock: Clock,
        *,
        namespace: str,
        key_of: KeyOf,
        conditions: ConditionsOf = nothing_known,
    ) -> None:
        """Follow the cells in `namespace`; `key_of` makes the key that a pod wants.

        `conditions` says why a cell doesn't come, to who waits for it.
        """
        self._conditions = conditions
        self._pokes: dict[str, asyncio.Task[None]] = {}
        self._api = api
        self._clock = clock
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
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._warm: dict[str, set[str]] = {}
        self._warming: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._warmer: Warmer | None = None
        self._changed: Callable[[str], None] = lambda _: None
        self.waiting: Counter[str] = Counter()
        self.broken: deque[BrokenCall] = deque(maxlen=KEPT_BROKEN)
        self._news = asyncio.Event()
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=POKE_TIMEOUT, sock_connect=5.0)
        )

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with each cell whose hosts changed."""
        self._changed = callback

    def on_new_side(self, warmer: Warmer) -> None:
        """Have `warmer` load on a cell's new revision what the one that serves has, before calls go there."""
        self._warmer = warmer

    def services(self) -> Sequence[KnativeService]:
        """The Knative Services of cells, as they are now."""
        return tuple(self._services.objects.values())

    # -- HostPool ----------------------------------------------------------------------------------------------------

    def endpoints(self, cell: str) -> Sequence[Endpoint]:
        """See `HostPool`."""
        return self._endpoints.get(cell, ())

    async def wake(self, cell: CellSpec, within: float) -> Sequence[Endpoint]:
        """See `HostPool`."""
        self.waiting[cell.cell] += 1
        loop = asyncio.get_running_loop()
        began = loop.time()
        if cell.cell not in self._pokes or self._pokes[cell.cell].done():
            self._pokes[cell.cell] = asyncio.create_task(self._poke(cell), name=f"poke-{cell.cell}")
        try:
            async with asyncio.timeout(within):
                while not (found := self.endpoints(cell.cell)):
                    if (why := await self._why_none(cell, loop.time() - began)) is not None:
                        raise why
                    await self._until_news(POKE_AGAIN)
                return found
        except TimeoutError:
            raise CellUnavailable(
                f"no pod of cell {cell.cell} was ready after {within:.0f} s",
                next_step="see `chimera get conditions`, and the pods' events in the namespace of cells",
                retry_after=5,
            ) from None
        finally:
            self.waiting[cell.cell] -= 1

    async def report(self, host: str, *, kind: str, agent: str, call: str) -> None:
        """A pod that broke a call gets no other until it was looked at."""
        log.warning("host reported", extra={"host": host, "kind": kind, "agent": agent, "call": call})
        found = next((one for all_ in self._endpoints.values() for one in all_ if one.host == host), None)
        if kind in BROKEN:
            known = found.cell if found is not None else next((o.cell for o in self.broken if o.host == host), "")
            self.broken.append(BrokenCall(at=self._clock.wall(), host=host, cell=known, agent=agent))
        if kind not in BROKEN or found is None:
            return  # one that isn't among the hosts is being looked at, or gone
        look = asyncio.create_task(self._look(found), name=f"look-{host}")
        self._looks[host] = look
        look.add_done_callback(lambda _: self._looked(host))
        self._refresh_all()

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
        tasks = (*self._looks.values(), *self._pokes.values(), *self._warming.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()
        await self._api.aclose()

    async def _poke(self, cell: CellSpec) -> None:
        """Ask the cell's Service until a pod is there: the activator holds the request until then.

        It goes on while somebody waits, and for a time after who waited was told why there is none: without a request
        nothing would try again once that is mended, and nobody would be the wiser.
        """
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + POKE_TIMEOUT, POKE_AGAIN
        while not self.endpoints(cell.cell) and (self.waiting[cell.cell] > 0 or loop.time() < until):
            url = self._address(cell)
            if url is not None:
                try:
                    async with self._session.get(url + POKE_PATH) as answer:
                        await answer.read()
                except (aiohttp.ClientError, OSError) as error:
                    log.info("a cell did not wake yet", extra={"cell": cell.cell, "error": repr(error)})
                    pause = min(LONGEST_POKE_AGAIN, pause * 2)
            await self._until_news(pause * (0.5 + random.random() / 2))

    async def _look(self, endpoint: Endpoint) -> None:
        """Return once the host is ready again, or is no pod of a revision with traffic any more."""
        pause = FIRST_LOOK
        while self._listed(endpoint):
            await asyncio.sleep(pause)
            pause = min(LONGEST_LOOK, pause * 2)
            try:
                timeout = aiohttp.ClientTimeout(total=LOOK_TIMEOUT)
                async with self._session.get(endpoint.url + LOOK_PATH, headers=AS_KUBELET, timeout=timeout) as answer:
                    if answer.status == 200:
                        return
            except (aiohttp.ClientError, OSError) as error:  # OSError covers the time-out
                log.info("a host is silent", extra={"host": endpoint.host, "error": repr(error)})

    def _looked(self, host: str) -> None:
        del self._looks[host]
        self._refresh_all()

    def _listed(self, endpoint: Endpoint) -> bool:
        service = next((one for one in self._services.objects.values() if _cell(one) == endpoint.cell), None)
        return service is not None and endpoint.host in self._pods(service, endpoint.cell)

    def _address(self, cell: CellSpec) -> str | None:
        service = self._service(cell)
        if service is None or service.status.address is None or service.status.address.url is None:
            return None
        return service.status.address.url.rstrip("/")

    def _service(self, cell: CellSpec) -> KnativeService | None:
        name = names.service_name(cell.cell, cell.runtime_class.framework)
        return next((one for one in self._services.objects.values() if one.metadata.name == name), None)

    async def _why_none(self, cell: CellSpec, waited: float) -> CellUnavailable | None:
        """What to tell who has waited so long; None while a pod may still come."""
        try:
            conditions = await self._conditions(cell.cell)
        except ProblemError as error:
            log.warning("conditions can't be read", extra={"cell": cell.cell, "error": error.detail})
            conditions = ()
        if (told := why_not(conditions, waited)) is not None:
            return CellUnavailable(
                f"cell {cell.cell} can't start: {told.message}",
                next_step=told.next_step,
                retry_after=MEANINGS[told.reason].retry_after,
                reason=told.reason.value,
            )
        if conditions:
            return None
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
        by_name = {item.metadata.name: item for item in self._services.objects.values()}
        for name in services:
            service = by_name.get(name)
            cell = self._service_of.get(name) if service is None else _cell(service)
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
        """Those that take calls, each once, by name."""
        found = self._pods(service, cell)
        sides = {one.side for one in found.values()}
        warm = self._warm.setdefault(cell, set())
        warm &= sides
        if not warm:  # nothing is there to learn from: whatever there is serves
            warm |= {one.side for one in found.values() if one.weight}
        for side in sides - warm:
            self._begin_warming(cell, side, found.values())
        # Until this gateway has warmed the new side, what serves keeps its calls, with a share or without.
        ready = [one for one in found.values() if one.side in warm and (one.weight or not self._served(found, warm))]
        return [
            one if one.weight else msgspec.structs.replace(one, weight=1)
            for one in sorted(ready, key=_by_name)
            if one.host not in self._looks
        ]

    @staticmethod
    def _served(found: Mapping[str, Endpoint], warm: Collection[str]) -> bool:
        """Whether a side that is warm has a share of the calls."""
        return any(one.weight and one.side in warm for one in found.values())

    def _begin_warming(self, cell: str, side: str, pods: Iterable[Endpoint]) -> None:
        if (cell, side) in self._warming:
            return
        before = [one for one in pods if one.side in self._warm[cell]]
        after = [one for one in pods if one.side == side]
        task = asyncio.create_task(self._warm_up(cell, before, after), name=f"warm-{side}")
        self._warming[cell, side] = task
        task.add_done_callback(lambda _: self._warmed(cell, side))

    async def _warm_up(self, cell: str, before: Sequence[Endpoint], after: Sequence[Endpoint]) -> None:
        if self._warmer is None:
            return
        try:
            async with asyncio.timeout(LONGEST_WARMING):
                await self._warmer(cell, before, after)
        except TimeoutError:
            log.warning("a cell's new side gets calls though not all is loaded", extra={"cell": cell})

    def _warmed(self, cell: str, side: str) -> None:
        task = self._warming.pop((cell, side))
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("warming failed", exc_info=error, extra={"cell": cell})
        self._warm.setdefault(cell, set()).add(side)
        self._refresh_all()

    def _pods(self, service: KnativeService, cell: str) -> dict[str, Endpoint]:
        """The ready pods of the revisions that have traffic or stand by under a tag, each with its revision's share."""
        weights: dict[str, int] = {}
        for part in service.status.traffic:
            if part.revision_name and (part.percent or part.tag):
                weights[part.revision_name] = weights.get(part.revision_name, 0) + (part.percent or 0)
        found: dict[str, Endpoint] = {}
        for item in self._slices.objects.values():
            labels = item.metadata.labels
            if labels.get(names.KNATIVE_SERVICE) != service.metadata.name:
                continue
            side = labels.get(names.KNATIVE_REVISION, "")
            if side not in weights:
                continue
            port = next((one.port for one in item.ports or () if one.name == PORT and one.port), None)
            for endpoint in item.endpoints or ():
                pod = endpoint.target_ref
                if port is None or pod is None or not endpoint.addresses or not _takes_calls(endpoint):
                    continue
                url = f"http://{_shown(endpoint.addresses[0])}:{port}"
                key = self._key_of(pod.name, pod.uid)
                found[pod.name] = Endpoint(host=pod.name, cell=cell, url=url, key=key, side=side, weight=weights[side])
        return found


def _by_name(endpoint: Endpoint) -> str:
    return endpoint.host


def _cell(service: KnativeService) -> str | None:
    return service.metadata.annotations.get(names.CELL)


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _takes_calls(endpoint: SliceEndpoint) -> bool:
    """By the API's own rule: what isn't known to be unready is ready, and who is told to end takes nothing new."""
    return endpoint.conditions.ready is not False and not endpoint.conditions.terminating
