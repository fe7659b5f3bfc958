"""The jobs of upkeep: for each kind of rows what removes some, what counts those that would go, and what it measures.

Everything is put together here; what is removed how stands with the tables' own stores, and beside this.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, Table, func, select

from chimera.adapters.storage import audit, batches, identity, quota
from chimera.adapters.storage.changes.ending import expire_changes
from chimera.adapters.storage.events.letters import expire_agent_letters
from chimera.adapters.storage.events.messages import expire_messages
from chimera.adapters.storage.events.retention import expire_letters, expire_webhooks, is_told, unneeded_events
from chimera.adapters.storage.rollouts.rows import expire_rollouts
from chimera.adapters.storage.schema.audit import audit_checkpoint
from chimera.adapters.storage.schema.catalogue import agent, batch, batch_item, bundle, history, revision
from chimera.adapters.storage.schema.delivery import change, change_approval, change_item, change_verdict
from chimera.adapters.storage.schema.eventing import agent_letter, message
from chimera.adapters.storage.schema.identity import api_key
from chimera.adapters.storage.schema.journal import audit_entry, event
from chimera.adapters.storage.schema.quota import budget_slice, usage
from chimera.adapters.storage.schema.rollouts import rollout, rollout_member
from chimera.adapters.storage.schema.sides import observation, side, taken_back
from chimera.adapters.storage.schema.state import (
    checkpoint,
    checkpoint_write,
    run,
    run_holder,
    session,
    space,
    space_entry,
    step,
    stored_answer,
)
from chimera.adapters.storage.schema.subscriptions import delivery, task_webhook
from chimera.adapters.storage.schema.tasks import task
from chimera.adapters.storage.schema.trials import trial_result, trial_run
from chimera.adapters.storage.sides.observing import find_unneeded, remove_windows
from chimera.adapters.storage.sides.store import expire_sides
from chimera.adapters.storage.sides.taken_back import expire_taken_back
from chimera.adapters.storage.state.answers import expire_answers
from chimera.adapters.storage.state.runs import expire_holders, expire_runs
from chimera.adapters.storage.state.sessions import expire_sessions
from chimera.adapters.storage.state.spaces import expire_spaces
from chimera.adapters.storage.tasks.store import expire_tasks
from chimera.adapters.storage.trials.runs import expire_trials
from chimera.adapters.storage.upkeep import catalogue, facts, metering
from chimera.adapters.storage.upkeep.shapes import Expiring, Floor, Job, Searched
from chimera.events.settings import EventSettings
from chimera.platform.upkeep import rules
from chimera.platform.upkeep.rules import DAY
from chimera.platform.upkeep.settings import RetentionSettings

SEARCH_EVERY = 3_600.0
"""Seconds between two passes over what has to be searched for."""


def make_jobs(
    settings: RetentionSettings, *, audit_keep_days: float = 0.0, paused_hold: float = EventSettings().paused_hold
) -> list[Job]:
    """All jobs, in the order in which they are worked on. A paused subscription needs its facts for `paused_hold`."""
    return [
        *_state(settings),
        *_catalogue(settings),
        _changes(settings),
        _rollouts(settings),
        _ended("sides", 0.0, expire_sides, side.c.until, (side,)),
        _ended("rollbacks", 0.0, expire_taken_back, taken_back.c.expires, (taken_back,)),
        _observations(settings),
        _ended("tasks", _seconds(settings.tasks_days), expire_tasks, task.c.expires, (task,)),
        _facts(settings, lambda connection, now: unneeded_events(connection, now, paused_hold)),
        _ended("letters", 0.0, expire_letters, delivery.c.expires, (delivery,)),
        _ended("agent-letters", 0.0, expire_agent_letters, agent_letter.c.expires, (agent_letter,)),
        _ended("messages", 0.0, expire_messages, message.c.expires, (message,)),
        _webhooks(paused_hold),
        _ended("tests", 0.0, expire_trials, trial_run.c.expires, (trial_run, trial_result)),
        *_metering(settings),
        _keys(settings),
        _audit(audit_keep_days),
        _ended("presence", DAY, expire_holders, run_holder.c.until, (run_holder,)),
    ]


def _seconds(days: float) -> float | None:
    return days * DAY if days else None


def _ended(
    kind: str,
    keep: float | None,
    expire: Callable[[Connection, float, int], int],
    ends: Column[float],
    of: tuple[Table, ...],
    also: Column[float] | None = None,
) -> Job:
    """Rows that have ended by their column `ends` (and others by `also`) and stay for `keep` seconds after that."""
    columns = [ends] if also is None else [ends, also]

    def due(connection: Connection, now: float, most: int) -> int:
        before = now - (keep or 0.0)
        return min(most, sum(_count(connection, column <= before, column.table, most) for column in columns))

    return Job(
        kind=kind,
        keep=keep,
        work=Expiring(expire=lambda connection, now, limit: expire(connection, now - (keep or 0.0), limit), due=due),
        tables=of,
        oldest=lambda connection: _first(connection, select(func.min(ends))),
    )


def _state(settings: RetentionSettings) -> list[Job]:
    of_sessions = (session, checkpoint, checkpoint_write)
    return [
        _ended("sessions", _seconds(settings.sessions_days), expire_sessions, session.c.expires, of_sessions),
        _ended("runs", _seconds(settings.runs_days), expire_runs, run.c.expires, (run, step)),
        _ended("answers", _seconds(settings.answers_days), expire_answers, stored_answer.c.expires, (stored_answer,)),
        _ended(
            "spaces",
            _seconds(settings.spaces_days),
            expire_spaces,
            space.c.expires,
            (space, space_entry),
            also=space_entry.c.expires,
        ),
    ]


def _catalogue(settings: RetentionSettings) -> list[Job]:
    revisions, changes = _seconds(settings.revisions_days), _seconds(settings.history_days)
    bundles, agents = _seconds(settings.bundles_days), _seconds(settings.agents_days)
    deleted = select(func.min(agent.c.updated)).where(agent.c.status == "deleted")
    return [
        _ended("batches", 0.0, batches.expire_batches, batch.c.expires, (batch, batch_item)),
        Job(
            kind="agents",
            keep=agents,
            work=Expiring(
                expire=lambda connection, now, limit: catalogue.expire_agents(
                    connection, now, limit, keep=agents or 0.0
                ),
                due=lambda connection, now, most: _count(
                    connection, catalogue.was_deleted(now, agents or 0.0), agent, most
                ),
            ),
            tables=(),
            oldest=lambda connection: _first(connection, deleted),
            every=SEARCH_EVERY,
        ),
        Job(
            kind="revisions",
            keep=revisions,
            work=catalogue.past(keep_revisions=revisions, keep_changes=None, last=settings.revisions_last),
            tables=(revision,),
            oldest=lambda connection: _first(connection, select(func.min(revision.c.created))),
            every=SEARCH_EVERY,
        ),
        Job(
            kind="history",
            keep=changes,
            work=catalogue.past(keep_revisions=None, keep_changes=changes, last=settings.revisions_last),
            tables=(history,),
            oldest=lambda connection: _first(connection, select(func.min(history.c.at))),
            every=SEARCH_EVERY,
        ),
        Job(
            kind="bundles",
            keep=bundles,
            work=catalogue.bundles(keep=bundles or 0.0),
            tables=(bundle,),
            oldest=lambda connection: _first(connection, select(func.min(bundle.c.created))),
            every=SEARCH_EVERY,
        ),
    ]


def _changes(settings: RetentionSettings) -> Job:
    tables = (change, change_item, change_verdict, change_approval)
    return _ended("changes", _seconds(settings.changes_days), expire_changes, change.c.ended, tables)


def _rollouts(settings: RetentionSettings) -> Job:
    tables = (rollout, rollout_member)
    return _ended("rollouts", _seconds(settings.rollouts_days), expire_rollouts, rollout.c.ended, tables)


def _observations(settings: RetentionSettings) -> Job:
    keep = _seconds(settings.observations_days)
    return Job(
        kind="observations",
        keep=keep,
        work=Searched(
            find=lambda connection, now, after: find_unneeded(connection, now, after, keep=keep or 0.0),
            remove=remove_windows,
        ),
        tables=(observation,),
        oldest=lambda connection: _first(connection, select(func.min(observation.c.at))),
    )


def _facts(settings: RetentionSettings, floor: Floor) -> Job:
    keep = _seconds(settings.events_days)
    first = select(event.c.at).order_by(event.c.seq).limit(1)
    return Job(
        kind="events",
        keep=keep,
        work=Expiring(
            expire=lambda connection, now, limit: facts.expire(
                connection, now - (keep or 0.0), limit, floor(connection, now)
            ),
            due=lambda connection, now, most: facts.due(connection, now - (keep or 0.0), most, floor(connection, now)),
        ),
        tables=(event,),
        oldest=lambda connection: _first(connection, first),
    )


def _webhooks(hold: float) -> Job:
    return Job(
        kind="webhooks",
        keep=0.0,
        work=Expiring(
            expire=lambda connection, now, limit: expire_webhooks(connection, now, limit, hold),
            due=lambda connection, now, most: _count(connection, is_told(now, hold), task_webhook, most),
        ),
        tables=(task_webhook,),
        oldest=lambda _: None,
    )


def _metering(settings: RetentionSettings) -> list[Job]:
    days, slices = _seconds(settings.usage_days), _seconds(settings.slices_days)
    months = settings.usage_months

    def before(now: float) -> str:
        return rules.day_before(now, days or 0.0)

    def first_month(now: float) -> str:
        return rules.month_before(now, months)

    def old_slices(now: float) -> str:
        return rules.day_before(now, slices or 0.0)

    return [
        Job(
            kind="usage",
            keep=days,
            work=Expiring(
                expire=lambda connection, now, limit: metering.add_up(connection, before(now), limit),
                due=lambda connection, now, most: _count(connection, metering.is_day_before(before(now)), usage, most),
            ),
            tables=(usage,),
            oldest=lambda connection: metering.first_day(connection),
        ),
        Job(
            kind="usage-months",
            keep=months * 30.4 * DAY if months else None,
            work=Expiring(
                expire=lambda connection, now, limit: metering.drop_months(connection, first_month(now), limit),
                due=lambda connection, now, most: _count(
                    connection, metering.is_month_before(first_month(now)), usage, most
                ),
            ),
            tables=(),
            oldest=lambda connection: metering.first_month(connection),
        ),
        Job(
            kind="slices",
            keep=slices,
            work=Expiring(
                expire=lambda connection, now, limit: quota.expire_slices(connection, old_slices(now), limit),
                due=lambda connection, now, most: _count(
                    connection, budget_slice.c.day < old_slices(now), budget_slice, most
                ),
            ),
            tables=(budget_slice,),
            oldest=lambda connection: metering.first_slice(connection),
        ),
    ]


def _keys(settings: RetentionSettings) -> Job:
    keep = _seconds(settings.keys_days)
    first = select(func.min(func.coalesce(api_key.c.revoked, api_key.c.expires)))
    return Job(
        kind="keys",
        keep=keep,
        work=Expiring(
            expire=lambda connection, now, limit: identity.expire(connection, now - (keep or 0.0), limit),
            due=lambda connection, now, most: _count(
                connection, identity.ended_before(now - (keep or 0.0)), api_key, most
            ),
        ),
        tables=(api_key,),
        oldest=lambda connection: _first(connection, first),
    )


def _audit(keep_days: float) -> Job:
    keep = _seconds(keep_days)
    first = select(audit_entry.c.at).order_by(audit_entry.c.seq).limit(1)
    return Job(
        kind="audit",
        keep=keep,
        work=Expiring(
            expire=lambda connection, now, limit: audit.expire(connection, now, limit, keep=keep or 0.0),
            due=lambda connection, now, most: audit.removable(connection, now, most, keep=keep or 0.0),
        ),
        tables=(audit_entry, audit_checkpoint),
        oldest=lambda connection: _first(connection, first),
    )


def _count(connection: Connection, where: ColumnElement[bool], table: Any, most: int) -> int:
    """How many rows match, counted up to `most`."""
    some = select(func.count()).select_from(select(1).select_from(table).where(where).limit(most).subquery())
    return int(connection.execute(some).scalar() or 0)


def _first(connection: Connection, query: Select[Any]) -> float | None:
    found: float | None = connection.execute(query).scalar()
    return found
