"""Tasks over HTTP: submitted, fetched, waited for, followed, listed, cancelled."""

from dataclasses import dataclass
from typing import Any, get_args

import msgspec
from aiohttp import web

from chimera.entrypoints.gateway.calls import HEADER_REPLAYED, Values, page_limit
from chimera.entrypoints.gateway.http import (
    HEADER_REQUEST,
    decoded,
    json_response,
    principal_of,
    read_body,
)
from chimera.entrypoints.gateway.streams import followed
from chimera.entrypoints.gateway.task_operations import HEADER_RESUME, LONGEST_WAIT
from chimera.entrypoints.published.parameters import DEFAULT_PAGE, LARGEST_PAGE
from chimera.gateway.errors import InvalidRequest
from chimera.gateway.policy.authorise import Asked, Authoriser
from chimera.gateway.settings import HttpSettings
from chimera.gateway.state import rules
from chimera.gateway.tasks import api
from chimera.gateway.tasks.errors import TaskUnfinished
from chimera.gateway.tasks.model import Details, TaskFilter, TaskKey, TaskState
from chimera.gateway.tasks.service import Origin, StreamEvent, Tasks, failure_of, items_of
from chimera_host.contract.call import HEADER_TRACEPARENT
from chimera_host.contract.state import HEADER_IDEMPOTENCY
from chimera_host.trace import parse

_ASKED = Asked(protocol="task")
_STATES: tuple[TaskState, ...] = get_args(TaskState)

_tasks = msgspec.json.Decoder(api.TaskBody)
_batches = msgspec.json.Decoder(api.BatchBody)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskHandlers:
    """Handlers of the operations on tasks."""

    tasks: Tasks
    authoriser: Authoriser
    settings: HttpSettings

    def handlers(self) -> dict[str, Any]:
        """By the operations' names."""
        return {
            "submit_task": self.submit,
            "submit_tasks": self.submit_all,
            "list_tasks": self.list_tasks,
            "list_all_tasks": self.list_tasks,
            "task": self.task,
            "task_result": self.result,
            "task_events": self.events,
            "cancel_task": self.cancel,
        }

    async def submit(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/agents/{agent}/tasks."""
        body: api.TaskBody = decoded(_tasks, await self._read(request))
        tenant, agent = values["tenant"], values["agent"]
        self.authoriser.check_agent(principal_of(request), tenant, agent, _ASKED)
        wanted = [(agent, body, request.headers.get(HEADER_IDEMPOTENCY))]
        (accepted,) = await self.tasks.submit(tenant, wanted, _origin(request, name))
        headers = {
            HEADER_REQUEST: name,
            "Location": f"/v1/tenants/{tenant}/agents/{agent}/tasks/{accepted.task.task}",
        }
        if accepted.existed:
            headers[HEADER_REPLAYED] = "true"
        answer = api.answer_of(Details(task=accepted.task), webhook_secret=self.tasks.secret_of(accepted, body))
        return json_response(answer, status=200 if accepted.existed else 202, headers=headers)

    async def submit_all(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/tasks."""
        body: api.BatchBody = decoded(_batches, await self._read(request))
        tenant = values["tenant"]
        for agent in sorted({item.agent for item in body.tasks}):
            self.authoriser.check_agent(principal_of(request), tenant, agent, _ASKED)
        accepted = await self.tasks.submit(tenant, items_of(body.tasks), _origin(request, name))
        entries = [
            api.BatchEntry(
                task=one.task.task,
                agent=one.task.agent,
                state=one.task.state,
                existed=one.existed,
                webhook_secret=self.tasks.secret_of(one, item),
            )
            for one, item in zip(accepted, body.tasks, strict=True)
        ]
        return json_response(api.BatchAnswer(tasks=entries), status=202, headers={HEADER_REQUEST: name})

    async def list_tasks(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/tasks."""
        query = request.query
        limit = page_limit(query.get("limit"), DEFAULT_PAGE, LARGEST_PAGE)
        rules.check_subject(query.get("subject"))
        if (session := query.get("session")) is not None:
            rules.check_session_id(session)
        wanted = TaskFilter(
            tenant=values["tenant"],
            agent=values.get("agent"),
            state=_state(query.get("state")),
            session=session,
            subject=query.get("subject"),
            before=query.get("after") or None,
            limit=limit,
        )
        page = await self.tasks.page(wanted)
        following = page[-1].task if len(page) == limit else None
        answer = api.TaskPage(tasks=[api.summary_of(task) for task in page], next=following)
        return json_response(answer, headers={HEADER_REQUEST: name})

    async def task(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/tasks/{task}."""
        found = await self.tasks.wait(_key(values), values["agent"], _wait(request))
        return json_response(api.answer_of(found), headers={HEADER_REQUEST: name})

    async def result(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/tasks/{task}/result."""
        found = await self.tasks.wait(_key(values), values["agent"], _wait(request))
        if not found.task.is_finished:
            raise TaskUnfinished(
                f"task {found.task.task} is {found.task.state}",
                next_step="ask again later, with ?wait=60 to wait for it, or follow its events",
                retry_after=1.0,
                agent=found.task.agent,
            )
        if (failure := failure_of(found)) is not None:
            raise failure
        assert found.result is not None, "a task that succeeded has one"
        return web.Response(body=found.result, content_type="application/json", headers={HEADER_REQUEST: name})

    async def cancel(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/tasks/{task}/cancel."""
        task = await self.tasks.cancel(_key(values), values["agent"], principal_of(request).actor)
        answer = api.answer_of(Details(task=task))
        return json_response(answer, status=200 if task.is_finished else 202, headers={HEADER_REQUEST: name})

    async def events(self, request: web.BaseRequest, values: Values, name: str) -> web.StreamResponse:
        """GET …/tasks/{task}/events."""
        after = _resume(request.headers.get(HEADER_RESUME))
        follow = self.tasks.follow(_key(values), values["agent"], after)
        return await followed(request, follow, _encoded, settings=self.settings, name=name)

    async def _read(self, request: web.BaseRequest) -> bytes:
        return await read_body(request, self.settings, self.settings.body_bytes)


def _origin(request: web.BaseRequest, name: str) -> Origin:
    trace = parse(request.headers.get(HEADER_TRACEPARENT))
    return Origin(principal=principal_of(request), request=name, traceparent=None if trace is None else trace.header())


def _key(values: Values) -> TaskKey:
    return TaskKey(tenant=values["tenant"], task=values["task"])


def _state(text: str | None) -> TaskState | None:
    if text is None:
        return None
    for state in _STATES:
        if state == text:
            return state
    raise InvalidRequest(f"no task is ever {text[:40]!r}", next_step=f"use one of {', '.join(_STATES)}")


def _wait(request: web.BaseRequest) -> float:
    text = request.query.get("wait")
    if text is None:
        return 0.0
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT:
        raise InvalidRequest(f"wait is {text[:40]!r}", next_step=f"give seconds from 0 to {LONGEST_WAIT:.0f}")
    return seconds


def _resume(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isdecimal() and len(text) <= 9):
        raise InvalidRequest(
            f"{HEADER_RESUME} is {text[:40]!r}", next_step="send the id of the last event, a whole number"
        )
    return int(text)


def _encoded(one: StreamEvent) -> bytes:
    name = b"" if one.id is None else b"id: %d\n" % one.id
    return name + b"event: " + one.name + b"\ndata: " + one.data + b"\n\n"
