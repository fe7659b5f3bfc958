"""What tasks are refused with, or end with."""

from chimera.gateway.errors import GatewayError


class TaskNotFound(GatewayError):
    """There is no such task, or no more."""

    code = "task-not-found"
    status = 404
    title = "There is no such task"


class TaskFinished(GatewayError):
    """What was asked of the task comes too late: it has ended."""

    code = "task-finished"
    status = 409
    title = "The task has ended"


class TaskUnfinished(GatewayError):
    """The task has no result yet."""

    code = "task-unfinished"
    status = 409
    title = "The task has not ended yet"


class TaskTaken(GatewayError):
    """Another worker has the task; what this one does counts no more."""

    code = "task-taken"
    status = 409
    title = "Another worker has the task"


class WorkerLost(GatewayError):
    """This worker was silent for too long, and its tasks are others' now."""

    code = "task-worker-lost"
    status = 409
    title = "The worker has lost its tasks"


class TaskCancelled(GatewayError):
    """Somebody cancelled the task."""

    code = "task-cancelled"
    status = 409
    title = "The task was cancelled"


class TaskExpired(GatewayError):
    """The task's deadline passed before it had a result."""

    code = "task-expired"
    status = 504
    title = "The task came to its deadline"


class TaskLost(GatewayError):
    """The task's gateway was lost under it again and again."""

    code = "task-lost"
    status = 500
    title = "The task was lost too often"


class TooManyTasks(GatewayError):
    """The tenant has as many unfinished tasks as it may have."""

    code = "too-many-tasks"
    status = 429
    title = "Too many tasks wait"


class TooManyWatchers(GatewayError):
    """As many callers follow tasks as may."""

    code = "too-many-watchers"
    status = 503
    title = "Too many callers wait for tasks"
