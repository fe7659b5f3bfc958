"""What one Knative Service for each agent costs, on the same API server: as many as can be made in a time, and a fit.

Each is as small as a Knative Service can be, and asleep from the beginning (initial scale 0): its pod would run on a
simulated node, where the activator's probes find nobody. So what is measured is the least: Knative and Kubernetes with
objects and conditions, without a single container. Time grows faster than in step, since controllers list and resync
all of them: `a·n + b·n²` is fitted to the time until n were ready.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from msgspec import Struct

from benchmarks.cluster.api import COUNTED, Cluster, Counters, Row, until
from chimera.adapters.substrates.knative.errors import ClusterError
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.installer import KINDS
from chimera.adapters.substrates.knative.names import INITIAL_SCALE
from chimera.adapters.substrates.knative.objects import KNATIVE_SERVICES, KnativeService
from chimera.adapters.substrates.knative.preflight import ZERO_SCALE

SETTLED = 300.0
MANAGER = "chimera-benchmark"
AHEAD = 40
"""How many may be made beyond those that are ready: whoever makes all at once measures a queue."""


class OneEach(Struct, frozen=True, kw_only=True):
    """How far it came in `seconds`, what one costs, and what `of` would take by the fit."""

    seconds: float
    made: int
    ready: int
    whole: int
    stopped_by: str
    objects_each: float
    bytes_each: float
    etcd_each: float
    requests_each: float
    services_each: float
    of: int
    fitted: float
    linear: float


def rows(found: OneEach) -> list[Row]:
    """The figures, those that are extrapolated marked."""
    count, ready = found.of, f"extrapolated from {found.ready:,}"
    return [
        Row(what="Knative Services ready", value=found.ready, unit="", note=f"{found.made:,} made; {found.stopped_by}"),
        Row(what="ready when objects were counted", value=found.whole, unit="", note="the others count as less"),
        Row(what="time for each", value=found.seconds / max(1, found.ready), unit="s", note="the mean"),
        Row(what="objects for each", value=found.objects_each, unit="", note="that stay as long as it does"),
        Row(what="Kubernetes Services for each", value=found.services_each, unit=""),
        Row(
            what="size of each in etcd", value=found.bytes_each / 1024, unit="KiB", note="by the API server's estimate"
        ),
        Row(what="growth of etcd's file for each", value=found.etcd_each / 1024, unit="KiB", note="with its history"),
        Row(what="requests for each", value=found.requests_each, unit="", note="of all controllers"),
        Row(what=f"time for {count:,}, at the mean", value=found.linear / 3600, unit="h", note=ready),
        Row(what=f"time for {count:,}, by a·n + b·n²", value=found.fitted / 3600, unit="h", note=ready),
        Row(what=f"objects for {count:,}", value=found.objects_each * count, unit="", note=ready),
        Row(what=f"Kubernetes Services for {count:,}", value=found.services_each * count, unit="", note=ready),
        Row(what=f"size of {count:,} in etcd", value=found.bytes_each * count / 2**20, unit="MiB", note=ready),
    ]


def fit(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Least squares of `t = a·n + b·n²` over (n, t), with neither below zero."""
    s2 = sum(n**2 for n, _ in samples)
    s3 = sum(n**3 for n, _ in samples)
    s4 = sum(n**4 for n, _ in samples)
    t1 = sum(n * t for n, t in samples)
    t2 = sum(n**2 * t for n, t in samples)
    if s2 == 0:
        return float("nan"), float("nan")
    determinant = s2 * s4 - s3**2
    a, b = t1 / s2, 0.0
    if determinant > 1e-9 * s2 * s4:
        slope, curve = (t1 * s4 - t2 * s3) / determinant, (s2 * t2 - s3 * t1) / determinant
        if slope >= 0 and curve >= 0:
            a, b = slope, curve
        elif slope < 0:
            a, b = 0.0, t2 / s4
    return a, b


def ready(service: KnativeService) -> bool:
    """Whether Knative says so."""
    return any(one.type == "Ready" and one.status == "True" for one in service.status.conditions)


@asynccontextmanager
async def asleep_from_the_beginning(cluster: Cluster) -> AsyncIterator[None]:
    """Knative allows an initial scale of 0 while the block runs."""

    async def say(data: dict[str, Any]) -> None:
        meta = {"name": "config-autoscaler", "namespace": "knative-serving"}
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
        await cluster.api.apply(KINDS["ConfigMap"], manifest, manager=MANAGER)

    await say({ZERO_SCALE: "true"})
    await asyncio.sleep(2.0)  # Knative's webhook reads it from a watch
    try:
        yield
    finally:
        await say({})  # what a manager names no longer is gone


async def measure(cluster: Cluster, namespace: str, seconds: float, of: int) -> OneEach:
    """Make them until the time is over or the cluster refuses one."""
    before = await cluster.counters()
    following = Following(cluster.api, KNATIVE_SERVICES, namespace=namespace)
    task = asyncio.create_task(following.run())
    await following.synced.wait()
    began = time.monotonic()
    samples: list[tuple[float, float]] = []
    made, count, stopped_by = 0, 0, f"{seconds:.0f} s were over"
    try:
        while time.monotonic() - began < seconds:
            count = sum(ready(one) for one in following.objects.values())
            samples.append((float(count), time.monotonic() - began))
            todo = range(made, min(of, count + AHEAD))
            try:
                await asyncio.gather(*(_make(cluster, namespace, number) for number in todo))
            except ClusterError as error:
                stopped_by = error.detail
                break
            made += len(todo)
            await asyncio.sleep(1.0)
        took = time.monotonic() - began
        count = sum(ready(one) for one in following.objects.values())
        # What is half made would count as less than it is.
        with suppress(TimeoutError):
            await until(lambda: sum(map(ready, following.objects.values())) >= made, SETTLED)
        whole = sum(map(ready, following.objects.values()))
        await asyncio.sleep(COUNTED)
        cost = (await cluster.counters()).since(before)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    a, b = fit([sample for sample in samples if sample[0] > 0])
    return OneEach(
        seconds=took,
        made=made,
        ready=count,
        whole=whole,
        stopped_by=stopped_by,
        objects_each=_each(sum(_kept(cost).values()), made),
        bytes_each=_each(sum(cost.sizes[kind] for kind in _kept(cost)), made),
        etcd_each=_each(cost.database, made),
        requests_each=_each(sum(cost.requests.values()), made),
        services_each=_each(cost.objects["services"], made),
        of=of,
        fitted=a * of + b * of**2,
        linear=_each(took * of, count),
    )


def _kept(cost: Counters) -> dict[str, int]:
    """Objects that stay as long as the Service: events go by themselves, nodes and leases aren't its own."""
    passing = ("events", "nodes", "leases", "namespaces", "configmaps", "serviceaccounts")
    return {kind: count for kind, count in cost.objects.items() if count > 0 and kind.partition(".")[0] not in passing}


def _each(total: float, count: int) -> float:
    return total / count if count else float("nan")


async def _make(cluster: Cluster, namespace: str, number: int) -> None:
    name = f"agent-{number:05d}"
    # Knative looks up no digest of an image of the registry `dev.local`; on simulated nodes nothing is pulled.
    container = {"image": "dev.local/none:1", "resources": {"requests": {"cpu": "10m", "memory": "128Mi"}}}
    manifest = {
        "apiVersion": KNATIVE_SERVICES.api_version,
        "kind": KNATIVE_SERVICES.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"metadata": {"annotations": {INITIAL_SCALE: "0"}}, "spec": {"containers": [container]}}},
    }
    await cluster.api.apply(KNATIVE_SERVICES, manifest, manager=MANAGER)
