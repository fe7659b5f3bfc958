"""Settings of upkeep: how long things are kept, and how much of the database's time removing them may take."""

from dataclasses import dataclass

from chimera.kernel.settings import setting


@dataclass(frozen=True, kw_only=True, slots=True)
class RetentionSettings:
    """How long what has ended or was replaced is kept before upkeep removes it; 0 keeps it for ever.

    When a thing ends is set elsewhere (`state`, `tasks`, a key's own end); here is how long its row stays after that.
    """

    sessions_days: float = setting(
        1.0,
        "A session is removed so long after it ended (`state.session_ttl`), with its checkpoints and unfinished work.",
        unit="days",
        minimum=0,
    )
    spaces_days: float = setting(
        1.0, "A shared space, and a key of one, is removed so long after it ended.", unit="days", minimum=0
    )
    runs_days: float = setting(
        1.0,
        "Unfinished work, and an answer kept for its Idempotency-Key, is removed so long after it ended "
        "(`state.open_ttl`, `state.answer_ttl`).",
        unit="days",
        minimum=0,
    )
    answers_days: float = setting(
        0.25,
        "A stored model answer is removed so long after it ended (`state.model_answer_ttl`).",
        unit="days",
        minimum=0,
    )
    tasks_days: float = setting(
        1.0,
        "A finished task is removed so long after `tasks.result_ttl`. Its Idempotency-Key then makes another task.",
        unit="days",
        minimum=0,
    )
    events_days: float = setting(
        30.0,
        "Facts are removed when older, in their order, never one that a subscription or a dead letter still needs.",
        unit="days",
        minimum=0,
    )
    usage_days: float = setting(
        92.0,
        "Days of metered use are added up into months when older: which day it was is lost, the sums stay.",
        unit="days",
        minimum=0,
    )
    usage_months: int = setting(
        0, "Months of metered use are removed when older, with their sums.", unit="months", minimum=0
    )
    slices_days: float = setting(
        7.0, "What gateways held of a day's budgets is removed when older.", unit="days", minimum=0
    )
    revisions_days: float = setting(
        90.0,
        "A revision is removed so long after it was live, if it isn't one of the agent's newest; the same definition "
        "can be applied again.",
        unit="days",
        minimum=0,
    )
    revisions_last: int = setting(
        10, "So many of an agent's newest revisions that were live are kept, however old.", minimum=1
    )
    history_days: float = setting(
        365.0,
        "Who made which revision live when is removed when older, once the revision itself is gone.",
        unit="days",
        minimum=0,
    )
    changes_days: float = setting(
        365.0,
        "A change request that has ended is removed so long after that, with its verdicts and approvals and the "
        "revisions that were never live; the audit log stays.",
        unit="days",
        minimum=0,
    )
    rollouts_days: float = setting(
        90.0,
        "A rollout that has ended is removed so long after that, with what was seen of it; the audit log stays.",
        unit="days",
        minimum=0,
    )
    agents_days: float = setting(
        365.0,
        "A deleted agent's last row is removed so long after the deletion, with its history and revisions, and its "
        "cell if no other agent is in it; the name can be applied again at any time.",
        unit="days",
        minimum=0,
    )
    bundles_days: float = setting(
        7.0,
        "A source bundle that no kept revision names is removed so long after it was last sent.",
        unit="days",
        minimum=0,
    )
    keys_days: float = setting(
        30.0,
        "An API key is removed so long after it ended or was revoked; the audit log stays.",
        unit="days",
        minimum=0,
    )
    observations_days: float = setting(
        2.0,
        "What gateways saw of agents that are rolled out is removed when older, though an open rollout hasn't read it "
        "yet; what all have read goes a minute after it was written.",
        unit="days",
        minimum=0,
    )
    environments_days: float = setting(
        30.0,
        "An environment of an agent's own requirements, or of another release, "
        "is removed when no host has used it so long; it is made again when it is needed.",
        unit="days",
        minimum=0,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class UpkeepSettings:
    """How upkeep works: how often, and how much of the database's time it takes while there is something to remove."""

    interval: float = setting(
        600.0,
        "How often each kind is looked through; what must be searched for (revisions, bundles), once an hour at most. "
        "0: only when it is asked for.",
        unit="s",
        minimum=0,
    )
    batch: float = setting(
        0.01,
        "How long one transaction of removals may take, about. All other writers wait so long on SQLite; on PostgreSQL "
        "none does, and it may take ten times as long.",
        unit="s",
        minimum=0.001,
        maximum=1.0,
    )
    share: float = setting(
        0.25,
        "The part of the time in which removals run; the rest are pauses for others. Larger ends sooner and makes "
        "writes wait more.",
        minimum=0.01,
        maximum=1.0,
    )
