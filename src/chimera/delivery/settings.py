"""Settings of delivery: how long a change may take in each stage, and how much the pipeline does at once."""

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
