"""Settings of durable tasks."""

from dataclasses import dataclass

from chimera.kernel.settings import SettingsError, setting


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSettings:
    """How durable tasks are worked off, tried again and kept."""

    concurrency: int = setting(
        64,
        "Tasks that one gateway works on at once; 0: it takes tasks in and works on none.",
        minimum=0,
        maximum=10_000,
    )
    agent_share: float = setting(
        0.8,
        "The part of an agent's calls at once that its tasks may take, one at least; the rest is left to who waits.",
        minimum=0.01,
        maximum=1.0,
    )
    poll: float = setting(
        0.5, "How often the queue is looked at for what other gateways did.", unit="s", minimum=0.01, maximum=60
    )
    lease: float = setting(
        15.0,
        "A gateway that was silent this long has lost its tasks; others begin them again.",
        unit="s",
        minimum=0.5,
    )
    attempts: int = setting(3, "Attempts of a task, unless it says otherwise.", minimum=1, maximum=100)
    losses: int = setting(
        20, "A task fails once its gateway was lost under it this often; that counts as no attempt.", minimum=1
    )
    backoff: float = setting(
        2.0, "Most that the second attempt waits; doubles each time, with full jitter.", unit="s", minimum=0.01
    )
    backoff_cap: float = setting(300.0, "Most that any attempt waits.", unit="s", minimum=0.01)
    rest: float = setting(
        30.0,
        "Most that an agent's tasks rest after it was refused for now (busy, rate, budget).",
        unit="s",
        minimum=0.1,
    )
    life: float = setting(
        604_800.0, "A task that names no deadline expires this long after it was submitted.", unit="s", minimum=1
    )
    result_ttl: float = setting(86_400.0, "A finished task and its result are kept this long.", unit="s", minimum=1)
    request_bytes: int = setting(1024**2, "Largest request of a task.", unit="bytes", minimum=1024)
    result_bytes: int = setting(
        8 * 1024**2, "Largest result of a task; a larger one fails it.", unit="bytes", minimum=1024
    )
    waiting: int = setting(1_000_000, "Most unfinished tasks of a tenant, about; more are answered 429.", minimum=1)
    batch: int = setting(1_000, "Most tasks submitted at once.", minimum=1, maximum=10_000)
    progress: float = setting(1.0, "How often progress is written down, if there is any.", unit="s", minimum=0.05)
    progress_text: int = setting(
        2_000, "The end of the text so far that progress keeps.", unit="characters", minimum=0, maximum=100_000
    )
    watchers: int = setting(2_000, "Callers of one gateway that may follow or wait for tasks.", minimum=1)
    watch: float = setting(
        600.0, "A stream of a task's events ends after this long; the reader resumes.", unit="s", minimum=1
    )

    def check(self) -> None:
        """Raise `SettingsError` where the queue could not be followed in time."""
        if self.poll * 3 > self.lease:
            raise SettingsError(
                [f"tasks: lease ({self.lease:g} s) must be three times poll ({self.poll:g} s) at least"]
            )
