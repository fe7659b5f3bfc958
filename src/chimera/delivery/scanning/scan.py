"""One scan over many agents: every scanner that is asked for, and one report.

A scanner is a function of all subjects at once, so that what agents share is judged once, and of what the scan was
given to know (`Knowledge`). It is pure: what it needs of the outside is handed in.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from chimera.agents.compile import plain
from chimera.delivery.scanning import secrets
from chimera.delivery.scanning.model import SCANNERS, Report, Result, Scanner, Unjudged, report
from chimera.delivery.scanning.subject import Subject, by_code, placed, said_of
from chimera.delivery.scanning.unpacking import Budget, Shut, unpack

Scan = Callable[[Sequence[Subject], "Knowledge"], Iterator[Result]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Knowledge:
    """What a scan knows beside its subjects."""


def scan(subjects: Sequence[Subject], knowledge: Knowledge, *, only: Iterable[Scanner] = SCANNERS) -> Report:
    """Run the scanners that are asked for, in a fixed order."""
    wanted = set(only)
    results: list[Result] = []
    looked: dict[str, int] = {}
    for name, scanner in _SCANS.items():
        if name in wanted:
            results.extend(scanner(subjects, knowledge))
            looked[name] = len(subjects)
    return report(results, looked)


def _secrets(subjects: Sequence[Subject], knowledge: Knowledge) -> Iterator[Result]:
    for subject in subjects:
        data = plain(subject.value) if subject.data is None else subject.data
        found = list(placed(secrets.scan_value(data, agent=subject.agent), subject))
        yield from found
        if subject.text is not None:
            lines = {one.place.line for one in found}
            for one in secrets.scan_text(
                subject.text, file=subject.file, agent=subject.agent, first_line=subject.first_line
            ):
                if one.place.line not in lines:  # a comment, or something that a template took away
                    yield one
    for code, owners in by_code(subjects):
        yield from said_of(secrets_in_files(code.files.items()), owners)


def secrets_in_files(files: Iterable[tuple[str, bytes]]) -> Iterator[Result]:
    """Secrets in files, and in files inside them."""
    budget = Budget()
    for path, data in files:
        for inner in unpack(path, data, budget):
            if isinstance(inner, Shut):
                yield Unjudged(
                    scanner="secrets",
                    message=f"{inner.path} can't be looked into: {inner.reason}",
                    next_step="take it out of the source folder, or put its files there unpacked",
                )
            elif not inner.packed and (text := secrets.text_of(inner.data)) is not None:
                yield from secrets.scan_text(text, file=inner.path)


_SCANS: dict[Scanner, Scan] = {"secrets": _secrets}
