"""One scan over many agents: every scanner that is asked for, and one report.

A scanner is a function of all subjects at once, so that what agents share is judged once, and of what the scan was
given to know (`Knowledge`). It is pure: what it needs of the outside is handed in.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chimera.agents.compile import CanonicalDefinition, plain
from chimera.agents.spec import NODE_RUNTIME, PYTHON_RUNTIME
from chimera.delivery.scanning import models, secrets
from chimera.delivery.scanning.advisories import Advisories
from chimera.delivery.scanning.containers import scan_manifest
from chimera.delivery.scanning.dependencies import FETCH_THEM, Against, judge
from chimera.delivery.scanning.flows import toxic_flows, untrusted_nodes
from chimera.delivery.scanning.model import SCANNERS, Place, Report, Result, Scanner, Unjudged, report
from chimera.delivery.scanning.packages import of_files, of_lock
from chimera.delivery.scanning.permissions import permissions_of
from chimera.delivery.scanning.prompts import prompts_of
from chimera.delivery.scanning.subject import Subject, by_code, placed, said_of
from chimera.delivery.scanning.unpacking import Budget, Shut, unpack
from chimera.platform.cells import cell_id, runtime_class

Scan = Callable[[Sequence[Subject], "Knowledge"], Iterator[Result]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Knowledge:
    """What a scan knows beside its subjects.

    Advisories, the time, how old they may be (seconds), the locks of runtimes, what pickles may name, which
    hosts are one's own, how a cell is rendered (None: it runs in no cluster),
    and what was found in the images that agents name (`custom_images`).
    """

    advisories: Advisories | None = None
    now: float = 0.0
    advisories_age: float = 7 * 86_400.0
    lock_of: Callable[[str], str] | None = None
    pickle_globals: frozenset[str] = frozenset()
    trusted_hosts: tuple[str, ...] = ()
    manifest_of: Callable[[CanonicalDefinition], Mapping[str, Any] | None] | None = None
    images: Mapping[str, Sequence[Result]] = field(default_factory=dict)

    def with_images(self, images: Mapping[str, Sequence[Result]]) -> "Knowledge":
        """The same, with what was found in images."""
        return replace(self, images=images)

    @property
    def against(self) -> Against:
        """What packages are held against."""
        return Against(advisories=self.advisories, now=self.now, longest=self.advisories_age)


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


def _dependencies(subjects: Sequence[Subject], knowledge: Knowledge) -> Iterator[Result]:
    """Source folders' packages for each who has them; runtimes' once for all."""
    against = knowledge.against
    for fault in knowledge.advisories.faults if knowledge.advisories else ():
        yield Unjudged(scanner="dependencies", message=f"an advisory can't be read: {fault}", next_step=FETCH_THEM)
    for code, owners in by_code(subjects):
        yield from said_of(judge(of_files(code.files), against), owners)
    for runtime in sorted({name for subject in subjects if (name := runtime_of(subject.value)) is not None}):
        if knowledge.lock_of is not None:
            yield from judge(of_lock(knowledge.lock_of(runtime), file=f"runtime:{runtime}"), against)


def _models(subjects: Sequence[Subject], knowledge: Knowledge) -> Iterator[Result]:
    for code, owners in by_code(subjects):
        yield from said_of(models.scan_files(code.files.items(), knowledge.pickle_globals), owners)


def _permissions(subjects: Sequence[Subject], knowledge: Knowledge) -> Iterator[Result]:
    by_agent = {subject.agent: subject for subject in subjects}
    for subject in subjects:
        yield from placed(permissions_of(subject.value, knowledge.trusted_hosts), subject)
    for agent, result in toxic_flows([subject.value for subject in by_agent.values()], knowledge.trusted_hosts):
        yield from placed([result], by_agent[agent])


def _prompts(subjects: Sequence[Subject], knowledge: Knowledge) -> Iterator[Result]:
    for subject in subjects:
        nodes = untrusted_nodes(subject.value, knowledge.trusted_hosts)
        yield from placed(prompts_of(subject.value, nodes), subject)


def _containers(subjects: Sequence[Subject], knowledge: Knowledge) -> Iterator[Result]:
    """The pod of each cell that the agents make, once."""
    cells: dict[str, Subject] = {}
    for subject in subjects:
        cells.setdefault(cell_id(runtime_class(subject.value)), subject)
    for cell, subject in cells.items() if knowledge.manifest_of else ():
        assert knowledge.manifest_of is not None
        if (manifest := knowledge.manifest_of(subject.value)) is not None:
            yield from scan_manifest(manifest, file=f"cell:{cell}")


def custom_images(values: Iterable[CanonicalDefinition]) -> list[str]:
    """The images that agents name as their runtime."""
    return sorted({value.runtime for value in values} - {PYTHON_RUNTIME, NODE_RUNTIME})


def _images(subjects: Sequence[Subject], knowledge: Knowledge) -> Iterator[Result]:
    for image in custom_images(subject.value for subject in subjects):
        owners = [subject for subject in subjects if subject.value.runtime == image]
        if (results := knowledge.images.get(image)) is None:
            results = [
                Unjudged(
                    scanner="images",
                    message=f"nobody has looked into the image {image}",
                    next_step="name its registry in `scanning.registries`",
                    place=Place(file=image),
                )
            ]
        yield from said_of(results, owners)


def runtime_of(value: CanonicalDefinition) -> str | None:
    """The runtime whose lock an agent runs on; None where it brings an image, or runs nothing."""
    function = value.agent.behaviour.function
    if function is not None and function.endpoint is not None:
        return None
    if value.runtime == PYTHON_RUNTIME:
        return value.agent.framework
    return "node" if value.runtime == NODE_RUNTIME else None


_SCANS: dict[Scanner, Scan] = {
    "secrets": _secrets,
    "dependencies": _dependencies,
    "models": _models,
    "permissions": _permissions,
    "prompts": _prompts,
    "containers": _containers,
    "images": _images,
}
