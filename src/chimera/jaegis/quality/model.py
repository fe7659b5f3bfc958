"""What is said of a definition's quality."""

from typing import Literal

from msgspec import Struct

Grade = Literal["excellent", "good", "fair", "poor"]

SCALE: tuple[tuple[float, Grade, str], ...] = (
    (90.0, "excellent", "nothing that its users would expect is missing"),
    (75.0, "good", "what matters is there"),
    (50.0, "fair", "it works, and somebody who answers for it would want more"),
    (0.0, "poor", "too little is said to rely on it"),
)
"""From so many of 100 points on, the grade, and what it means."""


class Twin(Struct, frozen=True, kw_only=True):
    """An agent that says nearly the same: live, or new in the same change.

    `differs` are the telling words that only one of the two has, the ones that weigh most first.
    """

    agent: str
    similarity: float
    containment: float
    live: bool = True
    differs: tuple[str, ...] = ()


class Finding(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one criterion says: how far it is met (0 to 1), why, and what would meet it (empty where it is met)."""

    criterion: str
    score: float
    weight: float
    reason: str
    next_step: str = ""


class Assessment(Struct, frozen=True, kw_only=True):
    """The quality of one definition: its score of 100, its grade, and whether that is good enough without a person.

    `lacking` are required criteria that are not met by half.
    """

    agent: str
    revision: str
    score: float
    grade: Grade
    passed: bool
    lacking: tuple[str, ...]
    findings: tuple[Finding, ...]
    twins: tuple[Twin, ...] = ()


def grade_of(score: float) -> Grade:
    """The grade of a score."""
    return next(grade for least, grade, _ in SCALE if score >= least)
