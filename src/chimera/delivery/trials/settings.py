"""Settings of tests and of staging."""

from dataclasses import dataclass

from chimera.kernel.settings import setting


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSettings:
    """How agents' own tests are run, and how large environments may be."""

    judge_model: str = setting(
        "",
        "The model that judges rubrics, by its name under `model`; without one they are skipped, which fails a check.",
    )
    judge_tokens: int = setting(
        2_000_000, "What judging one run of tests may use; then rubrics are skipped.", unit="tokens", minimum=1_000
    )
    parallel: int = setting(
        16, "Cases of one run that are tested at once; more need more hosts.", minimum=1, maximum=1_000
    )
    runs: int = setting(2, "Runs of tests that are worked on at once; others wait.", minimum=1, maximum=50)
    patience: float = setting(
        300.0, "How long a test's call may wait for its turn, beside the time it may take.", unit="s", minimum=1
    )
    poll: float = setting(0.1, "How often it is looked at what became of tests' calls.", unit="s", minimum=0.01)
    answer_bytes: int = setting(
        262_144, "The longest answer that a test reads; a longer one fails it.", unit="bytes", minimum=1_024
    )
    staging_calls: int = setting(
        20,
        "Calls by which each agent of a change is evaluated in staging, and as many of its live revision.",
        minimum=1,
    )
    staging_replays: int = setting(
        20,
        "Earlier inputs that are put to each agent of a change in staging, and to its live revision, where the "
        "tenant's delivery policy lets them; 0: none.",
        minimum=0,
        maximum=1_000,
    )
    staging_most_calls: int = setting(
        20_000,
        "Calls that staging of one change makes at most, for all its agents, both sides, checks and judges together; "
        "a large change has fewer for each agent.",
        minimum=2,
    )
    replay_bytes: int = setting(
        32_768, "The longest earlier input, with the conversation before it, that is replayed.", unit="bytes", minimum=1
    )
    environments: int = setting(6, "Environments that a tenant may have at once.", minimum=1, maximum=1_000)
    agents: int = setting(20_000, "Agents that one environment may hold.", minimum=1)
    life: float = setting(
        7_200.0, "An environment that nobody has taken away is taken away after this long.", unit="s", minimum=60
    )
    keep_days: float = setting(
        14.0, "Runs of tests and their results are removed so long after they ended.", unit="days", minimum=0.01
    )
