"""The same function as an agent of Chimera and as a plain Knative Service, side by side in one cluster.

Both run the same few lines of Python in the same image, with the same window, retention and bounds. The plain one is an
HTTP server with nothing around it: it authenticates nobody, keeps no record, and serves that one function. So what is
between the two figures is what Chimera costs; what is between ingress and pod is what the way through Kourier costs.
"""

import asyncio
import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from benchmarks.cluster.api import PODS, Cluster, Row, staying
from benchmarks.cluster.fleet import Say, told
from benchmarks.cluster.installed import CODE, Installed
from benchmarks.stats import percentile
from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.forwarding import Forwarding, any_ready
from chimera.adapters.substrates.knative.objects import KNATIVE_SERVICES, KnativeService

PATIENCE = 120.0
CLIENTS, SECONDS = 8, 8.0
PLAIN = (
    CODE
    + """
import os
from aiohttp import web

answer = make(None)

async def invoke(request):
    return web.json_response({"output": await answer((await request.json())["input"], None)})

async def ready(request):
    return web.Response()

app = web.Application()
app.router.add_post("/", invoke)
app.router.add_get("/readyz", ready)
web.run_app(app, port=int(os.environ["PORT"]), print=None)
"""
)
LOAD = """
import asyncio, json, sys, time
import aiohttp

async def main(routes, clients, seconds):
    found = []
    for route in routes:
        times, errors = [], 0
        async with aiohttp.ClientSession() as session:
            until = time.monotonic() + seconds
            async def client():
                nonlocal errors
                while time.monotonic() < until:
                    began = time.perf_counter()
                    async with session.post(route["url"], headers=route["headers"], json={"input": "hello"}) as answer:
                        good = answer.status == 200 and (await answer.json())["output"] == "hello"
                    errors += not good
                    times.append(time.perf_counter() - began)
            began = time.monotonic()
            await asyncio.gather(*(client() for _ in range(clients)))
            took = time.monotonic() - began
        times.sort()
        at = lambda share: times[min(len(times) - 1, int(share * len(times)))] * 1000
        found.append({"rate": len(times) / took, "p50": at(0.5), "p95": at(0.95), "errors": errors})
    print(json.dumps(found), flush=True)

asyncio.run(main(json.loads(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
"""


class Loaded(Struct, frozen=True, kw_only=True):
    """What a closed loop of clients got."""

    rate: float
    p50: float
    p95: float
    errors: int


class Plain:
    """Plain Knative Services in a namespace of their own, called through Kourier."""

    def __init__(self, cluster: Cluster, namespace: str, image: str, session: aiohttp.ClientSession) -> None:
        """Nothing is made yet; `session` calls."""
        self.cluster, self.namespace, self._image, self._session = cluster, namespace, image, session
        self.port = 0

    async def apply(self, name: str, word: str = "") -> None:
        """Make one, or change a word of it."""
        prefix = "autoscaling.knative.dev/"
        scaling = {"window": "6s", "scale-to-zero-pod-retention-period": "1s", "max-scale": "1"}
        scaling |= {"target": "10", "target-burst-capacity": "0"}
        container = {
            "image": self._image,
            "command": ["/opt/chimera/bin/python", "-c", PLAIN],
            "env": [{"name": "WORD", "value": word}],
            "readinessProbe": {"httpGet": {"path": "/readyz"}},
            "resources": {"requests": {"cpu": "50m", "memory": "100Mi"}},
        }
        manifest = {
            "apiVersion": KNATIVE_SERVICES.api_version,
            "kind": KNATIVE_SERVICES.kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "template": {
                    "metadata": {"annotations": {prefix + key: value for key, value in scaling.items()}},
                    "spec": {"containers": [container]},
                }
            },
        }
        await self.cluster.api.apply(KNATIVE_SERVICES, manifest, manager="chimera-benchmark")

    def host(self, name: str) -> str:
        """The name that Kourier knows it by, inside."""
        return f"{name}.{self.namespace}.svc.cluster.local"

    async def call(self, name: str) -> bool:
        """One call; whether the answer is right."""
        url = f"http://127.0.0.1:{self.port}/"
        async with self._session.post(url, json={"input": "hello"}, headers={"Host": self.host(name)}) as answer:
            return answer.status == 200 and (await answer.json())["output"] == "hello"

    async def answers(self, name: str) -> None:
        """Wait for the first right answer."""
        await _until(lambda: self.call(name))

    async def moved(self, name: str, before: str) -> None:
        """Wait until all calls go to a newer revision than `before`."""
        await _until(lambda: _moved(self.cluster, self.namespace, name, before))

    async def revision(self, name: str) -> str:
        """The revision that has all calls."""
        return whole(await self.cluster.api.get(KNATIVE_SERVICES, self.namespace, name))


def whole(service: KnativeService) -> str:
    """The revision that has all of a Service's calls; empty where several share them."""
    taking = {one.revision_name or "" for one in service.status.traffic if one.percent}
    return taking.pop() if len(taking) == 1 else ""


async def _moved(cluster: Cluster, namespace: str, name: str, before: str) -> bool:
    return whole(await cluster.api.get(KNATIVE_SERVICES, namespace, name)) not in ("", before)


async def measure(cluster: Cluster, folder: Path, images: str, database: str, count: int, say: Say) -> list[Row]:
    """All rows, with `count` deploys and wakes of each kind."""
    rows: list[Row] = []
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    connector = aiohttp.TCPConnector(force_close=True)
    host_image = images.replace("{name}", "chimera-host-function")
    async with (
        cluster.namespace("chimera-plain") as namespace,
        Installed(cluster, folder, images, database) as ours,
        aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
    ):
        plain = Plain(cluster, namespace, host_image, session)
        ours.session = session
        kourier = any_ready(cluster.api, "kourier-system", "app=3scale-kourier-gateway")
        async with Forwarding(cluster.access, "kourier-system", kourier, 8081) as way:
            plain.port = way.port
            say("deploys, in turns")
            deployed: dict[str, list[float]] = {"plain": [], "ours": [], "shared": []}
            # Its pod stays: of the others there are more than a small node has room for, and they come and go.
            await _deploy(ours, "shared-first", False)
            for number in range(count):
                deployed["plain"].append(await _timed(_deploy_plain, plain, f"plain-{number}"))
                deployed["ours"].append(await _timed(_deploy, ours, f"own-{number}", True))
                deployed["shared"].append(await _timed(_deploy, ours, f"shared-{number}", False))
                await _until(lambda: _few(plain, ours))
            rows += told(
                say, _beside("deploy to first answer, a new cell or Service", deployed["ours"], deployed["plain"])
            )
            rows += told(say, _alone("deploy to first answer, a cell that runs", deployed["shared"]))
            say("asleep")
            await _until(lambda: _asleep(plain, ours))
            woken: dict[str, list[float]] = {"plain": [], "ours": []}
            say("wakes, in turns")
            for number in range(count):
                woken["plain"].append(await _timed(plain.answers, f"plain-{number}"))
                woken["ours"].append(await _timed(ours.answers, f"own-{number}"))
                await _until(lambda: _few(plain, ours))
            rows += told(say, _beside("from zero pods to an answer", woken["ours"], woken["plain"]))
            say("changes of a revision")
            rows += told(say, await _changes(plain, ours, say))
            say("calls a second")
            rows += told(say, await _load(cluster, plain, ours, images.replace("{name}", "chimera-platform")))
    return rows


async def _deploy_plain(plain: Plain, name: str) -> None:
    await plain.apply(name)
    await plain.answers(name)


async def _deploy(ours: Installed, name: str, own: bool) -> None:
    await ours.apply(name, own=own)
    await ours.answers(name)


async def _few(plain: Plain, ours: Installed) -> bool:
    """Whether there is room for two more pods on a small node, those that end counted: they keep their place."""
    pods = [len((await ours.cluster.api.list(PODS, where)).items) for where in (ours.cells, plain.namespace)]
    return sum(pods) <= 5


async def _asleep(plain: Plain, ours: Installed) -> bool:
    """Whether no pod stays but that of the cell which agents share: it does for minutes."""
    pods = [len(await staying(ours.cluster, where)) for where in (ours.cells, plain.namespace)]
    return sum(pods) <= 1


async def _changes(plain: Plain, ours: Installed, say: Say) -> list[Row]:
    """A change of each, under calls: how long until all calls go to the new revision, and how many failed."""
    took: dict[str, list[float]] = {"plain": [], "ours": []}
    failed = {"plain": 0, "ours": 0}
    cell = await ours.service("own-0")
    for number in range(3):
        before = await plain.revision("plain-0")
        async with _called(lambda: plain.call("plain-0")) as bad:
            began = time.monotonic()
            await plain.apply("plain-0", word=str(number))
            await plain.moved("plain-0", before)
            took["plain"].append(time.monotonic() - began)
        failed["plain"] += len(bad)
        before = whole(await ours.cluster.api.get(KNATIVE_SERVICES, ours.cells, cell))
        async with _called(lambda: ours.call("own-0")) as bad:
            began = time.monotonic()
            await ours.apply("own-0", own=True, target=8 + number)
            moved = _moved
            await _until(lambda: moved(ours.cluster, ours.cells, cell, before))  # noqa: B023 - awaited at once
            took["ours"].append(time.monotonic() - began)
        failed["ours"] += len(bad)
    note = f"failed calls meanwhile: {failed['ours']} and {failed['plain']}"
    return [
        Row(
            what="a new revision has all calls, median of 3, Chimera",
            value=statistics.median(took["ours"]),
            unit="s",
            note=note,
        ),
        Row(what="the same, plain Knative", value=statistics.median(took["plain"]), unit="s"),
    ]


@asynccontextmanager
async def _called(call: Callable[[], Awaitable[bool]]) -> AsyncIterator[list[str]]:
    """Calls, five a second, while the block runs; those that failed."""
    bad: list[str] = []

    async def go_on() -> None:
        while True:
            try:
                if not await call():
                    bad.append("another answer")
            except (aiohttp.ClientError, TimeoutError) as error:
                bad.append(repr(error))
            await asyncio.sleep(0.2)

    await _until(call)
    task = asyncio.create_task(go_on())
    try:
        yield bad
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _load(cluster: Cluster, plain: Plain, ours: Installed, image: str) -> list[Row]:
    await plain.answers("plain-0")
    await ours.answers("own-0")
    selector = f"{names.KNATIVE_SERVICE}=plain-0"
    address = await ours.address_of(plain.namespace, selector)
    body = "http://kourier-internal.kourier-system.svc.cluster.local"
    routes = [
        {"url": body, "headers": {"Host": plain.host("plain-0")}},
        {"url": f"http://{address}:8012", "headers": {"Host": plain.host("plain-0")}},
        {"url": ours.inside("own-0"), "headers": {"Authorization": f"Bearer {ours.key}"}},
    ]
    through, straight, whole_way = await generate(cluster, plain.namespace, image, routes)
    note = f"{CLIENTS} clients in a pod, one pod answers; p50 {{:.1f}} ms, p95 {{:.1f}} ms, {{}} failed"
    rows = [
        Row(what=what, value=one.rate, unit="calls/s", note=note.format(one.p50, one.p95, one.errors))
        for what, one in (
            ("plain Knative, through Kourier", through),
            ("plain Knative, straight to the pod through queue-proxy", straight),
            ("Chimera, through its gateway (which goes straight to the pod)", whole_way),
        )
    ]
    rows.append(
        Row(what="straight to the pod against through Kourier", value=straight.rate / through.rate, unit="times")
    )
    rows.append(
        Row(what="Chimera against plain Knative through Kourier", value=whole_way.rate / through.rate, unit="times")
    )
    return rows


async def generate(cluster: Cluster, namespace: str, image: str, routes: list[dict[str, Any]]) -> list[Loaded]:
    """Have a pod call each of `routes` in a closed loop, one after the other."""
    name = "load"
    container = {
        "name": "load",
        "image": image,
        "command": ["/opt/chimera/bin/python", "-c", LOAD, json.dumps(routes), str(CLIENTS), str(SECONDS)],
    }
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }
    await cluster.api.apply(PODS, manifest, manager="chimera-benchmark")

    async def over() -> bool:
        return (await cluster.api.get(PODS, namespace, name)).status.phase in ("Succeeded", "Failed")

    await _until(over)
    lines = [line async for line in cluster.api.log(namespace, name, {"tailLines": "20"})]
    await cluster.api.delete(PODS, namespace, name)
    return msgspec.json.decode(lines[-1], type=list[Loaded])


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                if await condition():
                    return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


async def _timed(work: Callable[..., Awaitable[None]], *arguments: Any) -> float:
    began = time.monotonic()
    await work(*arguments)
    return time.monotonic() - began


def _alone(what: str, times: list[float]) -> list[Row]:
    note = f"p95 of {len(times)}: {percentile(times, 0.95):.2f} s"
    return [Row(what=f"{what}, p50, Chimera", value=percentile(times, 0.5), unit="s", note=note)]


def _beside(what: str, ours: list[float], plain: list[float]) -> list[Row]:
    note = f"p95 of {len(plain)}: {percentile(plain, 0.95):.2f} s"
    return [
        *_alone(what, ours),
        Row(what="the same, plain Knative", value=percentile(plain, 0.5), unit="s", note=note),
    ]


def needed() -> list[str]:
    """Which of the variables that name images and a database are not set."""
    return [name for name in ("CHIMERA_TEST_IMAGES", "CHIMERA_TEST_CLUSTER_DATABASE") if not os.environ.get(name)]
