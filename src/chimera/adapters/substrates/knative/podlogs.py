"""Logs of a cluster's pods, read through the API server, as on one machine they are read from files.

A reading is bounded: the newest lines of so many pods, those of the agent's own cells where an agent is named. What was
left out is said in a line of the log itself, and so are the pods that can't be read, as on a node that is gone; only
where none can be read is that an error. Each line comes with the time at which the container runtime got it, so
that a follower goes on exactly where the reading ended, and a container that starts again is followed on.
"""

import asyncio
import re
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterError, ClusterRefused, NotInCluster
from chimera.adapters.substrates.knative.pods import CONTAINER, SEEN_PODS, SeenPod
from chimera.platform.logs import HOSTS, Lines, LogQuery

MOST_PODS = 64
AT_ONCE = 8
SEARCHED_LINES = 2_000
"""Newest lines of each pod among which those of one agent, request or level are looked for."""
LOOK_AGAIN = 2.0
WAITING_LINES = 1_000
NAMED_PODS = 5
UNREADABLE = 2
"""Failures in a row after which a follower is told of a pod: a connection may break once, of all pods together."""
TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)

CellsOf = Callable[[str], frozenset[str]]
"""The cells of the agents with this name, in all tenants."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A container whose lines are read; `restarts` tells it from the one that the pod had before."""

    namespace: str
    pod: str
    container: str
    process: str
    restarts: int


class _Reading:
    """How far a pod was read: the time of its newest line, in UTC; or why it can't be."""

    def __init__(self, source: Source, query: LogQuery) -> None:
        self.source = source
        self.until = ""
        self._untimed = b""
        self.fault: ClusterError | None = None
        self.failures = 0
        self.told = False
        pod = {} if source.pod == source.process else {"pod": source.pod}
        self._lines = Lines(source.process, query, **pod)

    def take(self, line: bytes) -> tuple[str, bytes] | None:
        """A line as the API server gives it; None where it was read before or nobody asked for it."""
        self.fault, self.failures, self.told = None, 0, False
        whole = line.rstrip(b"\n")
        first, _, text = whole.partition(b" ")
        at = in_utc(first.decode(errors="replace"))
        if at is None:  # no line of the container, but what the node says in place of its log, as often as it is asked
            said, self._untimed = self._untimed, whole
            return self._lines.take(whole) if whole != said else None
        if at <= self.until:
            return None
        self.until = at
        return self._lines.take(text)

    def failed(self, error: ClusterError) -> None:
        """It can't be read now."""
        self.fault = error
        self.failures += 1


class PodLogs:
    """Reads and follows."""

    def __init__(self, api: Kubernetes, *, cells: str, cells_of: CellsOf) -> None:
        """Hosts are in the namespace `cells`, the platform's processes in `api`'s own."""
        self._api = api
        self._cells = cells
        self._cells_of = cells_of

    async def read(self, query: LogQuery, gone: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
        """The newest lines, oldest first; then, where it follows, new ones until `gone`."""
        sources, left_out = await self._sources(query)
        bound = asyncio.Semaphore(AT_ONCE)
        readings = {source: _Reading(source, query) for source in sources}
        found: list[tuple[str, bytes]] = []
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._newest(one, query, bound)) for one in readings.values()]
        for task in tasks:
            found.extend(task.result())
        faults = [one.fault for one in readings.values() if one.fault is not None]
        if faults and not found and len(faults) == len(readings):
            raise faults[0]
        found.sort(key=lambda pair: pair[0])
        newest = [line for _, line in found[-query.lines :]]
        if faults:
            newest.insert(0, _unreadable([one for one in readings.values() if one.fault is not None]))
        if left_out:
            newest.insert(0, _left_out(left_out))
        return self._lines(newest, query, readings, gone)

    async def _lines(
        self,
        newest: list[bytes],
        query: LogQuery,
        readings: dict[Source, _Reading],
        gone: Callable[[], bool],
    ) -> AsyncGenerator[bytes, None]:
        for line in newest:
            yield line
        if not query.follow:
            return
        lines: asyncio.Queue[bytes] = asyncio.Queue(WAITING_LINES)
        following = asyncio.create_task(self._follow(query, readings, lines), name="follow-logs")
        try:
            while not gone():
                new: bytes | None = None
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN):
                        new = await lines.get()
                if new is not None:
                    yield new  # outside the timeout, which would cancel whoever takes long over the line
                elif following.done() and lines.empty():
                    following.result()
                    return
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _follow(self, query: LogQuery, readings: dict[Source, _Reading], lines: "asyncio.Queue[bytes]") -> None:
        """Follow the pods that are there, and those that come, until cancelled."""
        open_streams: dict[Source, asyncio.Task[None]] = {}
        try:
            while True:
                for source in await self._followed(query):
                    running = open_streams.get(source)
                    if running is None or running.done():
                        reading = readings.setdefault(source, _Reading(source, query))
                        open_streams[source] = asyncio.create_task(
                            self._stream(reading, lines), name=f"follow-{source.pod}"
                        )
                await asyncio.sleep(LOOK_AGAIN)
                untold = [one for one in readings.values() if one.failures >= UNREADABLE and not one.told]
                if untold:
                    await lines.put(_unreadable(untold))
        finally:
            for task in open_streams.values():
                task.cancel()
            await asyncio.gather(*open_streams.values(), return_exceptions=True)

    async def _followed(self, query: LogQuery) -> Sequence[Source]:
        try:
            sources, _ = await self._sources(query)
        except ClusterError as error:
            if error.retry_after is None:
                raise
            return ()  # streams that run go on; it is looked again
        return sources

    async def _stream(self, reading: _Reading, lines: "asyncio.Queue[bytes]") -> None:
        source = reading.source
        options = {"follow": "true", **({"sinceTime": reading.until[:19] + "Z"} if reading.until else {})}
        try:
            async for line in self._container(source, options):
                if (taken := reading.take(line)) is not None:
                    await lines.put(taken[1])
        except (NotInCluster, ClusterRefused):
            pass  # it is gone, or not there yet
        except ClusterError as error:  # it is asked again
            reading.failed(error)

    async def _newest(self, reading: _Reading, query: LogQuery, bound: asyncio.Semaphore) -> list[tuple[str, bytes]]:
        searched = max(query.lines, SEARCHED_LINES) if query.agent or query.request or query.level else query.lines
        found: deque[tuple[str, bytes]] = deque(maxlen=query.lines)
        source = reading.source
        async with bound:
            for previous in (True, False) if source.restarts else (False,):
                options = {"tailLines": str(searched), **({"previous": "true"} if previous else {})}
                try:
                    async for line in self._container(source, options):
                        if (taken := reading.take(line)) is not None:
                            found.append(taken)
                except (NotInCluster, ClusterRefused):
                    continue  # its container didn't start yet, or is gone
                except ClusterError as error:
                    reading.failed(error)
                    break
        return list(found)

    def _container(self, source: Source, options: Mapping[str, str]) -> AsyncIterator[bytes]:
        asked = {"container": source.container, "timestamps": "true", **options}
        return self._api.log(source.namespace, source.pod, asked)

    async def _sources(self, query: LogQuery) -> tuple[list[Source], int]:
        """What is read, and how many pods are left out because they are too many: the newest are read."""
        found: list[tuple[str, Source]] = []
        for namespace, in_cells in ((self._api.namespace, False), (self._cells, True)):
            if query.process == HOSTS and not in_cells:
                continue
            listing = await self._api.list(SEEN_PODS, namespace, names.managed())
            cells = self._cells_of(query.agent.rpartition("/")[2]) if query.agent is not None else None
            for pod in listing.items:
                if in_cells and cells is not None and pod.cell not in cells:
                    continue
                source = _source(pod, in_cells)
                if query.process in (None, source.process, source.pod) or (query.process == HOSTS and in_cells):
                    found.append((pod.metadata.creation_timestamp, source))
        found.sort(key=lambda pair: pair[0], reverse=True)
        return [source for _, source in found[:MOST_PODS]], max(0, len(found) - MOST_PODS)


def in_utc(text: str) -> str | None:
    """A time as a node writes it, in the zone that its clock shows; in UTC with nine digits, so that later sorts later.

    None for what is no time. Nanoseconds are kept beside the rest: `datetime` has none.
    """
    found = TIME.fullmatch(text)
    if found is None:
        return None
    seconds, fraction, zone = found.groups(default="")
    try:
        at = datetime.fromisoformat(seconds + zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return f"{at.isoformat()[:19]}.{fraction:0<9}Z"


def _source(pod: SeenPod, in_cells: bool) -> Source:
    name = pod.metadata.name
    container = CONTAINER if in_cells else pod.component
    restarts = next((one.restart_count for one in pod.status.container_statuses if one.name == container), 0)
    process = name if in_cells else pod.component
    return Source(namespace=pod.metadata.namespace, pod=name, container=container, process=process, restarts=restarts)


def _left_out(number: int) -> bytes:
    return _warning(f"the logs of {number} more pods are not read: name an agent, a process or a host")


def _unreadable(readings: Sequence[_Reading]) -> bytes:
    """Name those that can't be read, and why the first can't; they are told then."""
    for one in readings:
        one.told = True
    named = ", ".join(one.source.pod for one in readings[:NAMED_PODS])
    more = f" and {len(readings) - NAMED_PODS} more" if len(readings) > NAMED_PODS else ""
    return _warning(f"can't read the logs of {named}{more}: {readings[0].fault}")


def _warning(message: str) -> bytes:
    return msgspec.json.encode({"level": "warning", "process": "gateway", "message": message})
