"""Sides as values.

An agent's **blue** side is its live revision. While it is rolled out it has a **green** one, the revision that is to be
live, in a cell of its own where it needs another. Calls and new sessions are drawn to one of them by green's weight, in
basis points; a session in flight stays on its side. When one side has won, the other is **kept** warm for a time, for
the sessions that began on it and for the way back; a revision that was taken back is **withdrawn**, and gets no call.
"""

from msgspec import Struct

WHOLE = 10_000
"""The weight at which all calls go to green."""


class Green(Struct, frozen=True, kw_only=True):
    """The revision that is to be live, and the live one that this was decided on (None: there is no such agent yet).

    A revision of None says that the agent is to be taken out of service: it has no green side and no traffic is moved;
    `finish` with green deletes it. `owner` is the resource of a cluster that brings it: an agent has one owner,
    who alone changes it.
    """

    agent: str
    revision: str | None
    before: str | None
    owner: str | None = None


class Standing(Struct, frozen=True, kw_only=True):
    """How an agent stands: its live revision (`blue`), its green one with its weight, and what was loaded ahead.

    `wanted` is on how many hosts blue was found loaded when it was last looked (None: nobody has looked yet), and
    `holding` on how many of as many hosts green is loaded. `problem` says in one sentence why green can't be loaded.
    `kept` is the revision that is kept warm until `kept_until` (seconds since the epoch).
    """

    agent: str
    blue: str | None
    green: str | None = None
    weight: int = 0
    rollout: str | None = None
    wanted: int | None = None
    holding: int = 0
    problem: str | None = None
    kept: str | None = None
    kept_until: float = 0.0

    @property
    def loaded(self) -> bool:
        """Whether green is loaded wherever blue is, so that traffic may move; true where blue is loaded nowhere."""
        return self.wanted is not None and self.holding >= self.wanted


class Seen(Struct, frozen=True, kw_only=True, array_like=True):
    """What ended on one side of an agent in one window, at one gateway.

    `calls` are those that say something about the agent: they went well, or it failed them (`failures`: it raised, took
    too long, broke its host, could not be loaded, its model or tools refused what it asked). `platform` are those that
    failed for the platform's reasons, and are not in `calls`; what callers did wrong or took back is in neither.
    `buckets` counts `calls` by how long they took (`chimera.delivery.sides.rules.BOUNDS`).

    The sides of an agent share their windows: what is compared happened at the same time, at the same gateway.
    """

    agent: str
    revision: str
    green: bool
    window: int
    calls: int
    failures: int
    platform: int = 0
    buckets: tuple[int, ...] = ()


class Observations(Struct, frozen=True, kw_only=True):
    """What was seen after a place, whole windows only, and the place to ask after next."""

    seen: tuple[Seen, ...]
    through: int
