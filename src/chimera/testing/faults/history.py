"""What clients of a platform did and were told, and whether what they find afterwards can be true.

A client records each operation when it begins and when it ends: with an answer, refused for certain, or unknown (the
connection broke, a 5xx came). An operation whose end is unknown may have happened or not, so the rules below allow
both, and nothing else:

- A session is a register with a version. Its operations must be linearizable (Herlihy and Wing, 1990): some order of
  them, which keeps to real time, explains every answer. `detangle.lin` searches it.
- A log that only grows holds everything acknowledged, once, in its one writer's order; what is unknown at most once;
  nothing else. The counter that is written together with it says how long it is.
- A task whose key was accepted is one task, and has ended well.
- A conversation holds each question once, in order, though every call was made again until it was answered.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detangle import lin

Version = tuple[int, str | None]


class Session(lin.Model):
    """A session: `write((name, expected, value)) -> version | "refused"`, `read(name) -> (version, value)`."""

    name = "session"

    def init(self) -> Version:
        """No session: version 0."""
        return (0, None)

    def partition(self, operations: Sequence[lin.Operation]) -> list[list[lin.Operation]]:
        """Sessions know nothing of each other, so each is checked alone."""
        apart: dict[str, list[lin.Operation]] = {}
        for operation in operations:
            name = operation.arg[0] if operation.f == "write" else operation.arg
            apart.setdefault(name, []).append(operation)
        return list(apart.values())

    def step(self, state: Version, op: lin.Operation) -> tuple[bool, Version]:
        """A write happens at the version that it expects, and makes the next; elsewhere it is refused."""
        version, _ = state
        if op.f == "read":
            return (op.status != "ok" or tuple(op.output) == state), state
        _, expected, value = op.arg
        fits = expected == version
        if op.status != "ok":
            return fits, (version + 1, value)
        if op.output == "refused":
            return not fits, state
        return fits and op.output == version + 1, (version + 1, value)


def needed(operations: Sequence[lin.Operation]) -> list[lin.Operation]:
    """The operations without those of unknown end that explain nothing, as the search takes ages with many of them.

    Reads that were not answered say nothing. Of the unanswered writes that expect one version of a session, only
    one can have happened: the one whose value somebody read; none, if another was acknowledged as the next version;
    or else any, and as nobody read their values, the one that began first stands for all (it may have happened at
    any moment at which another may).
    """
    answered = [one for one in operations if one.status == "ok"]
    read = {tuple(one.output)[1] for one in answered if one.f == "read"}
    written = {one.arg[:2] for one in answered if one.f == "write" and one.output != "refused"}
    unknown = [one for one in operations if one.status not in ("ok", "fail") and one.f == "write"]
    seen = [one for one in unknown if one.arg[2] in read]
    explained = written | {one.arg[:2] for one in seen}
    first = {one.arg[:2]: one for one in reversed(unknown) if one.arg[:2] not in explained}
    kept = {one.index for one in [*answered, *seen, *first.values()]}
    return [one for one in operations if one.index in kept]


def linearizable(operations: Sequence[lin.Operation]) -> str | None:
    """Why no order explains what the clients of sessions were told; None where one does."""
    result = lin.check(needed(operations), Session())
    return None if result.ok else str(result.explain())


@dataclass
class Appended:
    """What one writer appended to one log, in its order."""

    tried: list[str] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)

    def wrong(self, log: Sequence[str], count: int) -> list[str]:
        """What is wrong with the log that was found, and the counter that was written with it."""
        found = Counter(log)
        faults = [f"{item} was acknowledged and is not there" for item in self.tried if self._lost(item, found)]
        faults += [f"{item} is there {times} times" for item, times in found.items() if times > 1]
        faults += [f"{item} is there and nobody wrote it" for item in found.keys() - set(self.tried)]
        place = {item: index for index, item in enumerate(self.tried)}
        order = [place[item] for item in log if item in place]
        if order != sorted(order):
            faults.append(f"the order is not the writer's: {list(log)}")
        if count != len(log):
            faults.append(f"the counter says {count}, the log has {len(log)}: half a write is there")
        return faults

    def _lost(self, item: str, found: Mapping[str, int]) -> bool:
        return item in self.acknowledged and not found[item]


def wrong_conversation(asked: Sequence[str], messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with a session whose every question was asked, with a key, until it was answered."""
    questions = [message["content"] for message in messages if message["role"] == "user"]
    if questions == list(asked):
        answers = [message for message in messages if message["role"] == "assistant"]
        return [] if len(answers) == len(asked) else [f"{len(asked)} questions and {len(answers)} answers"]
    return [f"asked {list(asked)}, found {questions}"]


def wrong_tasks(accepted: Mapping[str, str], found: Mapping[str, Mapping[str, Any]], listed: int) -> list[str]:
    """What is wrong with tasks: `accepted` is their ids by key, `found` the tasks by id, `listed` how many."""
    faults = [f"task {task} of key {key} is gone" for key, task in accepted.items() if task not in found]
    faults += [
        f"task {task} is {found[task]['state']}: {found[task].get('problem')}"
        for task in accepted.values()
        if task in found and found[task]["state"] != "succeeded"
    ]
    if len(set(accepted.values())) != len(accepted):
        faults.append("two keys are one task")
    if listed != len(accepted):
        faults.append(f"{len(accepted)} keys were accepted and there are {listed} tasks")
    return faults
