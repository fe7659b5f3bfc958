"""The loop that keeps the webhook's certificates: in a Secret, and their authorities where the API server reads them.

It is seen by two watches, each of one object by its name, and nothing is asked or written while nothing is due. Both
objects are the installation's; the loop owns a few fields of them, as a field manager of its own: the Secret's `data`,
and `caBundle` of each webhook. Where somebody else has set `caBundle`, it stays his, and that is said in the log.

Several may run; a lease sees to it that one does (`bootstrap`).
"""

import asyncio
import base64
import logging
from collections.abc import Callable

from msgspec import Struct

from chimera.adapters.substrates.knative.admission.certificates import (
    Kept,
    Shown,
    decide,
    from_data,
    make_certificate,
    to_data,
)
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterError
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.objects import Meta, Resource
from chimera.kernel.clock import Clock

log = logging.getLogger(__name__)

FIELD_MANAGER = "chimera-admission"
RETRY = 30.0
LOOK_AGAIN = 3600.0
"""A wait is cut into pieces of this, since a wall clock may be set meanwhile."""


class Secret(Struct, frozen=True, kw_only=True):
    """A Secret; its values are base64."""

    metadata: Meta = Meta()
    data: dict[str, str] = {}


class ClientConfig(Struct, frozen=True, kw_only=True, rename={"bundle": "caBundle"}):
    """How the API server reaches a webhook."""

    bundle: str = ""


class Webhook(Struct, frozen=True, kw_only=True, rename="camel"):
    """One webhook of a configuration."""

    name: str
    client_config: ClientConfig = ClientConfig()


class WebhookConfiguration(Struct, frozen=True, kw_only=True):
    """Which webhooks the API server asks."""

    metadata: Meta = Meta()
    webhooks: list[Webhook] = []


SECRETS = Resource("", "v1", "secrets", "Secret", Secret)
CONFIGURATIONS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    WebhookConfiguration,
    namespaced=False,
)


class CertificateKeeper:
    """Keeps certificates for `names`. `run` it in one process at a time."""

    def __init__(
        self, api: Kubernetes, clock: Clock, *, namespace: str, secret: str, configuration: str, names: tuple[str, ...]
    ) -> None:
        """Nothing runs before `run`."""
        self._api = api
        self._clock = clock
        self._namespace, self._secret, self._configuration, self._names = namespace, secret, configuration, names
        self._secrets = Following(api, SECRETS, namespace=namespace, name=secret)
        self._configurations = Following(api, CONFIGURATIONS, namespace=None, name=configuration)
        self._changed = asyncio.Event()
        self._secrets.on_change(lambda _: self._changed.set())
        self._configurations.on_change(lambda _: self._changed.set())
        self._seen: tuple[Kept, bool] | None = None
        self._since = 0.0

    async def run(self) -> None:
        """Keep them until cancelled."""
        self._seen = None  # what it knew may be hours old
        following = [
            asyncio.create_task(self._secrets.run(), name="admission-secret"),
            asyncio.create_task(self._configurations.run(), name="admission-configuration"),
        ]
        try:
            await self._secrets.synced.wait()
            await self._configurations.synced.wait()
            while True:
                self._changed.clear()
                try:
                    wait = await self._once()
                except ClusterError as error:
                    wait = error.retry_after or RETRY
                    extra = {"error": error.detail, "next_step": error.next_step}
                    log.warning("the webhook's certificates could not be kept", extra=extra)
                    await asyncio.sleep(wait)
                    continue
                try:
                    async with asyncio.timeout(min(wait, LOOK_AGAIN)):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)

    async def _once(self) -> float:
        """Do what is due; in how many seconds to look again."""
        secret = self._secrets.objects.get((self._namespace, self._secret))
        configuration = self._configurations.objects.get(("", self._configuration))
        if secret is None or configuration is None:
            return LOOK_AGAIN  # nothing is installed; both are followed
        kept = from_data(secret.data, self._names)
        bundle = base64.b64encode(kept.bundle.encode()).decode()
        believed = _believes(configuration, bundle)
        if (kept, believed) != self._seen:
            self._seen, self._since = (kept, believed), self._clock.monotonic()
        steady = self._clock.monotonic() - self._since if believed else 0.0
        step = decide(kept, steady=steady, now=self._clock.wall(), make=self._make)
        if step.keep is not None:
            made = await self._api.apply(SECRETS, self._kept(step.keep), force=True, manager=FIELD_MANAGER)
            self._secrets.take(made, secret)
            log.info("the webhook's certificate", extra={"step": step.name, "ends": _ends(step.keep)})
            return 0.0 if from_data(made.data, self._names) == step.keep else RETRY
        if not believed:
            # All of them: what a manager applies no more is taken away.
            manifest = self._believed(bundle, [one.name for one in configuration.webhooks])
            told = await self._api.apply(CONFIGURATIONS, manifest, manager=FIELD_MANAGER)
            self._configurations.take(told, configuration)
            return 0.0 if _believes(told, bundle) else RETRY
        return step.wait

    def _make(self) -> Shown:
        return make_certificate(self._names, self._clock.wall())

    def _kept(self, kept: Kept) -> dict[str, object]:
        meta = {"name": self._secret, "namespace": self._namespace}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": to_data(kept)}

    def _believed(self, bundle: str, names: list[str]) -> dict[str, object]:
        return {
            "apiVersion": CONFIGURATIONS.api_version,
            "kind": CONFIGURATIONS.kind,
            "metadata": {"name": self._configuration},
            "webhooks": [{"name": name, "clientConfig": {"caBundle": bundle}} for name in names],
        }


class CurrentCertificate:
    """What every process shows: the certificate in the Secret, whenever it changes. `run` it."""

    def __init__(
        self,
        api: Kubernetes,
        *,
        namespace: str,
        secret: str,
        names: tuple[str, ...],
        show: Callable[[Shown], None],
    ) -> None:
        """`show` is told of each certificate once."""
        self._secrets = Following(api, SECRETS, namespace=namespace, name=secret)
        self._secrets.on_change(lambda _: self._look())
        self._key, self._names, self._show = (namespace, secret), names, show
        self._shown: Shown | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        await self._secrets.run()

    def _look(self) -> None:
        secret = self._secrets.objects.get(self._key)
        current = from_data(secret.data, self._names).current if secret is not None else None
        if current is not None and current != self._shown:
            self._shown = current
            self._show(current)


def _believes(configuration: WebhookConfiguration, bundle: str) -> bool:
    return all(one.client_config.bundle == bundle for one in configuration.webhooks)


def _ends(kept: Kept) -> float:
    return kept.current.ends if kept.current is not None else 0.0
