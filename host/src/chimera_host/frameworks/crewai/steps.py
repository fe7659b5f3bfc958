"""Tasks of a crew and methods of a flow as steps: the finished ones are given again, the others run and are saved.

A crew or flow goes on by CrewAI's own loop, which runs from its beginning. A finished task gives its `TaskOutput`
without its agent, so that later tasks have it as their context, conditional ones decide on it, and the crew's output
names all. A finished method gives its result and leaves the flow's state as it was after it; listeners, routers and
cycles follow by themselves. CrewAI's own resumption isn't used: it replays a prefix of tasks, and hands the last
method's output to every listener.

Tasks are recognised by their place. A delegated task, and whatever a method does, belongs to the step that it is part
of. A flow's methods are saved where CrewAI persists a flow's state (`FlowPersistence`), so `@persist` is the platform's
too. What is saved is JSON and CrewAI's own outputs; a method that gives something else is no step, and runs again.
"""

import logging
from asyncio import iscoroutinefunction
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from inspect import iscoroutine
from typing import Any

from crewai import Crew, Task
from crewai.crews.crew_output import CrewOutput
from crewai.flow.flow import Flow
from crewai.flow.flow_definition import FlowPersistenceDefinition
from crewai.flow.persistence import FlowPersistence
from crewai.tasks.task_output import TaskOutput
from pydantic import BaseModel, PrivateAttr

from chimera_host.contract.state import FinishedStep
from chimera_host.errors import AgentFailed
from chimera_host.frameworks.crewai.build import emit_output
from chimera_host.ports import CallContext, current_call

log = logging.getLogger(__name__)

Make = Callable[[], TaskOutput]
OUTPUTS: dict[str, type[BaseModel]] = {"crew": CrewOutput, "task": TaskOutput}
"""CrewAI's outputs, by the name that marks them where they are saved."""


# -- crews ------------------------------------------------------------------------------------------------------------


class TaskSteps:
    """The tasks of one call's crew."""

    def __init__(self, call: CallContext, crew: Crew) -> None:
        """Number the crew's tasks."""
        self._call = call
        self._names = {id(task): f"task-{number}" for number, task in enumerate(crew.tasks, 1)}

    def output(self, task: Task, make: Make) -> TaskOutput:
        """A task's output: the one it had, or the one it makes."""
        name = self._names.get(id(task))
        if name is None:
            return make()
        if (before := self._call.finished.get(name)) is not None:
            return self._again(task, before)
        with self._call.step(name):
            output = make()
        self._call.save_step_later(name, "task", dumped_task(output))
        return output

    def _again(self, task: Task, before: FinishedStep) -> TaskOutput:
        output = loaded_task(task, before.output)
        if output.name != (task.name or task.description):
            raise AgentFailed(
                f"{before.step} of the unfinished work is {output.name[:100]!r}, which isn't in its place any more",
                next_step="the agent is not the one that began this: ask anew, with another key",
                agent=self._call.document.name,
            )
        task.output = output
        if task.callback is emit_output:
            emit_output(output)
        return output


_running: ContextVar[TaskSteps | None] = ContextVar("running_tasks", default=None)


@contextmanager
def stepping(call: CallContext, crew: Crew) -> Iterator[None]:
    """The tasks of this crew are steps of the call, where it has a run."""
    if call.request.run is None:
        yield
        return
    token = _running.set(TaskSteps(call, crew))
    try:
        yield
    finally:
        _running.reset(token)


def prepare() -> None:
    """Have every task ask whether it is a step. Once for the process."""
    execute = Task._execute_core

    @wraps(execute)
    def stepped(task: Task, *args: Any, **options: Any) -> TaskOutput:
        steps = _running.get()
        make = partial(execute, task, *args, **options)
        return make() if steps is None else steps.output(task, make)

    Task._execute_core = stepped


def dumped_task(output: TaskOutput) -> dict[str, Any]:
    """A task's output as JSON."""
    saved: dict[str, Any] = output.model_dump(mode="json", exclude={"pydantic"})
    if output.pydantic is not None:
        saved["pydantic"] = output.pydantic.model_dump(mode="json")
    return saved


def loaded_task(task: Task, saved: dict[str, Any]) -> TaskOutput:
    """The output that `task` had; a model in it is of the class that the task names."""
    rest = {name: value for name, value in saved.items() if name != "pydantic"}
    output = TaskOutput.model_validate(rest)
    if "pydantic" in saved and task.output_pydantic is not None:
        output.pydantic = task.output_pydantic.model_validate(saved["pydantic"])
    return output


# -- flows ------------------------------------------------------------------------------------------------------------


class MethodSteps(FlowPersistence):  # type: ignore[misc]
    """The methods of one call's flow, as CrewAI's place to keep a flow's state. Without a run it keeps nothing."""

    persistence_type: str = "chimera"
    _call: CallContext = PrivateAttr()
    _times: dict[str, int] = PrivateAttr(default_factory=dict)
    _gave: dict[str, tuple[str, Any]] = PrivateAttr(default_factory=dict)
    _state_of: int = PrivateAttr(default=0)

    @classmethod
    def of(cls, call: CallContext) -> "MethodSteps":
        """The steps of this call's flow."""
        steps = cls()
        steps._call = call
        return steps

    def follow(self, flow: Flow[Any]) -> None:
        """Keep this flow's state here, and run or give again its methods."""
        flow.persistence = self
        flow._instance_persistence = True
        run = self._call.request.run
        if run is None:
            return
        flow._stamp_state_id(run)  # a random one would make other questions of the same step
        methods = {
            name: method.model_copy(update={"persist": None}) for name, method in flow._definition.methods.items()
        }
        kept = FlowPersistenceDefinition(enabled=True)
        flow._definition = flow._definition.model_copy(update={"persist": kept, "methods": methods})
        for name, method in flow._methods.items():
            flow._methods[name] = self._stepped(flow, str(name), method)

    def init_db(self) -> None:
        """There is no database."""

    def save_state(self, flow_uuid: str, method_name: str, state_data: dict[str, Any] | BaseModel) -> None:
        """Commit a method that has just finished, with the state after it."""
        step, result = self._gave.pop(method_name, ("", None))
        if not step:
            return  # it was given again, or there is no run
        try:
            state = state_data.model_dump(mode="json") if isinstance(state_data, BaseModel) else state_data
            saved = {"method": method_name, "result": dumped(result), "state": dumped(state)}
        except TypeError as error:
            told = {"step": step, "agent": self._call.document.name, "problem": str(error)}
            log.warning("a method of a flow is not saved and may run again", extra=told)
            return
        self._call.save_step_blocking(step, "method", saved)

    def load_state(self, flow_uuid: str) -> dict[str, Any] | None:
        """Nothing: the state comes back method by method."""
        return None

    def _stepped(self, flow: Flow[Any], name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def called(*args: Any, **options: Any) -> Any:
            self._times[name] = self._times.get(name, 0) + 1
            step = f"{name}/{self._times[name]}"
            if (before := self._call.finished.get(step)) is not None:
                result = self._again(flow, before)
                return _ready(result) if iscoroutinefunction(method) else result
            with self._call.step(step):
                result = method(*args, **options)
            if iscoroutine(result):
                return self._awaited(name, step, result)
            self._gave[name] = (step, result)
            return result

        return called

    async def _awaited(self, name: str, step: str, method: Coroutine[Any, Any, Any]) -> Any:
        """The result of an asynchronous method; CrewAI awaits what a method returns."""
        with self._call.step(step):
            result = await method
        self._gave[name] = (step, result)
        return result

    def _again(self, flow: Flow[Any], before: FinishedStep) -> Any:
        """What the method gave. Of methods that ran side by side, the one that was saved last has left the state."""
        if before.version > self._state_of:
            self._state_of = before.version
            flow._restore_state(loaded(before.output["state"]))
        return loaded(before.output["result"])


def dumped(value: Any) -> Any:
    """A value as JSON from which `loaded` makes it again; `TypeError` where that can't be."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [dumped(one) for one in value]
        case dict() if all(isinstance(name, str) for name in value):
            return {"value": {name: dumped(one) for name, one in value.items()}}
        case CrewOutput() if value.pydantic is None and all(one.pydantic is None for one in value.tasks_output):
            return {"crew": value.model_dump(mode="json")}
        case TaskOutput() if value.pydantic is None:
            return {"task": value.model_dump(mode="json")}
        case _:
            raise TypeError(f"a {type(value).__name__} is neither JSON nor an output of CrewAI")


def loaded(saved: Any) -> Any:
    """See `dumped`."""
    if isinstance(saved, list):
        return [loaded(one) for one in saved]
    if not isinstance(saved, dict):
        return saved
    ((mark, inner),) = saved.items()
    if mark == "value":
        return {name: loaded(one) for name, one in inner.items()}
    return OUTPUTS[mark].model_validate(inner)


async def _ready(result: Any) -> Any:
    return result


def of_this_call() -> MethodSteps:
    """Where a flow keeps its state that asks for CrewAI's default place."""
    return MethodSteps.of(current_call.get())
