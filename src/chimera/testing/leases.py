"""Leases in memory: the shipped fake that passes the same conformance suite as the database's."""

from chimera.kernel.clock import Clock
from chimera.kernel.leases import Lease, decide


class MemoryLeases:
    """A `Leases` for processes that share an object."""

    def __init__(self, clock: Clock) -> None:
        """Start without any; `clock` says when they expire."""
        self._clock = clock
        self.leases: dict[str, Lease] = {}
        self.away = False

    async def acquire(self, name: str, owner: str, life: float) -> Lease | None:
        """See `Leases`; `OSError` while `away`."""
        if self.away:
            raise OSError("nobody answers")
        got = decide(self.leases.get(name), name=name, owner=owner, now=self._clock.wall(), life=life)
        if got is not None:
            self.leases[name] = got
        return got

    async def release(self, lease: Lease) -> None:
        """See `Leases`."""
        held = self.leases.get(lease.name)
        if held is not None and (held.owner, held.token) == (lease.owner, lease.token):
            self.leases[lease.name] = Lease(name=held.name, owner="", token=held.token, expires=0.0)
