"""What a cluster shows of its cells, for the keeper of conditions: Services, revisions and pods, each by one watch.

Nothing is asked for a cell: a pass goes over what the watches brought. What is over soon after it happened (an evicted
pod is gone when its grace is) is remembered here for as long as a cell counts as unwell after it.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

from msgspec.structs import replace

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.objects import PODS, Pod, Revision
from chimera.adapters.substrates.knative.plan import CellState, Phase
from chimera.adapters.substrates.knative.reconciler import Reconciler
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.adapters.substrates.knative.symptoms import is_forced, is_ready, symptoms
from chimera.kernel.clock import Clock
from chimera.kernel.ids import DEFAULT_TENANT
from chimera.platform.cells import tenant_of_cell
from chimera.platform.condition_keeper import Sight
from chimera.platform.conditions import HOME, RECENT, Evidence, Seen, cell_subject
from chimera.platform.reasons import MEANINGS, Aspect, Reason

AWAY = 10.0
"""A watch that has failed for so many seconds is told of; a shorter break nobody needs to hear of."""


class CellObserver:
    """The `ConditionSource` of a cluster. `run` it beside the reconciler that it looks at."""

    def __init__(self, api: Kubernetes, reconciler: Reconciler, clock: Clock, settings: KnativeSettings) -> None:
        """Follow pods of cells; Services, revisions and what is wanted are the reconciler's to say."""
        self._api = api
        self._reconciler = reconciler
        self._clock = clock
        self._leeway = settings.clock_leeway
        self._namespace = namespace = settings.namespace
        self._pods: Following[Pod] = Following(api, PODS, namespace=namespace, selector=names.managed())
        self._news = asyncio.Event()
        self._pods.on_change(self._pods_changed)
        reconciler.on_change(self._news.set)
        self._followed = (reconciler.services, reconciler.revisions, self._pods)
        for one in self._followed:
            one.on_failure(self._news.set)
        self._running: dict[tuple[str, str], Pod] = {}
        self._incidents: dict[str, dict[Reason, tuple[float, Evidence]]] = defaultdict(dict)

    async def run(self) -> None:
        """Follow until cancelled."""
        await self._pods.run()

    async def changed(self, within: float) -> None:
        """See `ConditionSource`."""
        failing = any(one.failure is not None for one in self._followed)
        with suppress(TimeoutError):
            async with asyncio.timeout(min(within, AWAY) if failing else within):
                await self._news.wait()

    async def seen(self) -> Sight:
        """See `ConditionSource`."""
        self._news.clear()
        trouble = self._away()
        told = trouble or self._skewed()
        home = Seen(subject=HOME, tenant=DEFAULT_TENANT, evidence=(told,) if told else ())
        if trouble is not None:
            return Sight(subjects=(home,), whole=False)
        if not self._reconciler.planned or not all(one.synced.is_set() for one in self._followed):
            return Sight(subjects=(), whole=False)
        return Sight(subjects=(home, *self._cells()), whole=True)

    def _away(self) -> Evidence | None:
        now = asyncio.get_running_loop().time()
        for one in self._followed:
            if one.failure is not None and one.failing_since is not None and now - one.failing_since >= AWAY:
                return Evidence(
                    reason=Reason(one.failure.reason),
                    message=one.failure.detail,
                    next_step=one.failure.next_step or "",
                )
        return None

    def _skewed(self) -> Evidence | None:
        skew = self._api.skew
        if abs(skew) <= self._leeway:
            return None
        which = "ahead of" if skew > 0 else "behind"
        return Evidence(
            reason=Reason.CLOCK_SKEWED, message=f"the API server's clock is {abs(skew):.0f} s {which} this machine's"
        )

    def _cells(self) -> list[Seen]:
        now = self._clock.wall()
        pods: dict[str, list[Pod]] = defaultdict(list)
        for pod in self._pods.objects.values():
            pods[pod.metadata.annotations.get(names.CELL, "")].append(pod)
        revisions: dict[str, list[Revision]] = defaultdict(list)
        for revision in self._reconciler.revisions.objects.values():
            revisions[revision.metadata.labels.get(names.KNATIVE_SERVICE, "")].append(revision)
        found = [
            self._cell(state, revisions.get(state.service, []), pods.get(state.cell, []), now)
            for state in self._reconciler.states
        ]
        known = {state.cell for state in self._reconciler.states}
        for cell in self._incidents.keys() - known:
            del self._incidents[cell]
        return found

    def _cell(self, state: CellState, revisions: list[Revision], pods: list[Pod], now: float) -> Seen:
        service = self._reconciler.services.objects.get((self._namespace, state.service))
        evidence = [_tried(one, state.tries) for one in symptoms(service, revisions, pods, now)]
        incidents = self._incidents[state.cell]
        for one in evidence:
            if MEANINGS[one.reason].aspect is Aspect.HEALTHY and one.reason not in incidents:
                incidents[one.reason] = (now, one)
        for reason, (at, _) in tuple(incidents.items()):
            if now - at > RECENT:
                del incidents[reason]
        evidence += [one for _, one in incidents.values()]
        if state.reason is not None:
            evidence.append(Evidence(reason=state.reason, message=state.cause, next_step=state.next_step))
        elif state.phase is Phase.FAILED and service is not None and any(one.percent for one in service.status.traffic):
            evidence.append(Evidence(reason=Reason.ROLLOUT_FAILED, message=state.cause, next_step=state.next_step))
        return Seen(
            subject=cell_subject(state.cell),
            tenant=tenant_of_cell(state.cell),
            ready_hosts=sum(is_ready(pod) for pod in pods),
            accepted=service is not None,
            there=service is not None,
            evidence=tuple(dict.fromkeys(evidence)),
        )

    def _pods_changed(self, changed: Iterable[Pod]) -> None:
        self._news.set()
        for pod in changed:
            key = (pod.metadata.namespace, pod.metadata.name)
            if key in self._pods.objects and is_ready(pod):
                self._running[key] = pod
                continue
            before = self._running.pop(key, None)
            if before is None or (key in self._pods.objects and not is_forced(pod)):
                continue  # it isn't ready any more; one that is told to end says so before it goes
            if before.metadata.resource_version == pod.metadata.resource_version:
                continue  # a list doesn't have it any more, and how it went nobody saw
            cell, node = pod.metadata.annotations.get(names.CELL, ""), pod.spec.node_name
            evidence = Evidence(
                reason=Reason.HOST_DIED, message=f"pod {pod.metadata.name} on {node} was removed without time to end"
            )
            self._incidents[cell][evidence.reason] = (self._clock.wall(), evidence)


def _tried(one: Evidence, tries: str) -> Evidence:
    """What keeps a cell from starting, and that it is tried again."""
    if not tries or MEANINGS[one.reason].aspect is not Aspect.STARTABLE:
        return one
    return replace(one, message=f"{one.message}; {tries}")
