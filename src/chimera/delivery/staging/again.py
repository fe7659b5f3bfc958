"""Longer times are measured again before they fail a change.

Calls of a side that run at the same time share a host, and the moment: whatever holds the host up holds up all of them.
So twenty times are far from twenty independent ones, and no test of such times has the error that it says; on a busy
machine one unchanged revision in five or so looks slower than itself.

What one measurement has from another is another moment. Whatever its calls share, an unchanged revision is the slower
side with the same probability as the live one, and both can't be: in one of two measurements at most. So times are
longer where they are in each of so many measurements that chance would have it with the error alone. Few agents come
to the second.
"""

import math
from collections.abc import Awaitable, Callable, Collection, Mapping

NOT_AGAIN = "; its answers took longer at first, which was not shown again"
"""What is said of an agent whose times were longer in the first measurement alone."""


def measurements(error: float) -> int:
    """How many measurements show with this error that one side is slower, if it is in each of them."""
    return math.ceil(math.log2(1.0 / error))


async def slower_again(
    slow: Collection[str],
    costs: Mapping[str, int],
    measure: Callable[[Collection[str], int], Awaitable[Collection[str]]],
    *,
    times: int,
    bound: int,
) -> tuple[set[str], int]:
    """Of the agents that looked slower once, those that do in `times` measurements; and the calls that it took.

    A measurement of an agent costs so many calls (`costs`), all of them together `bound` at most. An agent for which
    they don't reach isn't shown to be slower.
    """
    calls, left = 0, set(slow)
    for number in range(1, times):
        within = set()
        for name in sorted(left):
            if calls + costs[name] <= bound:
                within.add(name)
                calls += costs[name]
        left = set(await measure(within, number)) if within else set()
    return left, calls
