"""Settings of Quality Assurance: what each criterion weighs, and what is good enough."""

from dataclasses import dataclass

from chimera.kernel.settings import setting

_SHARE = "its weight beside the others; 0 leaves it out of the score"


def _weight(default: float, name: str) -> float:
    weight: float = setting(default, f"The criterion `{name}`: {_SHARE}.", minimum=0, maximum=100)
    return weight


@dataclass(frozen=True, kw_only=True, slots=True)
class QualitySettings:
    """The quality of definitions: weights of the criteria, and what is good enough to be approved without a person."""

    purpose: float = _weight(3.0, "purpose")
    occasion: float = _weight(1.0, "occasion")
    functions: float = _weight(1.0, "functions")
    unique: float = _weight(3.0, "unique")
    tests: float = _weight(3.0, "tests")
    limits: float = _weight(2.0, "limits")
    owner: float = _weight(2.0, "owner")
    tools: float = _weight(1.0, "tools")
    reach: float = _weight(1.0, "reach")
    objective: float = _weight(1.0, "objective")
    findable: float = _weight(1.0, "findable")
    passing: float = setting(
        75.0, "The least score that is approved without a person.", unit="of 100", minimum=0, maximum=100
    )
    required: tuple[str, ...] = setting(
        ("purpose", "unique", "tests", "owner"),
        "Criteria that must be met at least by half, whatever the score; else a person decides.",
    )
    similarity: float = setting(
        0.8,
        "Two agents are duplicates where the cosine of their texts' words is so high. Lower finds copies that were "
        "rewritten further, and more agents that are merely of one kind.",
        minimum=0.5,
        maximum=1,
    )
    containment: float = setting(
        0.95,
        "An agent is a duplicate too where it says so much of what a live one says, and more.",
        minimum=0.5,
        maximum=1,
    )
