"""Tasks against a model: whatever happens in whatever order, what has ended stays ended and an old token never wins."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chimera.gateway.tasks import rules
from chimera.gateway.tasks.claims import Survey, Turns, choose
from chimera.gateway.tasks.errors import TaskFinished, TaskTaken
from chimera.gateway.tasks.model import HISTORY, Task, agent_of, lane_of
from chimera.gateway.tasks.retries import Backoff, verdict
from chimera_host.contract.problem import Problem, ProblemError

WORKERS = ("w1", "w2", "w3")
LIFE = 1_000.0


def problem(code: str) -> Problem:
    return Problem(type="t", title="t", status=502, detail="d", code=code)


class TaskMachine(RuleBasedStateMachine):
    """The model is small: which (worker, token) holds the task, and whether it has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.holder: tuple[str, int] | None = None
        self.tokens: list[tuple[str, int]] = []
        self.ended: Task | None = None
        self.before: Task | None = None

    @initialize(most=st.integers(1, 4), waits=st.booleans())
    def begin(self, most: int, waits: bool) -> None:
        self.task = rules.submitted(
            Task(
                tenant="t",
                task="task_1",
                agent="anna",
                state="waiting" if waits else "queued",
                version=1,
                created=0.0,
                updated=0.0,
                deadline=LIFE,
                due=5.0 if waits else None,
                max_attempts=most,
            ),
            0.0,
        )

    def _apply(self, event: rules.Event) -> bool:
        self.before = self.task
        try:
            self.task = rules.after(self.task, event, self.now)
        except (TaskTaken, TaskFinished):
            assert self.task is self.before
            return False
        return True

    def _end_of_hold(self) -> None:
        if self.task.state != "running":
            self.holder = None
        if self.task.is_finished and self.ended is None:
            self.ended = self.task

    @rule(seconds=st.floats(0.0, 400.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(worker=st.sampled_from(WORKERS))
    def claim(self, worker: str) -> None:
        could = self.task.state == "queued" and self.now < self.task.deadline
        self._apply(rules.Claim(worker=worker))
        if could:
            assert self.task.state == "running"
            self.holder = (worker, self.task.token)
            assert self.holder not in self.tokens, "a token is given once"
            self.tokens.append(self.holder)
        self._end_of_hold()

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), what=st.sampled_from(["succeed", "final", "retry", "put-back", "time", "back", "stopped"]))
    def a_worker_speaks(self, data: st.DataObject, what: str) -> None:
        """Whoever ever had a token says something, in any order, however late."""
        worker, token = data.draw(st.sampled_from(self.tokens))
        who: dict[str, Any] = {"worker": worker, "token": token}
        event: rules.Event
        match what:
            case "succeed":
                event = rules.Succeed(**who)
            case "back":
                event = rules.GiveBack(**who)
            case "stopped":
                event = rules.Stopped(**who)
            case "time":
                saved = self.task.seen + data.draw(st.integers(0, 1))
                event = rules.Fail(**who, problem=problem(rules.OUT_OF_TIME), kind="retry", after=1.0, saved=saved)
            case _:
                kind: Any = what
                event = rules.Fail(**who, problem=problem("host-failed"), kind=kind, after=data.draw(st.floats(0, 9)))
        holds = self.holder == (worker, token)
        assert self._apply(event) == holds, "it counts exactly if the token is the one that is held"
        if holds:
            assert self.task.state != "running"
        self._end_of_hold()

    @rule(worker=st.sampled_from(WORKERS), most=st.integers(1, 5))
    def lose(self, worker: str, most: int) -> None:
        self._apply(rules.Lose(worker=worker, most=most))
        if self.holder is not None and self.holder[0] == worker:
            assert self.task.state != "running"
        self._end_of_hold()

    @rule()
    def cancel(self) -> None:
        done = self._apply(rules.Cancel(by="key:x"))
        assert done == (self.ended is None)
        if done:
            assert self.task.state == "cancelled" or (self.task.state == "running" and self.task.cancelling)
        self._end_of_hold()

    @rule(event=st.sampled_from([rules.Due(), rules.Deadline()]))
    def tend(self, event: rules.Event) -> None:
        self._apply(event)
        self._end_of_hold()

    @invariant()
    def what_has_ended_stays(self) -> None:
        if self.ended is not None:
            assert self.task == self.ended

    @invariant()
    def it_makes_sense(self) -> None:
        task = self.task
        assert (task.state == "running") == (task.worker != "") == (self.holder is not None)
        assert (task.state == "waiting") == (task.due is not None)
        assert (task.lane is not None) == (task.state == "queued")
        assert (task.finished is not None) == task.is_finished
        assert task.failures <= task.max_attempts and task.failures <= task.attempts == task.token
        assert 1 <= len(task.history) <= HISTORY and task.history[-1].version == task.version
        assert [change.version for change in task.history] == sorted({change.version for change in task.history})
        if self.before is not None and self.before is not task:
            assert task.version in (self.before.version, self.before.version + 1)

    @invariant()
    def cancelled_is_not_begun_again(self) -> None:
        if self.task.cancelling:
            assert self.task.state == "running"


TestTasks = TaskMachine.TestCase
TestTasks.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def lanes() -> st.SearchStrategy[dict[str, list[str]]]:
    lane = st.builds(lane_of, st.sampled_from(["a", "b", "c", "d"]), st.sampled_from([-100, 0, 50, 100]))
    return st.dictionaries(st.sampled_from(["t1", "t2", "t3"]), st.lists(lane, min_size=1, max_size=8), max_size=3)


@given(lanes(), st.integers(0, 12), st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3)), st.data())
def test_choice_keeps_to_the_room_and_leaves_none_unused(
    seen: dict[str, list[str]], free: int, room: dict[str, int], data: st.DataObject
) -> None:
    last = {tenant: data.draw(st.sampled_from(names)) for tenant, names in seen.items() if data.draw(st.booleans())}
    wants, turns = choose(
        Survey(lanes=seen), free=free, room=lambda tenant, agent: room.get(agent, 0), turns=Turns(lanes=last)
    )
    taken: dict[tuple[str, str], int] = {}
    for want in wants:
        assert want.lane in seen[want.tenant] and want.count > 0
        agent = (want.tenant, agent_of(want.lane))
        taken[agent] = taken.get(agent, 0) + want.count
    assert all(count <= room.get(agent, 0) for (_, agent), count in taken.items())
    possible = sum(room.get(agent, 0) for names in seen.values() for agent in {agent_of(lane) for lane in names})
    assert sum(taken.values()) == min(free, possible)
    for tenant, names in seen.items():
        mine = [want for want in wants if want.tenant == tenant]
        if mine:  # nothing of a lower priority while a higher one has an agent with room
            lowest = max(want.lane[:3] for want in mine)
            for lane in names:
                if lane[:3] < lowest:
                    assert taken.get((tenant, agent_of(lane)), 0) == room.get(agent_of(lane), 0)
    assert all(turns.lanes[want.tenant] in seen[want.tenant] for want in wants)


@given(lanes(), st.integers(1, 20))
def test_tenants_get_as_much_as_each_other(seen: dict[str, list[str]], free: int) -> None:
    wants, _ = choose(Survey(lanes=seen), free=free, room=lambda tenant, agent: 1_000, turns=Turns())
    counts = [sum(want.count for want in wants if want.tenant == tenant) for tenant in seen]
    assert not counts or max(counts) - min(counts) <= 1


def test_a_flood_costs_another_agent_one_turn_and_the_turn_goes_on() -> None:
    queue = {"t": {lane_of(agent, 0): 100 if agent == "flood" else 3 for agent in ("anna", "bert", "flood")}}
    turns, order = Turns(), []
    while any(queue["t"].values()):
        survey = Survey(lanes={"t": [lane for lane, count in queue["t"].items() if count]})
        wants, turns = choose(survey, free=1, room=lambda tenant, agent: 1, turns=turns)
        (want,) = wants
        queue["t"][want.lane] -= 1
        order.append(agent_of(want.lane))
    assert sorted(order[:9]) == ["anna"] * 3 + ["bert"] * 3 + ["flood"] * 3


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True), st.floats(0.1, 10), st.floats(1, 600))
def test_waits_stay_below_their_bound_and_the_cap(failures: int, draw: float, first: float, cap: float) -> None:
    wait = Backoff(first=first, cap=cap).wait(failures, draw)
    assert 0 <= wait <= min(cap, first * 2 ** (failures - 1))


class Made(ProblemError):
    """A problem that a test makes."""

    def __init__(self, code: str, status: int, retry_after: float | None = None) -> None:
        super().__init__("x", retry_after=retry_after)
        self.code = code
        self.status = status


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Made("host-failed", 502), "retry"),
        (Made("deadline-exceeded", 504), "retry"),
        (Made("agent-failed", 500), "retry"),
        (Made("session-conflict", 409), "retry"),
        (Made("storage-full", 507), "retry"),
        (Made("anything", 418, 3.0), "retry"),
        (Made("agent-busy", 429), "put-back"),
        (Made("budget-exceeded", 429, 40_000.0), "put-back"),
        (Made("cell-unavailable", 503, 5.0), "put-back"),
        (Made("run-in-progress", 409, 2.0), "put-back"),
        (Made("internal", 500), "final"),
        (Made("invalid-request", 400), "final"),
        (Made("not-allowed", 403), "final"),
        (Made("agent-not-found", 404), "final"),
        (Made("model-rejected", 502), "final"),
        (Made("call-loop", 508), "final"),
        (Made("agent-storage-full", 507), "final"),
    ],
)
def test_what_a_problem_means(error: ProblemError, kind: str) -> None:
    made = verdict(error, failures=0, backoff=Backoff(first=2, cap=300), rest=30, draw=0.5)
    assert made.kind == kind
    assert made.rest <= 30 and made.after <= 300
