"""Making environments and taking them away: by the catalogue, as production's agents are made and taken away.

Whoever makes one names what it is for; the same purpose is the same environment, so work that is begun again finds it.
One that nobody takes away is taken away when its time is over. What it leaves behind (rows of deleted agents, their
revisions, tasks and runs) goes a while later, when every gateway has seen that its agents are gone.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Sequence

from chimera.agents.catalogue import StagedItem
from chimera.agents.compile import CanonicalDefinition, CompiledAgent, compile_definition
from chimera.agents.validate import check_data
from chimera.delivery.trials import judging
from chimera.delivery.trials.environment import Environment, compiled_for, name_of, reached
from chimera.delivery.trials.errors import EnvironmentTooLarge
from chimera.delivery.trials.model import Tools
from chimera.delivery.trials.ports import Definitions, EnvironmentStore
from chimera.delivery.trials.settings import TrialSettings
from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

CHUNK = 500
BY = "system:trials"
LEFT_BEHIND = 600.0
"""Seconds after its end in which an environment's rows stay, so that gateways see its agents go."""
PURGED = 2_000


class Environments:
    """The environments of all tenants. `changed` is called after each change of agents."""

    def __init__(
        self,
        definitions: Definitions,
        store: EnvironmentStore,
        clock: Clock,
        settings: TrialSettings,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Make them of `definitions`, remember them in `store`."""
        self._definitions = definitions
        self._store = store
        self._clock = clock
        self._settings = settings
        self._changed = changed

    async def make(
        self,
        tenant: str,
        purpose: str,
        key: str,
        values: Sequence[CanonicalDefinition],
        *,
        tools: Tools,
        scripted: Collection[str] = (),
        judge: bool = False,
        held: Lease | None = None,
    ) -> tuple[str, str | None]:
        """An environment of `tenant` that holds `values`, and a judge where one is wanted; its name and the judge's.

        The tools of the agents named in `scripted` are, whatever those of the others are.
        Raises `TooManyEnvironments`, `EnvironmentTooLarge`, and `LeaseLost` where `held` is another's by now.
        """
        if len(values) > self._settings.agents:
            raise EnvironmentTooLarge(
                f"an environment holds {self._settings.agents:,} agents at most, not {len(values):,}",
                next_step="test fewer at once, or raise the setting trials.agents",
            )
        name, now = name_of(tenant, purpose, key), self._clock.wall()
        wanted = Environment(
            name=name, tenant=tenant, purpose=purpose, key=key, created=now, expires=now + self._settings.life
        )
        await self._store.open(wanted, most=self._settings.environments, held=held)
        batch = await self._definitions.open_batch(name)
        judging_agent = None
        for first in range(0, len(values), CHUNK):
            some = values[first : first + CHUNK]
            await self._copy_bundles(tenant, name, some)
            made = await asyncio.to_thread(_compiled, some, name, tools, scripted)
            await self._definitions.stage(name, batch, _staged(made, first))
        if judge:
            judging_agent = judging.free_name({value.agent.name for value in values})
            told = judging.definition(judging_agent, self._settings.judge_model, self._settings.judge_tokens)
            made = [compile_definition(check_data(told), tenant=name)]
            await self._definitions.stage(name, batch, _staged(made, len(values)))
        await self._definitions.commit(name, batch, by=BY, held=held)
        self._changed()
        return name, judging_agent

    async def neighbours(self, tenant: str, values: Sequence[CanonicalDefinition]) -> list[CanonicalDefinition]:
        """The live agents that `values` may call, and those that these may call, without `values` themselves."""
        known = {value.agent.name for value in values}
        found: list[CanonicalDefinition] = []
        todo = sorted({name for value in values for name in reached(value)} - known)
        while todo:
            some, todo = todo[:CHUNK], todo[CHUNK:]
            known.update(some)
            # The call of one that isn't there fails there as it does in production.
            rows = await self._definitions.agents_named(tenant, some)
            kept = await self._definitions.compiled_many(tenant, [row.revision for row in rows])
            live = [kept[row.revision].value for row in sorted(rows, key=lambda row: row.name) if row.revision in kept]
            found += live
            todo += sorted({name for value in live for name in reached(value)} - known - set(todo))
        return found

    async def remove(self, tenant: str, purpose: str, key: str, *, held: Lease | None = None) -> None:
        """Take away what was made for this; nothing where there is none. Raises `LeaseLost` as `make` does."""
        name = name_of(tenant, purpose, key)
        if any(one.name == name and one.closed is None for one in await self._store.all(tenant)):
            await self._close(name, held)

    async def sweep(self) -> None:
        """Take away what is over its time, and remove what was left behind."""
        now = self._clock.wall()
        for one in await self._store.all():
            try:
                if one.closed is None and one.expires <= now:
                    log.warning("an environment was left over", extra={"environment": one.name, "purpose": one.purpose})
                    await self._close(one.name)
                elif one.closed is not None and one.closed + LEFT_BEHIND <= now:
                    await self._store.purge(one.name, PURGED)
            except ProblemError as error:
                log.warning("an environment stays for now", extra={"environment": one.name, "problem": error.detail})

    async def _close(self, name: str, held: Lease | None = None) -> None:
        while live := await self._definitions.agents(name, {}, "", CHUNK):
            await self._definitions.delete_agents(name, [row["name"] for row in live], by=BY, held=held)
        await self._store.close(name, self._clock.wall(), held=held)
        self._changed()

    async def _copy_bundles(self, tenant: str, name: str, values: Iterable[CanonicalDefinition]) -> None:
        sources = {value.agent.source.bundle: value.agent.source for value in values if value.agent.source is not None}
        for digest, source in sources.items():
            if await self._definitions.bundle(name, digest) is None:
                data = await self._definitions.bundle(tenant, digest)
                if data is not None:  # else staging says that it is gone
                    await self._definitions.put_bundle(name, digest, data, source.requirements)


def _compiled(
    values: Sequence[CanonicalDefinition], name: str, tools: Tools, scripted: Collection[str]
) -> list[CompiledAgent]:
    return [compiled_for(value, name, "scripted" if value.agent.name in scripted else tools) for value in values]


def _staged(made: Sequence[CompiledAgent], first: int) -> list[StagedItem]:
    return [StagedItem(position=place, source="", compiled=one) for place, one in enumerate(made, first)]
