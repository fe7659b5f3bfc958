"""Which commits are new since another, and who made them: those that are reached from one and not from the other.

A merge has the other line as one of its parents, so how far away a commit stands says nothing: all that the older
commit goes back to has to be known for old before the rest is known for new. Both sides are walked, what was committed
last first, and a commit turns old with all behind it as soon as the older side reaches it. The new side is always
walked to its end. The older side may stop before: by then all that is left of it was committed before all that is
new. Times are whatever a commit says, and so they only decide when to stop looking for old commits: one that lies has
somebody named too many, never too few.

Both sides are bounded. A new side that is cut short, or that holds what can't be read, is said to be (`unread`): then
some who made it are not among the people, and whoever relies on all of them must not go on.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field

from chimera.delivery.git.errors import MalformedObject
from chimera.delivery.git.objects import Commit


@dataclass(frozen=True, kw_only=True, slots=True)
class Since:
    """What is new: whether the newer commit follows the older one (None: there was none), and who made it.

    `unread` says why not all of it was read; empty where it was.
    """

    forward: bool | None
    people: frozenset[str]
    unread: str = ""


def since(read: Callable[[str], Commit], commit: str, before: str | None, most: int) -> Since:
    """What is new in `commit` since `before`; all of it where that is None. On each side `most` commits are read.

    Who made `commit` itself is always among the people, also where it isn't new.
    """
    walk = _Walk(read)
    walk.add(commit)
    if before is not None:
        walk.add(before)
        walk.turn_old(before)
    walked, unread = 0, ""
    while (name := walk.next_new()) is not None:
        if walk.old_left(most) and walk.is_behind(name):
            walk.step_old()
            continue
        if walked == most:
            unread = f"more than {most:,} commits are new"
            break
        walked += 1
        try:
            walk.step(name)
        except MalformedObject as error:
            if before is not None:
                raise
            unread = error.detail
    while not unread and walk.old_left(most) and walk.may_reach_new():
        walk.step_old()
    forward = None if before is None else commit == before or walk.follows(before)
    return Since(forward=forward, people=frozenset(walk.people(commit)), unread=unread)


@dataclass(slots=True)
class _Seen:
    """What is remembered of a commit that was read."""

    at: int
    parents: tuple[str, ...]
    makers: frozenset[str]
    walked: bool = False


@dataclass(slots=True)
class _Walk:
    """Commits that were read, those of them that are old, and the ends of both sides, by when they were committed."""

    read: Callable[[str], Commit]
    seen: dict[str, _Seen] = field(default_factory=dict)
    old: set[str] = field(default_factory=set)
    new_ends: list[tuple[int, str]] = field(default_factory=list)
    old_ends: list[tuple[int, str]] = field(default_factory=list)
    oldest_new: list[tuple[int, str]] = field(default_factory=list)
    makers: dict[frozenset[str], frozenset[str]] = field(default_factory=dict)
    old_walked: int = 0

    def add(self, name: str) -> None:
        """Read a commit, which is new until the older side reaches it."""
        if name in self.seen:
            return
        made = self.read(name)
        makers = frozenset((made.author, made.committer, *made.co_authors))
        self.seen[name] = _Seen(at=made.at, parents=made.parents, makers=self.makers.setdefault(makers, makers))
        heapq.heappush(self.new_ends, (-made.at, name))
        heapq.heappush(self.oldest_new, (made.at, name))

    def turn_old(self, name: str) -> None:
        """Have a commit be old, with all behind it that was read."""
        waiting = [name]
        while waiting:
            name = waiting.pop()
            if name in self.old or name not in self.seen:
                continue
            self.old.add(name)
            one = self.seen[name]
            if one.walked:
                waiting += one.parents
            else:
                heapq.heappush(self.old_ends, (-one.at, name))

    def next_new(self) -> str | None:
        """The end of the new side that was committed last."""
        while self.new_ends and (self.new_ends[0][1] in self.old or self.seen[self.new_ends[0][1]].walked):
            heapq.heappop(self.new_ends)
        return self.new_ends[0][1] if self.new_ends else None

    def old_left(self, most: int) -> bool:
        """Whether the older side may be walked further."""
        return bool(self.old_ends) and self.old_walked < most

    def is_behind(self, name: str) -> bool:
        """Whether a commit of the new side was committed before the end of the older side, which may reach it."""
        return -self.old_ends[0][0] >= self.seen[name].at

    def may_reach_new(self) -> bool:
        """Whether something that counts as new may yet turn out to be old."""
        while self.oldest_new and self.oldest_new[0][1] in self.old:
            heapq.heappop(self.oldest_new)
        return bool(self.oldest_new) and -self.old_ends[0][0] >= self.oldest_new[0][0]

    def step(self, name: str) -> None:
        """Go on to a commit's parents."""
        one = self.seen[name]
        one.walked = True
        for parent in one.parents:
            self.add(parent)

    def step_old(self) -> None:
        """Go on from the end of the older side; what can't be read there leaves what is behind it new."""
        name = heapq.heappop(self.old_ends)[1]
        self.old_walked += 1
        self.seen[name].walked = True
        for parent in self.seen[name].parents:
            try:
                self.add(parent)
            except MalformedObject:
                continue
            self.turn_old(parent)

    def follows(self, before: str) -> bool:
        """Whether something new goes back to `before`."""
        return any(before in one.parents for name, one in self.seen.items() if name not in self.old)

    def people(self, commit: str) -> set[str]:
        """Who made what is new, and `commit`."""
        found = {*self.seen[commit].makers}
        for makers in {one.makers for name, one in self.seen.items() if name not in self.old}:
            found |= makers
        return found
