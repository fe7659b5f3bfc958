"""Settings of delivery: how long a change may take in each stage, how much is done at once, and how rollouts go."""

from dataclasses import dataclass

from chimera.kernel.settings import setting


@dataclass(frozen=True, kw_only=True, slots=True)
class DeliverySettings:
    """How changes go through their stages."""

    interval: float = setting(
        2.0,
        "How often the pipeline looks at changes in flight; what the API changes it looks at at once.",
        unit="s",
        minimum=0.1,
    )
    parallel: int = setting(4, "So many changes are worked on at once.", minimum=1)
    check_seconds: float = setting(
        1800.0, "A check that has not ended by then is cancelled, and the change fails.", unit="s", minimum=1
    )
    build_hours: float = setting(
        6.0,
        "A change whose checks have not all ended by then fails, however often the control plane was started again.",
        unit="hours",
        minimum=0.01,
    )
    staging_hours: float = setting(
        24.0, "A change that has not passed staging by then fails.", unit="hours", minimum=0.01
    )
    approval_days: float = setting(
        30.0, "A change that nobody has approved by then is aborted.", unit="days", minimum=0.01
    )
    rollout_canary: int = setting(1, "Agents of the first wave of a rollout, at least.", minimum=1)
    rollout_waves: tuple[float, ...] = setting(
        (0.1, 0.5),
        "The share of all agents that the waves after the canary bring a change to; one last wave takes the rest.",
        minimum=0.0,
        maximum=1.0,
    )
    rollout_max_parallel: int = setting(200, "Agents of a rollout on their way at once.", minimum=1)
    rollout_max_unavailable: int = setting(
        10, "While so many agents can't be loaded, or are taken back, no further ones are begun.", minimum=1
    )
    rollout_steps: tuple[float, ...] = setting(
        (10.0, 50.0, 90.0),
        "The share of calls that a new revision gets, step by step; the last one is kept during the bake time. Below "
        "100 the old revision goes on with some, so that a fault that hits both is not held against the new one. "
        "`100` alone moves calls at once.",
        unit="%",
        minimum=0.01,
        maximum=100.0,
    )
    rollout_step_seconds: float = setting(60.0, "How long each step but the last is watched.", unit="s", minimum=0.0)
    rollout_bake_seconds: float = setting(
        300.0, "How long an agent is watched at its last step.", unit="s", minimum=0.0
    )
    rollout_longest_bake: float = setting(
        1800.0, "How long it is watched at most where it is in doubt.", unit="s", minimum=0.0
    )
    rollout_load_seconds: float = setting(
        300.0, "A new revision that isn't loaded everywhere after this time has failed.", unit="s", minimum=1.0
    )
    rollout_hold_seconds: float = setting(
        3600.0, "How long the old revision is kept warm after the rollout is done.", unit="s", minimum=0.0
    )
    rollout_error: float = setting(
        0.05,
        "The probability that a rollout in which no agent became worse is taken back all the same, over all its "
        "agents, waves and looks together. Smaller needs more calls to find a bad one.",
        minimum=0.0001,
        maximum=0.5,
    )
    rollout_least_calls: int = setting(
        50, "Calls by which a new revision is decided; with fewer it is marked `low` evidence.", minimum=0
    )
    rollout_least_to_condemn: int = setting(5, "No agent is taken back for fewer calls than this.", minimum=1)
    rollout_tolerance: float = setting(
        0.005, "By how much the share of failed calls may be above the old revision's.", minimum=0.0, maximum=0.5
    )
    rollout_slow_tolerance: float = setting(
        0.02, "By how much the share of slow calls may be above the old revision's.", minimum=0.0, maximum=0.5
    )
    rollout_tolerate: int = setting(
        0,
        "So many agents may be taken back one by one; with one more, or a whole group, all of the change is.",
        minimum=0,
    )
