"""The parts of tests, put together on the database."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.tasks.store import TaskStorage
from chimera.adapters.storage.trials.calls import TaskCalls
from chimera.adapters.storage.trials.environments import StoredEnvironments
from chimera.adapters.storage.trials.runs import StoredRuns
from chimera.adapters.storage.trials.traffic import StoredTraffic
from chimera.delivery.staging.service import ChangeStaging
from chimera.delivery.trials.check import OwnTests
from chimera.delivery.trials.environments import Environments
from chimera.delivery.trials.service import Trials
from chimera.delivery.trials.settings import TrialSettings
from chimera.entrypoints.control_plane.trials import TrialHandlers
from chimera.gateway.tasks.settings import TaskSettings
from chimera.kernel.clock import SystemClock
from chimera.kernel.leases import Leases, work_while_held
from chimera.kernel.settings import load_group
from chimera.platform.upkeep.rules import DAY

LEASE = "tests"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialParts:
    """Runs of tests: what works on them, what answers for them, the check that changes pass, and their staging."""

    trials: Trials
    environments: Environments
    calls: TaskCalls
    handlers: TrialHandlers
    check: OwnTests
    staging: ChangeStaging

    async def while_held(self, leases: Leases, owner: str, life: float) -> None:
        """Work on runs whenever this process holds the lease."""
        await work_while_held(leases, LEASE, owner, life, self.trials.work)


def make_trials(
    database: Database,
    catalogue: Catalogue,
    changed: Callable[[], None],
    given: Mapping[str, Any],
    of_tasks: Mapping[str, Any],
) -> TrialParts:
    """The parts, by the settings `given` for tests and those `of_tasks`, which calls are; raises `SettingsError`."""
    settings, clock = load_group(TrialSettings, given, where="trials"), SystemClock()
    tasks = load_group(TaskSettings, of_tasks, where="tasks")
    store = TaskStorage(database, keep=tasks.result_ttl, lease=tasks.lease)
    calls = TaskCalls(store, clock, patience=settings.patience, poll=settings.poll)
    runs = StoredRuns(database, keep=settings.keep_days * DAY)
    environments = Environments(catalogue, StoredEnvironments(database), clock, settings, changed)
    trials = Trials(catalogue, runs, environments, calls, clock, settings)
    return TrialParts(
        trials=trials,
        environments=environments,
        calls=calls,
        handlers=TrialHandlers(trials, runs, catalogue),
        check=OwnTests(trials, runs, clock),
        staging=ChangeStaging(environments, calls, StoredTraffic(database, clock), clock, settings),
    )
