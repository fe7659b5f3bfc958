"""The checker of deliveries: what was acknowledged against what a receiver got.

A history is what writers were told was stored, as (subject, number), and what arrived, in its order. Numbers of a
subject grow with time. What a writer was told nothing of may have happened, and may arrive.
"""

from collections.abc import Iterable, Sequence

Place = tuple[str, int]


def violations(acknowledged: Iterable[Place], arrived: Sequence[Place]) -> list[str]:
    """What is wrong: an acknowledged fact that never arrived, or first arrivals of a subject out of their order."""
    first = list(dict.fromkeys(arrived))
    wrong = [f"{subject} {number} was lost" for subject, number in sorted(set(acknowledged) - set(first))]
    last: dict[str, int] = {}
    for subject, number in first:
        if number < last.get(subject, number):
            wrong.append(f"{subject} {number} came after {last[subject]}")
        last[subject] = max(number, last.get(subject, number))
    return wrong


def repeats(arrived: Sequence[Place]) -> int:
    """How many arrivals were of something that had arrived before."""
    return len(arrived) - len(set(arrived))
