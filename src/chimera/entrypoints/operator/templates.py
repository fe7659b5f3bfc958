"""The loop over our AgentTemplates: whether agents can extend each. What they hold is used by the loop over Agents."""

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.following import Following
from chimera.adapters.substrates.knative.resources.claims import Claim
from chimera.adapters.substrates.knative.resources.composing import name_is_taken
from chimera.adapters.substrates.knative.resources.kinds import TEMPLATES, Definition
from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.adapters.substrates.knative.resources.status import document, template_status
from chimera.entrypoints.operator.claiming import Claims
from chimera.entrypoints.operator.loop import Loop, moment_of
from chimera.entrypoints.operator.writing import StatusWriter
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease


class TemplateLoop(Loop):
    """Templates of all namespaces."""

    kind = "agenttemplates"

    def __init__(
        self, api: Kubernetes, catalogue: Catalogue, clock: Clock, settings: OperatorSettings, claims: Claims
    ) -> None:
        """Nothing is followed yet."""
        super().__init__(catalogue, clock, settings)
        self.templates: Following[Definition] = Following(api, TEMPLATES, namespace=None, selector="")
        self.templates.on_change(self.poke)
        self._claims = claims
        claims.on_change(self.poke)
        self.writer = StatusWriter(api, TEMPLATES, self.templates, clock, settings.statuses_per_second)

    async def begin(self) -> None:
        """See `Loop`."""
        await self._claims.known()
        await self.templates.synced.wait()

    async def follow(self) -> None:
        """Nothing in the catalogue matters to a template."""

    async def look(self, held: Lease) -> float | None:
        """See `Loop`."""
        now, moment = self.clock.monotonic(), moment_of(self.clock)
        self.writer.keep(self.templates.objects)
        found = []
        for key, one in self.templates.objects.items():
            if self._claims.of(key[0]) is not Claim.OURS:
                continue
            status = template_status(name_is_taken(key[1]), one.metadata.generation, one.status, moment)
            if status != one.status and self.writer.may(key, now):
                found.append((key, document(TEMPLATES, one.metadata, status)))
        await self.writer.write(found)
        return self.writer.look_again()
