"""Where hosts run: the node agent of this machine, or Knative; the only place that chooses."""

import hashlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chimera.adapters.storage.conditions import StoredConditions
from chimera.adapters.storage.database import Database
from chimera.adapters.substrates.knative.access import ClusterAccess, from_kubeconfig, in_cluster
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import AccessFault
from chimera.adapters.substrates.knative.identities import PodIdentities
from chimera.adapters.substrates.knative.pool import KnativePool
from chimera.adapters.substrates.knative.render import HostBounds
from chimera.adapters.substrates.knative.reporting import KnativeReport
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.adapters.substrates.local import procfs
from chimera.adapters.substrates.node_client import NodeClient
from chimera.bootstrap.gateway_config import GatewayConfig
from chimera.bootstrap.gateway_parts import FollowedPool, ReportOf
from chimera.gateway.ports import HostIdentities
from chimera.gateway.routes import RouteTable
from chimera.gateway.settings import AdmissionSettings, DeadlineSettings, GatewaySettings, HttpSettings
from chimera.gateway.tokens import host_key
from chimera.kernel.clock import SystemClock
from chimera.kernel.settings import load_group
from chimera.platform.conditions import Condition

CELLS_LEASE = "knative-cells"
"""Whoever holds it keeps a cluster's cells, and says how they are."""


def cluster_place(cells: str) -> str:
    """The name under which the conditions of a cluster's namespace of cells are kept."""
    return f"knative/{cells}"


def machine_place(home: str | None) -> str:
    """The name under which a machine's conditions are kept: several homes may share a database."""
    named = f"{socket.gethostname()}:{home or ''}"
    return f"machine/{hashlib.sha256(named.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Substrate:
    """The gateway's hosts, who vouches for them, and what people see of them; on one machine the node agent does."""

    pool: FollowedPool
    identities: HostIdentities | None = None
    report: ReportOf | None = None


def make_substrate(
    config: GatewayConfig,
    settings: GatewaySettings,
    environ: Mapping[str, str],
    token_secret: bytes,
    database: Database,
) -> Substrate:
    """Where this gateway's hosts run. Made inside the event loop."""
    clock = SystemClock()
    if config.knative is None:
        return Substrate(pool=NodeClient(config.node_socket, clock, sample=settings.routes.sample))
    knative = knative_settings(config.knative)
    api = Kubernetes(cluster(config.kubeconfig, environ))

    def key_of(host: str, unique: str) -> str:
        return host_key(token_secret, host=host, unique=unique)

    stored = StoredConditions(database, cluster_place(knative.namespace))

    async def conditions(cell: str) -> Sequence[Condition]:
        return await stored.kept(cell, CELLS_LEASE)

    pool = KnativePool(api, clock, namespace=knative.namespace, key_of=key_of, conditions=conditions)

    def report(routes: RouteTable) -> KnativeReport:
        return KnativeReport(
            api,
            pool,
            clock,
            namespace=knative.namespace,
            key_of=key_of,
            spec_of=routes.cell,
            cells_of=routes.cells_of,
            own_pod=environ.get("HOSTNAME", ""),
            use=_own_use,
        )

    return Substrate(pool=pool, identities=PodIdentities(api, knative), report=report)


def _own_use() -> tuple[int, float | None, int]:
    own = os.getpid()
    return own, procfs.cpu_seconds(own), procfs.proportional_bytes(own)


def knative_settings(values: Mapping[str, Any]) -> KnativeSettings:
    """The group `knative`, checked."""
    return load_group(KnativeSettings, values, where="knative")


def host_bounds(groups: Mapping[str, Mapping[str, Any]]) -> HostBounds:
    """The bounds of a host's calls, from the gateway's groups of settings as they were written."""
    deadlines = load_group(DeadlineSettings, groups.get("deadlines", {}), where="deadlines")
    admission = load_group(AdmissionSettings, groups.get("admission", {}), where="admission")
    http = load_group(HttpSettings, groups.get("http", {}), where="http")
    deadlines.check()
    return HostBounds(
        request_timeout=deadlines.host,
        platform_timeout=deadlines.platform,
        stream_idle=http.stream_idle,
        concurrency=admission.host_concurrency,
    )


def cluster(kubeconfig: str | None, environ: Mapping[str, str]) -> ClusterAccess:
    """The cluster that a kubeconfig names, or the one that this process is a pod of."""
    if kubeconfig is not None:
        return from_kubeconfig(Path(kubeconfig), SystemClock())
    found = in_cluster(environ, SystemClock())
    if found is None:
        raise AccessFault("this process is no pod of a cluster", next_step="name a cluster's kubeconfig")
    return found
