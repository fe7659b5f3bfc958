"""How many wrong credentials an address may show: a token bucket for each, bounded in number.

It doesn't guard secrets, which can't be guessed anyway. It bounds what wrong credentials cost: a look-up in the
database or a signature to check. An address over its limit is refused before that; credentials that the gateway knows
already are never refused, so that whoever shares an address with an attacker (behind one proxy, all do) goes on.
"""

from collections import OrderedDict

from chimera.gateway.identity.errors import TooManyFailures

MOST_ADDRESSES = 16_384


class Failures:
    """Failed authentications by address."""

    def __init__(self, *, burst: float, per_second: float) -> None:
        """Let an address fail `burst` times at once and `per_second` after that."""
        self._burst = burst
        self._rate = per_second
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Addresses remembered."""
        return len(self._left)

    def check(self, address: str, now: float) -> None:
        """Raise `TooManyFailures` where `address` has no failure left; `now` is monotonic seconds."""
        left = self._now(address, now)
        if left < 1.0:
            wait = (1.0 - left) / self._rate
            raise TooManyFailures(
                f"too many credentials from {address} were not valid",
                next_step="send a valid key; each one known here is taken at any time",
                retry_after=wait,
            )

    def failed(self, address: str, now: float) -> None:
        """Count one failure of `address`."""
        self._left[address] = (max(0.0, self._now(address, now) - 1.0), now)
        self._left.move_to_end(address)
        if len(self._left) > MOST_ADDRESSES:
            self._left.popitem(last=False)

    def _now(self, address: str, now: float) -> float:
        left, at = self._left.get(address, (self._burst, now))
        return min(self._burst, left + max(0.0, now - at) * self._rate)
