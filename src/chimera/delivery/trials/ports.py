"""What tests need of the rest of the platform."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from chimera.agents.catalogue import Applied, OwnedAgent, StagedItem
from chimera.agents.compile import CompiledAgent
from chimera.delivery.model import Outcome
from chimera.delivery.trials.asking import Ask, Told
from chimera.delivery.trials.environment import Environment
from chimera.delivery.trials.model import Candidate, CaseResult, Run, RunState
from chimera.kernel.leases import Lease


class Calls(Protocol):
    """Whatever makes calls in environments, in the hosts that serve."""

    async def call(self, ask: Ask) -> Told:
        """One call, over at its deadline whatever happens to it.

        The same key is the same call, whoever else waits for it or has waited; it raises `NotRun` where the key was
        another call's. A call that nobody waits for any more is cancelled, and made anew when it is asked for again.
        """


class Definitions(Protocol):
    """The catalogue of agents, of all tenants."""

    async def compiled_many(self, tenant: str, digests: Sequence[str]) -> dict[str, CompiledAgent]:
        """Revisions by their digests; those that aren't kept are left out."""

    async def agents_named(self, tenant: str, names: Sequence[str]) -> list[OwnedAgent]:
        """Live agents by name; those that aren't there are left out."""

    async def agents(self, tenant: str, filters: Mapping[str, str], after: str, limit: int) -> list[dict[str, Any]]:
        """A page of live agents by name."""

    async def bundle(self, tenant: str, digest: str) -> bytes | None:
        """A source bundle's bytes."""

    async def put_bundle(self, tenant: str, digest: str, data: bytes, requirements: str | None) -> None:
        """Keep a source bundle."""

    async def open_batch(self, tenant: str, key: str | None = None) -> str:
        """Open a batch of definitions."""

    async def stage(self, tenant: str, batch_id: str, items: Sequence[StagedItem]) -> None:
        """Add definitions to it."""

    async def commit(
        self,
        tenant: str,
        batch_id: str,
        *,
        keep_going: bool = False,
        expect: int | None = None,
        by: str | None = None,
        held: Lease | None = None,
    ) -> Applied:
        """Make them live."""

    async def delete_agents(
        self, tenant: str, names: Sequence[str], *, by: str | None = None, held: Lease | None = None
    ) -> tuple[int, int]:
        """Take agents out of service."""


class EnvironmentStore(Protocol):
    """What is remembered of environments, for all control planes.

    Who works under a lease shows it: `LeaseLost` is raised where `held` is another's by now, and nothing is written.
    """

    async def open(self, wanted: Environment, *, most: int, held: Lease | None = None) -> Environment:
        """Note an environment before it is made; one of that name is found, and open again, with its new end.

        Raises `TooManyEnvironments` where its tenant has `most` others.
        """

    async def all(self, tenant: str | None = None) -> Sequence[Environment]:
        """Those of a tenant, or of all, the oldest first; closed ones too."""

    async def close(self, name: str, now: float, *, held: Lease | None = None) -> None:
        """Note that it is taken away."""

    async def purge(self, name: str, limit: int) -> int:
        """Remove up to `limit` rows of each kind that its tenant has left behind, and at last its own; how many.

        None of one that is open, again perhaps since it was looked at.
        """


class RunStore(Protocol):
    """Runs of tests and their results, for all control planes; `held` as for environments."""

    async def create(self, run: Run, candidates: Sequence[Candidate], key: str) -> Run:
        """Keep a new run, or find the tenant's one of this key."""

    async def get(self, tenant: str, run: str) -> Run | None:
        """A run."""

    async def page(self, tenant: str, before: str | None, limit: int) -> Sequence[Run]:
        """Runs of a tenant, the newest first, those before an id."""

    async def unfinished(self) -> Sequence[Run]:
        """Runs of all tenants that are not over, the oldest first."""

    async def candidates(self, tenant: str, run: str) -> Sequence[Candidate]:
        """What a run tests."""

    async def begin(self, tenant: str, run: str, *, total: int, untested: int) -> Collection[tuple[str, str]]:
        """It is worked on: so many cases. The agents and cases that have results already."""

    async def add(self, tenant: str, run: str, results: Sequence[CaseResult], *, held: Lease | None = None) -> bool:
        """Keep results; one that is there stays. Whether the run goes on: it doesn't once it was cancelled."""

    async def finish(
        self,
        tenant: str,
        run: str,
        state: RunState,
        *,
        by: str,
        problem: str | None = None,
        held: Lease | None = None,
    ) -> Run | None:
        """It is over, if it wasn't; what it is now."""

    async def results(
        self, tenant: str, run: str, *, outcomes: Collection[Outcome], after: tuple[str, str], limit: int
    ) -> Sequence[CaseResult]:
        """A page of results, by agent and case; of these outcomes, or of all where none is given."""
