"""Knative's controllers, played on a cluster in memory: revisions from templates, pods by scale, traffic as asked for.

What they do is what Chimera stands on, no more. A changed template makes a revision. A revision has its initial scale
of pods before it is ready. Afterwards it has what its share of the demand wants, no fewer than its minimum where a
route names it, and none where no route does; that is why a new revision without calls must be held. A route that asks
for the latest revision gets the latest that is ready.
"""

import asyncio
import copy
import math
from collections import Counter
from typing import Any, Self

from chimera.adapters.substrates.knative import names
from chimera.testing.cluster import FakeCluster

Json = dict[str, Any]


class FakeKnative:
    """Use as an asynchronous context manager; it reacts to each change of the cluster.

    A revision whose image is in `broken` fails with that reason and message; one whose image is in `slow` has its pods
    one less than ready needs, as long as it is there. One that was made while its image was in `late` isn't at its
    initial scale in time: Knative gives it up, and never tries it again. `demand` is how many pods the calls of a
    Service want. While it is `frozen`, nothing is done.
    """

    def __init__(self, cluster: FakeCluster, namespace: str) -> None:
        """Play in one namespace."""
        self.cluster = cluster
        self.namespace = namespace
        self.broken: dict[str, tuple[str, str]] = {}
        self.slow: set[str] = set()
        self.late: set[str] = set()
        self.demand: dict[str, int] = {}
        self.frozen = False
        self._initialised: set[str] = set()
        self._given_up: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="fake-knative")
        return self

    async def __aexit__(self, *_: object) -> None:
        """End, and show what went wrong."""
        if self._task is not None:
            self._task.cancel()
            (ended,) = await asyncio.gather(self._task, return_exceptions=True)
            if not isinstance(ended, asyncio.CancelledError):
                raise ended or AssertionError("it ended by itself")

    def revisions(self, service: str) -> list[Json]:
        """Those of a Service, the oldest first."""
        found = self.cluster.objects("revisions", lambda one: _label(one, names.KNATIVE_SERVICE) == service)
        return sorted(found, key=_number)

    def pods(self, service: str) -> dict[str, int]:
        """How many pods each revision of a Service has."""
        return {one["metadata"]["name"]: one["status"]["actualReplicas"] for one in self.revisions(service)}

    def traffic(self, service: str) -> dict[str, int]:
        """The shares of a Service's revisions, as carried out."""
        found = self.cluster.object("services", self.namespace, service) or {}
        shares = found.get("status", {}).get("traffic", ())
        return {one["revisionName"]: one["percent"] for one in shares if one["percent"]}

    async def want(self, service: str, pods: int) -> None:
        """The calls of a Service want so many pods from now on."""
        self.demand[service] = pods
        await self.step()

    async def step(self) -> None:
        """Everything that the controllers would do now."""
        for service in self.cluster.objects("services"):
            if service["metadata"]["namespace"] == self.namespace and "template" in service.get("spec", {}):
                await self._make(service)
                await self._scale(service)
                await self._route(service)

    async def _run(self) -> None:
        while True:
            seen = self.cluster.version
            if not self.frozen:
                await self.step()
            await self.cluster.news(seen)

    async def _make(self, service: Json) -> None:
        name, template = service["metadata"]["name"], service["spec"]["template"]
        before = self.revisions(name)
        if before and before[-1]["madeFrom"] == repr(template):
            return
        number = _number(before[-1]) + 1 if before else 1
        labels = {
            **template["metadata"].get("labels", {}),
            names.KNATIVE_SERVICE: name,
            names.CONFIGURATION_GENERATION: str(number),
        }
        revision = {
            "metadata": {
                "name": f"{name}-{number:05d}",
                "namespace": self.namespace,
                "labels": labels,
                "annotations": dict(template["metadata"]["annotations"]),
            },
            "spec": copy.deepcopy(template["spec"]),
            "madeFrom": repr(template),
            "status": {"actualReplicas": 0, "conditions": [_condition("Unknown", "Deploying", "")]},
        }
        await self.cluster.put("revisions", revision)

    async def _scale(self, service: Json) -> None:
        name = service["metadata"]["name"]
        asked = [one.get("revisionName") for one in service["spec"]["traffic"]]
        shares: Counter[str] = Counter()
        for one in service.get("status", {}).get("traffic", ()):
            shares[one["revisionName"]] += one["percent"]
        made_so_far = self.revisions(name)
        for revision in made_so_far:
            made, annotations = revision["metadata"]["name"], revision["metadata"]["annotations"]
            image = revision["spec"]["containers"][0]["image"]
            latest = revision is made_so_far[-1]
            routed = made in asked or made in shares or (latest and None in asked)
            least = int(annotations.get(names.MIN_SCALE, "0"))
            first = max(1, least, int(annotations.get(names.INITIAL_SCALE, "1")))
            if image in self.late and made not in self._initialised:
                self._given_up.add(made)
            if made in self._given_up:
                state = _condition("False", "ProgressDeadlineExceeded", "Initial scale was never achieved")
                pods = 0
            elif image in self.broken:
                state = _condition("False", *self.broken[image])
                pods = 0
            elif made not in self._initialised:
                pods = first - 1 if image in self.slow else (first if routed or latest else 0)
                state = _condition("Unknown", "Deploying", "")
                if pods >= first:
                    self._initialised.add(made)
                    state = _condition("True", "", "")
            else:
                wanted = math.ceil(self.demand.get(name, 0) * shares.get(made, 0) / 100)
                pods = max(least, wanted) if routed else 0
                state = _condition("True", "", "")
            wants = {"desiredReplicas": 0} if made in self._given_up else {}
            revision["status"] = {"actualReplicas": pods, "conditions": [state], **wants}
            await self.cluster.put("revisions", revision)

    async def _route(self, service: Json) -> None:
        name = service["metadata"]["name"]
        made = {one["metadata"]["name"]: one for one in self.revisions(name)}
        ready = [revision for revision, one in made.items() if revision in self._initialised and _is_ready(one)]
        before = service.get("status", {}).get("traffic", [])
        carried = []
        for share in service["spec"]["traffic"]:
            target = share.get("revisionName") or (ready[-1] if ready else None)
            if target is None or target not in made:
                carried = before  # a route that can't be made leaves the one before
                break
            carried.append({**share, "revisionName": target})
        newest = list(made.values())[-1]
        state = newest["status"]["conditions"][0]
        service["status"] = {
            "observedGeneration": service["metadata"]["generation"],
            "traffic": carried,
            "conditions": [state if carried else {**state, "status": "Unknown"}],
        }
        if state["status"] == "False":
            service["status"]["conditions"] = [state]
        current = self.cluster.object("services", self.namespace, name)
        if current is not None and current["metadata"]["generation"] == service["metadata"]["generation"]:
            service["metadata"] = current["metadata"]
            await self.cluster.put("services", service)


def _condition(status: str, reason: str, message: str) -> Json:
    return {"type": "Ready", "status": status, "reason": reason, "message": message}


def _is_ready(revision: Json) -> bool:
    return bool(revision["status"]["conditions"][0]["status"] == "True")


def _label(value: Json, name: str) -> str:
    return str(value["metadata"]["labels"].get(name, ""))


def _number(value: Json) -> int:
    return int(_label(value, names.CONFIGURATION_GENERATION))
