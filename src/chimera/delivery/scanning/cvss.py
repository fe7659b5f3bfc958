"""How severe an advisory is: by what it says in words, else by its CVSS 3 vector, else taken as high.

An advisory that doesn't say, or says it in a way that isn't computed here (CVSS 4, CVSS 2), counts as high: nobody has
said that it is less.
"""

import math
from collections.abc import Iterable

from chimera.delivery.scanning.model import Severity

_WORDS: dict[str, Severity] = {
    "low": "low",
    "negligible": "low",
    "unimportant": "low",
    "not yet assigned": "high",
    "minor": "low",
    "moderate": "medium",
    "medium": "medium",
    "important": "high",
    "high": "high",
    "critical": "critical",
}
_WEIGHTS: dict[str, dict[str, float]] = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0},
    "I": {"H": 0.56, "L": 0.22, "N": 0.0},
    "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}
_RIGHTS = {"U": {"N": 0.85, "L": 0.62, "H": 0.27}, "C": {"N": 0.85, "L": 0.68, "H": 0.5}}


def severity_of(words: Iterable[str], vectors: Iterable[str]) -> Severity:
    """The first word that says it, else the worst vector's, else high."""
    for word in words:
        if said := _WORDS.get(word.strip().lower()):
            return said
    scores = [score for vector in vectors if (score := base_score(vector)) is not None]
    return rated(max(scores)) if scores else "high"


def rated(score: float) -> Severity:
    """The rating of a score, as CVSS names it; nothing is harmless that has an advisory."""
    return "critical" if score >= 9 else "high" if score >= 7 else "medium" if score >= 4 else "low"


def base_score(vector: str) -> float | None:
    """The base score of a CVSS 3.0 or 3.1 vector; None for anything else."""
    head, *parts = vector.split("/")
    given = dict(part.split(":", 1) for part in parts if part.count(":") == 1)
    if head not in ("CVSS:3.0", "CVSS:3.1") or given.get("S") not in _RIGHTS:
        return None
    try:
        weight = {name: values[given[name]] for name, values in _WEIGHTS.items()}
        rights = _RIGHTS[given["S"]][given["PR"]]
    except KeyError:
        return None
    lost = 1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"])
    changed = given["S"] == "C"
    impact = 7.52 * (lost - 0.029) - 3.25 * (lost - 0.02) ** 15 if changed else 6.42 * lost
    if impact <= 0:
        return 0.0
    exploit = 8.22 * weight["AV"] * weight["AC"] * rights * weight["UI"]
    total = min(10.0, (impact + exploit) * (1.08 if changed else 1.0))
    whole = round(total * 100_000)  # rounded up to a tenth, as 3.1 has it, free of what floats leave behind
    return whole / 100_000 if whole % 10_000 == 0 else (math.floor(whole / 10_000) + 1) / 10
