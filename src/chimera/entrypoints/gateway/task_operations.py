"""The operations on tasks, as data; `operations.py` publishes them with the others."""

from typing import Any, get_args

from chimera.entrypoints.published.operation import AGENT, TENANT, Operation
from chimera.entrypoints.published.parameters import HEADER_KEY, KEY, SESSION, SUBJECT, number, one_of, page, whole
from chimera.gateway.api import InvokeAnswer
from chimera.gateway.tasks import api
from chimera.gateway.tasks.model import TaskState

TASK = AGENT + "/tasks/{task}"
HEADER_RESUME = "Last-Event-ID"
LONGEST_WAIT = 60.0

_KEY = ((HEADER_KEY, KEY, "names the task: the same key again is the same task, submitted once"),)
_PAGE = page("tasks")
_NARROW = (
    ("state", one_of(*get_args(TaskState)), "only tasks in this state"),
    ("session", SESSION, "only tasks of this session"),
    ("subject", SUBJECT, "only tasks of this person"),
)
_WAIT = (("wait", number(0, LONGEST_WAIT), "wait up to so many seconds for its end"),)


def _operation(
    method: str, path: str, name: str, summary: str, action: str, answer: Any = None, **more: Any
) -> Operation:
    return Operation(
        method=method, path=path, name=name, summary=summary, tag="tasks", action=action, answer=answer, **more
    )


TASKS = (
    _operation(
        *("POST", AGENT + "/tasks", "submit_task", "Submit long work; accepted once it is stored", "task:submit"),
        api.TaskAnswer,
        body=api.TaskBody,
        headers=_KEY,
        status=202,
        also=((200, "The same key has submitted this task before"),),
    ),
    _operation(
        *("POST", TENANT + "/tasks", "submit_tasks", "Submit tasks for several agents, all or none", "task:submit"),
        api.BatchAnswer,
        body=api.BatchBody,
        status=202,
    ),
    _operation(
        *("GET", AGENT + "/tasks", "list_tasks", "Tasks of an agent, newest first, in pages", "task:read"),
        api.TaskPage,
        query=(*_NARROW, *_PAGE),
    ),
    _operation(
        *("GET", TENANT + "/tasks", "list_all_tasks", "Tasks of all agents, newest first, in pages", "task:read"),
        api.TaskPage,
        query=(*_NARROW, *_PAGE),
    ),
    _operation(
        *("GET", TASK, "task", "A task with its history, progress and result", "task:read"),
        api.TaskAnswer,
        query=_WAIT,
    ),
    _operation(
        *("GET", TASK + "/result", "task_result", "What the task's call was answered, or its problem", "task:read"),
        InvokeAnswer,
        query=_WAIT,
    ),
    _operation(
        *("GET", TASK + "/events", "task_events", "What happens to the task, as server-sent events", "task:read"),
        media="text/event-stream",
        headers=((HEADER_RESUME, whole(0, 999_999_999), "the id of the last event seen, behind which it goes on"),),
    ),
    _operation(
        *("POST", TASK + "/cancel", "cancel_task", "Cancel a task; one that runs has its call ended", "task:cancel"),
        api.TaskAnswer,
        status=202,
        also=((200, "The task is cancelled already"),),
    ),
)
