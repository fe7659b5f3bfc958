"""What is scanned: an agent as it would become, with the files of its source folder.

Agents share source folders and runtimes, so whatever is judged of a bundle or a lock is judged once for all who have
it, and said of each. A place inside a definition has a line where its text is at hand.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from chimera.agents.archive import read_archive
from chimera.agents.compile import CanonicalDefinition
from chimera.delivery.scanning.model import Finding, Result, for_agent
from chimera_host.bundles import LIMITS


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """A source folder: its digest, and its files by their paths."""

    digest: str
    files: Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """One agent. `text` and `data` are its definition as written, `line_of` says where a field stands in it."""

    agent: str
    value: CanonicalDefinition
    file: str = ""
    text: str | None = None
    data: Any = None
    first_line: int = 0
    line_of: Callable[[str], int | None] | None = None
    code: Code | None = None


def unpacked(digest: str, data: bytes) -> Code:
    """A stored bundle; raises `BadArchive` where it is none."""
    files = read_archive(data, name="source.tar.gz", limits=LIMITS)
    return Code(digest=digest, files={path: file.data for path, file in files.items()})


def by_code(subjects: Iterable[Subject]) -> Iterator[tuple[Code, list[Subject]]]:
    """Each source folder once, with the agents that have it."""
    owners: dict[str, list[Subject]] = {}
    for subject in subjects:
        if subject.code is not None:
            owners.setdefault(subject.code.digest, []).append(subject)
    for those in owners.values():
        assert those[0].code is not None
        yield those[0].code, those


def said_of(results: Iterable[Result], subjects: Iterable[Subject]) -> Iterator[Result]:
    """What was found once, said of every agent that it concerns."""
    results = list(results)
    for subject in subjects if results else ():
        yield from for_agent(results, subject.agent)


def placed(results: Iterable[Result], subject: Subject) -> Iterator[Result]:
    """Results about a definition, with its file and the lines of their fields."""
    for one in results:
        field, line = one.place.field, one.place.line
        if line is None and field and subject.line_of is not None:
            line = subject.line_of(field)
        place = msgspec.structs.replace(one.place, file=one.place.file or subject.file, line=line)
        if isinstance(one, Finding):
            yield msgspec.structs.replace(one, place=place, agent=subject.agent)
        else:
            yield msgspec.structs.replace(one, place=place, agent=subject.agent)
