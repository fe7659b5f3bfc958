"""The watchdog: decides when a host can't be trusted any more, and ends it with last words that name the agent.

Three things cost a host its life: an event loop that stands still (an agent computes or blocks in it), a cancelled call
that doesn't come back within the grace (a thread in an endless loop), and more memory than it may use. The rule,
`decide`, is pure; `Watchdog` is a thread that feeds it once a second, since the loop can't watch itself. The same
thread waits on the lifeline: when the parent is gone, so is the host, even if its loop hangs.
"""

import asyncio
import logging
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Protocol

from msgspec import Struct

from chimera_host.blackbox import BlackBox, LastWords

log = logging.getLogger(__name__)

TICK = 1.0
LOG_PATIENCE = 2.0
LATE_TICKS = 3.0
"""A watcher this many ticks late was itself stopped (a suspended machine); what it sees then proves nothing."""


class ExitCode(IntEnum):
    """How a host ends. All but DRAINED and LIFELINE are an agent's doing, named in the last words."""

    DRAINED = 0
    FAILED = 70
    LIFELINE = 80
    CALL_OVERDUE = 81
    LOOP_STALLED = 82
    OUT_OF_MEMORY = 83


class OverdueCall(Struct, frozen=True, kw_only=True):
    """A call that was cancelled and hasn't come back; `seconds` since it was cancelled."""

    agent: str
    call: str
    seconds: float


class Observation(Struct, frozen=True, kw_only=True):
    """What the watchdog sees: the loop's heartbeats so far, cancelled calls, how many others run, memory in bytes."""

    beats: int
    cancelled: tuple[OverdueCall, ...] = ()
    others: int = 0
    resident: int = 0
    heaviest: tuple[str, ...] = ()


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds in seconds and bytes."""

    grace: float
    memory_bytes: int
    tick: float = TICK


class WatchState(Struct, frozen=True, kw_only=True):
    """What the rule remembers: the last tick, since when the loop stands, and when and why the host was given up."""

    ticked_at: float | None = None
    beats: int = -1
    standing_since: float | None = None
    gave_up_at: float | None = None
    verdict: "Verdict | None" = None


class Verdict(Struct, frozen=True, kw_only=True):
    """Why the host must end, and which agents and calls did it (none where that can't be told)."""

    exit: ExitCode
    reason: str
    agents: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()


class Decision(Struct, frozen=True, kw_only=True):
    """`give_up`: take no more calls. `end`: exit at once."""

    give_up: Verdict | None = None
    end: Verdict | None = None


def decide(seen: Observation, state: WatchState, limits: Limits, now: float) -> tuple[Decision, WatchState]:
    """What to do about a host that looks like this.

    A standing loop ends it at once: nothing else in it can go on. Overdue calls and memory give it up: it takes no
    more calls, those that can still finish have the grace to do so, then it ends.
    """
    punctual = state.ticked_at is not None and now - state.ticked_at <= LATE_TICKS * limits.tick
    standing = state.standing_since if punctual and seen.beats == state.beats else None
    if standing is None and punctual and seen.beats == state.beats:
        standing = state.ticked_at
    state = WatchState(
        ticked_at=now,
        beats=seen.beats,
        standing_since=standing,
        gave_up_at=state.gave_up_at,
        verdict=state.verdict,
    )
    if standing is not None and now - standing >= limits.grace:
        stalled = Verdict(
            exit=ExitCode.LOOP_STALLED, reason=f"the event loop has stood still for {now - standing:.0f} s"
        )
        return Decision(end=state.verdict or stalled), state
    if state.verdict is not None and state.gave_up_at is not None:
        over = not seen.others or now - state.gave_up_at >= limits.grace
        return Decision(end=state.verdict if over else None), state
    verdict = _verdict(seen, limits)
    if verdict is None:
        return Decision(), state
    given_up = WatchState(ticked_at=now, beats=seen.beats, standing_since=standing, gave_up_at=now, verdict=verdict)
    return Decision(give_up=verdict), given_up


def _verdict(seen: Observation, limits: Limits) -> Verdict | None:
    overdue = [call for call in seen.cancelled if call.seconds >= limits.grace]
    if overdue:
        agents = tuple(sorted({call.agent for call in overdue}))
        longest = max(call.seconds for call in overdue)
        return Verdict(
            exit=ExitCode.CALL_OVERDUE,
            reason=f"a cancelled call of {', '.join(agents)} did not come back for {longest:.0f} s",
            agents=agents,
            calls=tuple(call.call for call in overdue),
        )
    if seen.resident > limits.memory_bytes:
        by = f"; most of the growth came with {', '.join(seen.heaviest)}" if seen.heaviest else ""
        return Verdict(
            exit=ExitCode.OUT_OF_MEMORY,
            reason=f"it uses {seen.resident >> 20} MiB of {limits.memory_bytes >> 20} MiB{by}",
            agents=seen.heaviest,
        )
    return None


class Watched(Protocol):
    """The host as the watchdog sees it. Called from the watchdog's thread."""

    def observe(self) -> Observation:
        """How it stands."""

    def blame(self) -> Sequence[tuple[str, str]]:
        """Agent and call that the event loop is busy with; all running ones where that can't be told."""

    def calls_of(self, agents: Sequence[str]) -> Sequence[str]:
        """The running calls of these agents."""

    def give_up(self, verdict: Verdict) -> None:
        """Take no more calls."""


class Watchdog:
    """The thread. `leave` ends the process; a test passes its own."""

    def __init__(
        self,
        watched: Watched,
        limits: Limits,
        *,
        loop: asyncio.AbstractEventLoop,
        black_box: BlackBox | None,
        lifeline: int | None,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """Watch `watched`, whose event loop is `loop`, and the pipe `lifeline`."""
        self._watched = watched
        self._limits = limits
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._black_box = black_box
        self._lifeline = lifeline
        self._leave = leave
        self._stop_read, self._stop_write = os.pipe()
        self._state = WatchState()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns when the thread is gone."""
        os.close(self._stop_write)
        self._thread.join()
        os.close(self._stop_read)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._stop_read, select.POLLIN | select.POLLHUP)
        if self._lifeline is not None:
            poll.register(self._lifeline, select.POLLIN | select.POLLHUP)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(self._limits.tick * 1000)}
            if self._stop_read in ready:
                return
            if self._lifeline in ready and self._lifeline is not None and not os.read(self._lifeline, 4096):
                self._say(LastWords(exit=ExitCode.LIFELINE.name, reason="the parent is gone", at=time.time()))
                self._leave(ExitCode.LIFELINE)
                return
            if self._tick():
                return

    def _tick(self) -> bool:
        if self._black_box is not None:
            self._black_box.beat(time.time())
        decision, self._state = decide(self._watched.observe(), self._state, self._limits, time.monotonic())
        if decision.give_up is not None:
            log.error("host gives itself up", extra=_as_extra(decision.give_up))
            self._watched.give_up(decision.give_up)
        if decision.end is not None:
            self._end(decision.end)
            return True
        return False

    def _end(self, verdict: Verdict) -> None:
        extra: dict[str, object] = {}
        if verdict.exit is ExitCode.LOOP_STALLED:
            blamed = self._watched.blame()
            verdict = Verdict(
                exit=verdict.exit,
                reason=verdict.reason,
                agents=tuple(sorted({agent for agent, _ in blamed})),
                calls=tuple(call for _, call in blamed),
            )
            if (frame := sys._current_frames().get(self._loop_thread)) is not None:
                extra["stack"] = "".join(traceback.format_stack(frame))[-8000:]
        self._say(
            LastWords(
                exit=verdict.exit.name,
                reason=verdict.reason,
                agents=verdict.agents,
                calls=verdict.calls or tuple(self._watched.calls_of(verdict.agents)),
                at=time.time(),
            )
        )
        # If the log's reader is stuck, so is whoever logs; the end must not depend on it.
        last_resort = threading.Timer(LOG_PATIENCE, self._leave, (verdict.exit,))
        last_resort.daemon = True
        last_resort.start()
        log.critical("host ends itself", extra={**_as_extra(verdict), **extra})
        last_resort.cancel()
        self._leave(verdict.exit)

    def _say(self, words: LastWords) -> None:
        if self._black_box is not None:
            self._black_box.last_words(words)


def _as_extra(verdict: Verdict) -> dict[str, object]:
    return {
        "exit": verdict.exit.name,
        "exit_code": int(verdict.exit),
        "reason": verdict.reason,
        "agents": list(verdict.agents),
        "calls": list(verdict.calls),
    }
