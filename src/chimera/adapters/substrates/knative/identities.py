"""Who a pod is: its service account's token, reviewed by the cluster, and the pod that the token is bound to.

The token is made for the audience of this platform alone, so one that a host leaks is good for nothing else, and one
that something else leaks is no good here. It names its pod; the pod, looked up, says its cell. A pod can't change its
own annotations, since hosts have no permission at all, so what it says of its cell is what the reconciler wrote.
"""

import msgspec
from msgspec import Struct

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterError, NotInCluster
from chimera.adapters.substrates.knative.objects import PODS
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.gateway.errors import NodeUnavailable, Unauthenticated
from chimera.gateway.ports import HostIdentity

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
MAX_TOKEN = 16_384
POD_NAME, POD_UID = "authentication.kubernetes.io/pod-name", "authentication.kubernetes.io/pod-uid"


class _User(Struct, frozen=True, kw_only=True):
    username: str = ""
    extra: dict[str, list[str]] = {}


class _Status(Struct, frozen=True, kw_only=True):
    authenticated: bool = False
    audiences: list[str] | None = None
    user: _User = _User()
    error: str = ""


class _Review(Struct, frozen=True, kw_only=True):
    status: _Status = _Status()


_reviews = msgspec.json.Decoder(_Review)


class PodIdentities:
    """Vouches for pods of cells (the port `HostIdentities`)."""

    def __init__(self, api: Kubernetes, settings: KnativeSettings) -> None:
        """Ask the cluster behind `api`."""
        self._api = api
        self._settings = settings

    async def identify(self, token: str) -> HostIdentity:
        """See `HostIdentities`."""
        if not token or len(token) > MAX_TOKEN or not token.isascii():
            raise _refused("no token of a service account was shown")
        try:
            return await self._identify(token)
        except ClusterError as error:
            raise NodeUnavailable(
                f"the cluster can't say whose token this is: {error.detail}",
                next_step=error.next_step,
                retry_after=error.retry_after or 2,
            ) from error

    async def _identify(self, token: str) -> HostIdentity:
        settings = self._settings
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [settings.audience]},
        }
        status = _reviews.decode(await self._api.create(REVIEWS, asked)).status
        if not status.authenticated or settings.audience not in (status.audiences or ()):
            why = f" ({status.error})" if status.error else ""  # a clock that is wrong is told so
            raise _refused(f"the cluster doesn't know the token, or it is for another audience{why}")
        account = f"system:serviceaccount:{settings.namespace}:{settings.service_account}"
        if status.user.username != account:
            raise _refused(f"{status.user.username[:200]} is not the service account of hosts")
        name, uid = (_only(status.user.extra, key) for key in (POD_NAME, POD_UID))
        if name is None or uid is None:
            raise _refused("the token is bound to no pod")
        try:
            pod = await self._api.get(PODS, settings.namespace, name)
        except NotInCluster:
            raise _refused(f"there is no pod {name}") from None
        cell = pod.metadata.annotations.get(names.CELL)
        if pod.metadata.uid != uid or cell is None or pod.metadata.labels.get(names.MANAGED_BY) != names.MANAGER:
            raise _refused(f"pod {name} is no host of a cell, or not the one that the token was made for")
        return HostIdentity(host=name, cell=cell, unique=uid)


def _only(extra: dict[str, list[str]], key: str) -> str | None:
    values = extra.get(key, [])
    return values[0] if len(values) == 1 else None


def _refused(detail: str) -> Unauthenticated:
    return Unauthenticated(detail, next_step="hosts are pods of cells, with a projected token of their service account")
