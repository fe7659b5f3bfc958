"""The rows of the table: what is measured, in which unit, what must be reached and what is aimed at."""

from typing import Literal

from msgspec import Struct

Better = Literal["less", "more"]


class Row(Struct, frozen=True, kw_only=True):
    """One row."""

    id: str
    what: str
    unit: str
    must: float | None = None
    aim: float | None = None
    better: Better = "less"


_ON_EACH: tuple[tuple[str, str, str, Better], ...] = (
    ("session_p50", "a call of a session, opened and saved durably, {on}, p50", "ms", "less"),
    ("session_p99", "the same, p99", "ms", "less"),
    ("tasks_accepted", "tasks accepted durably over HTTP, one by one, 64 clients, {on}", "tasks/s", "more"),
    ("tasks_batched", "the same in batches of 1,000, one client", "tasks/s", "more"),
    (
        "tasks_completed",
        "tasks completed by real hosts with {{queued}} queued, a model call each, {on}",
        "tasks/s",
        "more",
    ),
    (
        "tasks_gateway_first",
        "kill -9 of the gateway with {{queued}} queued, to the next answer, {on}",
        "s",
        "less",
    ),
    ("tasks_gateway_rate", "the same, until throughput is back", "s", "less"),
    ("tasks_all_first", "kill -9 of everything with {{queued}} queued, to the next answer, {on}", "s", "less"),
    ("tasks_all_rate", "the same, until throughput is back", "s", "less"),
    ("queue_accepted", "the task queue alone: tasks accepted durably, one by one, 64 callers, {on}", "tasks/s", "more"),
    ("queue_completed", "the task queue alone: tasks completed, 64 at once, {on}", "tasks/s", "more"),
    ("dbos_accepted", "DBOS with the same work: workflows enqueued, {on}", "workflows/s", "more"),
    ("dbos_completed", "DBOS with the same work: workflows completed, {on}", "workflows/s", "more"),
)
ROWS = (
    Row(id="apply", what="validate and apply {all} definitions from YAML files", unit="s", must=20, aim=6),
    Row(id="reapply", what="apply the same again, nothing changed", unit="s", must=5, aim=2),
    Row(id="control_plane", what="control plane memory with {all} applied", unit="MB", must=400, aim=200),
    Row(
        id="first_call",
        what="first call of an agent never loaded, warm host, instant model, p95, one client",
        unit="ms",
        must=60,
        aim=15,
    ),
    Row(id="wake_autogen", what="wake a sleeping AutoGen cell to the first answer, p95", unit="s", must=2, aim=0.3),
    Row(id="wake_langgraph", what="wake a sleeping LangGraph cell to the first answer, p95", unit="s", must=2, aim=0.3),
    Row(id="wake_crewai", what="wake a sleeping CrewAI cell to the first answer, p95", unit="s", must=8, aim=1.5),
    Row(
        id="calls_two",
        what="{two} distinct AutoGen and LangGraph agents called once each, 64 clients",
        unit="calls/s",
        must=150,
        aim=220,
        better="more",
    ),
    Row(
        id="calls_three",
        what="all {skills} agents of three frameworks called once each, 64 clients",
        unit="calls/s",
        must=80,
        aim=150,
        better="more",
    ),
    Row(id="agent_autogen", what="memory per loaded AutoGen agent above its host", unit="KB", must=40, aim=20),
    Row(id="agent_langgraph", what="memory per loaded LangGraph agent above its host", unit="KB", must=40, aim=20),
    Row(
        id="share_autogen",
        what="Chimera's share of an AutoGen call (one model call) above the bare framework in one process, median",
        unit="ms",
        must=6,
        aim=2,
    ),
    Row(
        id="share_langgraph",
        what="Chimera's share of a LangGraph call (one model call) above the bare framework in one process, median",
        unit="ms",
        must=6,
        aim=2,
    ),
    Row(
        id="share_workflow",
        what="the same of a LangGraph workflow with a model call in each of its steps",
        unit="ms",
    ),
    Row(
        id="policy_kept",
        what="decisions of 500 policies over 12,000 agents, kept in memory, one core",
        unit="decisions/s",
        must=50_000,
        aim=500_000,
        better="more",
    ),
    Row(id="policy_kept_p99", what="one of them, p99", unit="ms", must=0.1, aim=0.01),
    Row(
        id="policy_made",
        what="the same, each made for the first time",
        unit="decisions/s",
        must=5_000,
        aim=10_000,
        better="more",
    ),
    Row(id="policy_alone", what="the same by cedarpy alone over all 500 policies", unit="decisions/s", better="more"),
    *(
        Row(id=f"{id}_{database}", what=what.format(on=on), unit=unit, better=better)
        for database, on in (("sqlite", "SQLite"), ("postgresql", "PostgreSQL"))
        for id, what, unit, better in _ON_EACH
    ),
    Row(
        id="audit_sqlite",
        what="entries of the audit log durable a second, in batches of 500, SQLite",
        unit="entries/s",
        must=15_000,
        aim=50_000,
        better="more",
    ),
    Row(
        id="audit_postgresql",
        what="the same, PostgreSQL",
        unit="entries/s",
        must=15_000,
        aim=50_000,
        better="more",
    ),
)


class Measured(Struct, frozen=True, kw_only=True):
    """One row in one run.

    `cpu` is the CPU seconds of all of the platform's processes meanwhile, `generator` the load generator's or
    client's, `errors` the calls that failed.
    """

    value: float
    cpu: float | None = None
    generator: float | None = None
    wall: float | None = None
    errors: int = 0
    note: str = ""


class Sizes(Struct, frozen=True, kw_only=True):
    """How many of what a run takes."""

    all: int = 17_597
    skills: int = 13_939
    two: int = 12_000
    first_calls: int = 300
    warm_calls: int = 300
    wakes: int = 20
    loaded: int = 2_000
    plain: int = 2_000
    alone: int = 50
    decisions: int = 50_000
    sessions: int = 500
    queued: int = 100_000
    singly: int = 5_000
    done: int = 2_000
    queue: int = 10_000
    entries: int = 60_000

    def scaled(self, by: int) -> "Sizes":
        """A part of everything, enough to see that it works."""
        return Sizes(
            all=max(60, self.all // by),
            skills=max(50, self.skills // by),
            two=max(40, self.two // by),
            first_calls=max(10, self.first_calls // by),
            warm_calls=max(10, self.warm_calls // by),
            wakes=max(2, self.wakes // by),
            loaded=max(20, self.loaded // by),
            plain=max(10, self.plain // by),
            alone=max(2, self.alone // by),
            decisions=max(1_000, self.decisions // by),
            sessions=max(50, self.sessions // by),
            queued=max(500, self.queued // by),
            singly=max(100, self.singly // by),
            done=max(80, self.done // by),
            queue=max(500, self.queue // by),
            entries=max(2_000, self.entries // by),
        )


def verdict(row: Row, value: float) -> str:
    """`aim`, `must` or `missed`; nothing for a row without either."""
    if row.aim is None or row.must is None:
        return ""
    sign = 1 if row.better == "less" else -1
    if value * sign <= row.aim * sign:
        return "aim"
    return "must" if value * sign <= row.must * sign else "missed"
