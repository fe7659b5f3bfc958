"""JAEGIS as others ask it: the quality of definitions, and whether they fit the ecosystem that is live now."""

import asyncio
from collections.abc import Sequence

from chimera.agents.compile import CompiledAgent
from chimera.jaegis.creator.model import Misfit
from chimera.jaegis.creator.settings import CreatorSettings
from chimera.jaegis.creator.validation import validate
from chimera.jaegis.ecosystem import Ecosystem, Ecosystems, LiveAgents, member_of
from chimera.jaegis.quality.model import Assessment
from chimera.jaegis.quality.scoring import assess_all
from chimera.jaegis.quality.settings import QualitySettings
from chimera.kernel.clock import Clock


class Jaegis:
    """The components of JAEGIS that judge definitions. They share one snapshot of each tenant's live agents."""

    def __init__(
        self,
        live: LiveAgents,
        clock: Clock,
        *,
        quality: QualitySettings | None = None,
        creator: CreatorSettings | None = None,
        models: frozenset[str] | None = None,
    ) -> None:
        """Judge beside what `live` says; `models` are those that agents may name, None where nobody knows."""
        self.quality = quality or QualitySettings()
        self._creator = creator or CreatorSettings()
        self._models = models
        self._ecosystems = Ecosystems(live, clock)

    async def ecosystem(self, tenant: str) -> Ecosystem:
        """The live agents of a tenant now."""
        return await self._ecosystems.of(tenant)

    async def assess(self, tenant: str, agents: Sequence[CompiledAgent], gone: Sequence[str] = ()) -> list[Assessment]:
        """The quality of definitions, in their order; `gone` are agents that the same change takes out."""
        ecosystem = await self.ecosystem(tenant)
        return await asyncio.to_thread(assess_all, agents, ecosystem, self.quality, gone=gone)

    async def validate(
        self, tenant: str, agents: Sequence[CompiledAgent], gone: Sequence[str] = (), owner: str | None = None
    ) -> list[Misfit]:
        """What of definitions, and of agents that are taken out with them, doesn't fit the ecosystem."""
        ecosystem = await self.ecosystem(tenant)

        def work() -> list[Misfit]:
            members = [member_of(one.value, one.digest) for one in agents]
            return validate(members, gone, ecosystem, self._creator, models=self._models, owner=owner)

        return await asyncio.to_thread(work)
