"""The admission webhook, put together: every control plane answers, the one with the lease keeps the certificates."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct
from prometheus_client.registry import Collector

from chimera.adapters.substrates.knative.admission.certificates import Shown
from chimera.adapters.substrates.knative.admission.judging import AgentJudge, judge_rollout
from chimera.adapters.substrates.knative.admission.keeper import CertificateKeeper, CurrentCertificate
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.entrypoints.admission.review import Asked, Judge, Reviewed, review
from chimera.entrypoints.admission.server import AdmissionServer
from chimera.kernel.clock import Clock, SystemClock
from chimera.kernel.ids import new_id
from chimera.kernel.leases import Lease, Leases, work_while_held

LEASE = "admission-certificates"
AGENTS, ROLLOUTS = "agents", "rollouts"

Loops = dict[str, Callable[[], Coroutine[Any, Any, None]]]
"""What goes on for as long as a process does, by name."""


class AdmissionConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the webhook listens, which names it has, and which objects of the cluster are its own."""

    host: str
    port: int
    namespace: str
    secret: str
    configuration: str
    names: tuple[str, ...]


class Admission:
    """The webhook of one process. Made inside the event loop."""

    def __init__(self, config: AdmissionConfig, api: Kubernetes, clock: Clock) -> None:
        """Nothing runs before `serve`."""
        self._config, self._api, self._clock = config, api, clock
        self._judge = AgentJudge(api)
        self._judges: dict[str, Judge] = {AGENTS: self._judge, ROLLOUTS: judge_rollout}
        self.server = AdmissionServer(self._review, host=config.host, port=config.port)

    @property
    def metrics(self) -> Collector:
        """What the process shows of it."""
        return self.server.metrics.registry

    async def serve(self) -> None:
        """Answer, with whatever certificate the Secret holds, until cancelled."""
        current = CurrentCertificate(
            self._api,
            namespace=self._config.namespace,
            secret=self._config.secret,
            names=self._config.names,
            show=self._show,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(current.run(), name="admission-certificate")
            group.create_task(self._judge.run(), name="admission-templates")
            group.create_task(self.server.run(), name="admission-server")

    async def keep_certificates(self, leases: Leases, life: float) -> None:
        """Keep the certificates, whenever this process holds the lease of that."""
        keeper = CertificateKeeper(
            self._api,
            self._clock,
            namespace=self._config.namespace,
            secret=self._config.secret,
            configuration=self._config.configuration,
            names=self._config.names,
        )

        async def work(_: Lease) -> None:
            await keeper.run()

        await work_while_held(leases, LEASE, new_id("cp"), life, work)

    def _show(self, shown: Shown) -> None:
        self.server.show(shown.certificate, shown.key, shown.ends)

    def _review(self, asked: Asked) -> Reviewed:
        return review(asked, self._judges.get(asked.resource.resource))


def add_admission(
    config: AdmissionConfig | None,
    api: Kubernetes | None,
    leases: Leases,
    life: float,
    loops: Loops,
) -> list[Collector]:
    """Add the webhook to `loops` where there is one; what the process shows of it."""
    if config is None or api is None:
        return []
    admission = Admission(config, api, SystemClock())
    loops["admission"] = admission.serve
    loops["admission-certificates"] = lambda: admission.keep_certificates(leases, life)
    return [admission.metrics]
