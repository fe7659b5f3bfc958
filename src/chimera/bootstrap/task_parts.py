"""The parts of durable tasks, put together on their store."""

from dataclasses import dataclass

from chimera.entrypoints.gateway.tasks import TaskHandlers
from chimera.gateway.admission import Admission
from chimera.gateway.audit import AuditTrail
from chimera.gateway.calls import CallTable
from chimera.gateway.invoke import Invoker
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.policy.authorise import Authoriser
from chimera.gateway.quota.service import Quota
from chimera.gateway.routes import RouteTable
from chimera.gateway.settings import GatewaySettings
from chimera.gateway.tasks.ports import TaskStore, Webhooks
from chimera.gateway.tasks.service import Tasks
from chimera.gateway.tasks.watch import Watchers
from chimera.gateway.tasks.worker import Worker
from chimera.kernel.clock import Clock


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskServices:
    """What the gateway does with tasks, and the API of it."""

    worker: Worker
    watchers: Watchers
    handlers: TaskHandlers
    tasks: Tasks


def make_task_services(
    store: TaskStore,
    invoker: Invoker,
    *,
    routes: RouteTable,
    admission: Admission,
    quota: Quota,
    authoriser: Authoriser,
    audit: AuditTrail,
    metrics: GatewayMetrics,
    clock: Clock,
    settings: GatewaySettings,
    webhooks: Webhooks,
    calls: CallTable,
) -> TaskServices:
    """The services; nothing runs yet."""
    chosen = settings.tasks
    watchers = Watchers(store, most=chosen.watchers, poll=chosen.poll)
    worker = Worker(
        store,
        invoker,
        routes=routes,
        admission=admission,
        quota=quota,
        authoriser=authoriser,
        audit=audit,
        watchers=watchers,
        metrics=metrics,
        clock=clock,
        settings=chosen,
        longest=settings.deadlines.gateway,
        in_session=calls.in_session,
    )
    tasks = Tasks(store, routes, watchers, clock, settings=chosen, wake=worker.wake, webhooks=webhooks)
    handlers = TaskHandlers(tasks=tasks, authoriser=authoriser, settings=settings.http)
    return TaskServices(worker=worker, watchers=watchers, handlers=handlers, tasks=tasks)
