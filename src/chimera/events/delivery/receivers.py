"""Whose turn it is among receivers: one line of each after the other, and of each only as many at once as it answers.

A receiver that fails is asked less, down to one request at a time, and rests between those (`rules.share_after`). So a
slow or dead one holds few of the places that all share, and the others go on.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

from chimera.events.delivery.lines import Line
from chimera.events.delivery.model import Outcome
from chimera.events.delivery.rules import Share, share_after

ReceiverKey: TypeAlias = tuple[str, str]
"""A subscription, and for tasks' webhooks the receiver's address without its path."""


@dataclass(kw_only=True, slots=True, eq=False)
class _Receiver:
    share: Share
    lines: deque[Line] = field(default_factory=deque)
    running: int = 0
    listed: bool = False
    resting: bool = False


class Turns:
    """The receivers that lines wait for. Times are by a clock that never goes back."""

    def __init__(self, most: int) -> None:
        """Ask each for `most` at once at most."""
        self._most = most
        self._receivers: dict[ReceiverKey, _Receiver] = {}
        self._order: deque[ReceiverKey] = deque()
        self._rests: list[tuple[float, ReceiverKey]] = []

    def add(self, key: ReceiverKey, line: Line, now: float) -> None:
        """The line waits for the receiver."""
        found = self._receivers.get(key)
        if found is None:
            found = self._receivers[key] = _Receiver(share=Share(most=self._most, limit=self._most))
        found.lines.append(line)
        self._list(key, found, now)

    def next(self, now: float) -> tuple[ReceiverKey, Line] | None:
        """The next line to be sent; it counts as running from here on."""
        while self._rests and self._rests[0][0] <= now:
            _, key = heapq.heappop(self._rests)
            if (found := self._receivers.get(key)) is not None:
                found.resting = False
                self._list(key, found, now)
        while self._order:
            key = self._order.popleft()
            found = self._receivers[key]
            found.listed = False
            if self._may(found, now):
                line = found.lines.popleft()
                found.running += 1
                self._list(key, found, now)
                return key, line
            self._list(key, found, now)
        return None

    def answered(self, key: ReceiverKey, outcome: Outcome | None, now: float) -> None:
        """One that ran has ended; without an outcome it says nothing of the receiver."""
        found = self._receivers[key]
        found.running -= 1
        if outcome is not None:
            found.share = share_after(found.share, outcome, now)
        if not found.lines and not found.running and not found.share.failures:
            if not found.listed:
                del self._receivers[key]
            return
        self._list(key, found, now)

    def forget(self) -> None:
        """Forget receivers that nothing waits for, however they answered."""
        for key in [key for key, one in self._receivers.items() if not (one.lines or one.running or one.listed)]:
            del self._receivers[key]

    def next_rest(self) -> float | None:
        """When the next resting receiver may be asked again."""
        return self._rests[0][0] if self._rests else None

    def _may(self, one: _Receiver, now: float) -> bool:
        return bool(one.lines) and one.running < one.share.limit and one.share.rests <= now

    def _list(self, key: ReceiverKey, one: _Receiver, now: float) -> None:
        if one.listed:
            return
        if self._may(one, now):
            one.listed = True
            self._order.append(key)
        elif one.lines and one.share.rests > now and not one.resting:
            one.resting = True
            heapq.heappush(self._rests, (one.share.rests, key))
