"""`chimera scan`: what the build stage would find, before anything is applied."""

import asyncio
import datetime
import os
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import msgspec

from chimera.agents import yaml
from chimera.agents.compile import compile_definition
from chimera.agents.errors import AgentsError, InvalidDefinition
from chimera.agents.validate import check_text, place_of
from chimera.delivery.scanning.model import (
    SCANNERS,
    SEVERITIES,
    Finding,
    Place,
    Report,
    Result,
    Scanner,
    Severity,
    Unjudged,
)
from chimera.delivery.scanning.model import report as reported
from chimera.delivery.scanning.sarif import sarif
from chimera.delivery.scanning.scan import Knowledge, custom_images
from chimera.delivery.scanning.scan import scan as scanned
from chimera.delivery.scanning.settings import ScanningSettings
from chimera.delivery.scanning.subject import Subject, unpacked
from chimera.delivery.scanning.waivers import apply
from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.failing import place as fault_line
from chimera.entrypoints.cli.places import home_folder, settings_of
from chimera.entrypoints.cli.sources import Source, read_sources
from chimera.entrypoints.cli.text import clean, shown
from chimera.kernel.settings import FILE_NAME, load_group, of_file

FOUND, NOT_JUDGED = 1, 2
COLUMNS = (
    *(("severity", "SEVERITY"), ("rule", "RULE"), ("agent", "AGENT"), ("place", "PLACE")),
    *(("message", "FOUND"), ("fingerprint", "FINGERPRINT")),
)


@click.command(epilog="Example: chimera scan agents/ --waivers waivers.yaml --output sarif > scan.sarif")
@click.argument("paths", nargs=-1)
@click.option("--image", "images", multiple=True, help="An image too: its file or folder, or its name in a registry.")
@click.option("--advisories", multiple=True, help="Folder, file or address of OSV records; else `scanning.advisories`.")
@click.option("--only", multiple=True, type=click.Choice(SCANNERS), help="One scanner alone; may be given again.")
@click.option("--fails-at", type=click.Choice(SEVERITIES), help="The least that fails; else `scanning.fails_at`.")
@click.option("--waivers", type=click.Path(path_type=Path, dir_okay=False), help="A file of what is accepted, and why.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml", "sarif"]),
    default="table",
    show_default=True,
    help="How to print.",
)
@click.pass_context
def scan(
    context: click.Context,
    paths: tuple[str, ...],
    images: tuple[str, ...],
    advisories: tuple[str, ...],
    only: tuple[Scanner, ...],
    fails_at: Severity | None,
    waivers: Path | None,
    output: str,
) -> int:
    """Look for security problems in the definitions that PATHS name, and in their source folders; nothing needs to run.

    Images are looked into where agents name one of `scanning.registries`, or --image does.

    The exit code is 0 where nothing is found that fails, 1 where something is, and 2 where something could not be
    judged, which a scan never passes over.
    """
    from chimera.adapters.scanners.knowing import waivers_of

    options = context.find_root().obj or {}
    groups, home = settings_of(options), home_folder(options)
    if not (paths or images):
        raise click.UsageError("Name definitions, or an image with --image.")
    settings = load_group(ScanningSettings, groups.get("scanning", {}), where="scanning")
    settings = settings.below(home, of_file(home / FILE_NAME, os.environ, "scanning"))
    threshold, file = fails_at or settings.fails_at, waivers or (Path(settings.waivers) if settings.waivers else None)
    now = datetime.datetime.now(datetime.UTC)
    accepted = waivers_of(file, now.date()) if file else ()
    subjects, faults = _subjects(read_sources(paths) if paths else ())
    wanted = only or SCANNERS
    knowledge = _knowledge(groups, settings, advisories, wanted, now.timestamp())
    if "images" in wanted:
        custom = custom_images(subject.value for subject in subjects)
        knowledge, found = asyncio.run(_looked_into(settings, knowledge, custom, images))
    else:
        found = []
    report = scanned(subjects, knowledge, only=wanted)
    if images:
        looked = {**report.looked, "images": report.looked.get("images", 0) + len(images)}
        report = reported([*report.findings, *report.unjudged, *found], looked)
    report = msgspec.structs.replace(report, unjudged=(*faults, *report.unjudged))
    report = apply(report, accepted, today=now.date(), file=str(file or ""))
    _show(report, threshold, output)
    return NOT_JUDGED if report.unjudged else 0 if report.passed(threshold) else FOUND


def _knowledge(
    groups: dict[str, dict[str, Any]],
    settings: ScanningSettings,
    advisories: tuple[str, ...],
    wanted: Sequence[Scanner],
    now: float,
) -> Knowledge:
    from chimera.adapters.runtimes import lock_of
    from chimera.adapters.scanners.advisory_files import load_advisories
    from chimera.adapters.substrates.knative.render import HostBounds, pod_manifest
    from chimera.adapters.substrates.knative.settings import KnativeSettings

    knative = load_group(KnativeSettings, groups.get("knative", {}), where="knative")
    sources = advisories or settings.advisories
    index = (
        asyncio.run(load_advisories(sources, now=now)) if sources and {"dependencies", "images"} & set(wanted) else None
    )
    return Knowledge(
        advisories=index,
        now=now,
        advisories_age=settings.advisories_days * 86_400,
        lock_of=lock_of,
        pickle_globals=frozenset(settings.pickle_globals),
        trusted_hosts=settings.trusted_hosts,
        manifest_of=lambda value: pod_manifest(value, knative, HostBounds()),
    )


async def _looked_into(
    settings: ScanningSettings, knowledge: Knowledge, custom: list[str], images: tuple[str, ...]
) -> tuple[Knowledge, list[Result]]:
    """What is in the images that agents name, and in those that were named here."""
    from chimera.adapters.scanners.looking import look_into

    credentials = Path(settings.registry_config) if settings.registry_config else None
    against, allowed = knowledge.against, knowledge.pickle_globals
    most = settings.image_bytes
    theirs = await look_into(custom, against, allowed, only=settings.registries, credentials=credentials, largest=most)
    ours = await look_into(images, against, allowed, only=None, credentials=credentials, largest=most)
    return knowledge.with_images(theirs), [one for results in ours.values() for one in results]


def _subjects(sources: Iterable[Source]) -> tuple[list[Subject], list[Unjudged]]:
    subjects: list[Subject] = []
    faults: list[Unjudged] = []
    for source in sources:
        try:
            subjects.append(_subject(source))
        except AgentsError as error:
            first = fault_line(error.errors[0]) if error.errors else error.detail
            faults.append(
                Unjudged(
                    scanner="secrets",
                    message=f"it is no valid definition: {first}",
                    next_step="mend what `chimera validate` says, and scan again",
                    place=Place(file=source.document.file),
                )
            )
    return subjects, faults


def _subject(source: Source) -> Subject:
    if source.fault is not None:
        raise InvalidDefinition([source.fault])
    document, packed = source.document, source.packed
    checked = check_text(
        document.text,
        file=document.file,
        first_line=document.first_line,
        files=None if packed is None else packed.files,
    )
    compiled = compile_definition(checked, tenant="default", bundle=None if packed is None else packed.bundle)
    return Subject(
        agent=compiled.value.agent.name,
        value=compiled.value,
        file=document.file,
        text=document.text,
        data=yaml.load(document.text, file=document.file),
        first_line=document.first_line,
        line_of=_lines(document.text, document.first_line),
        code=None if packed is None else unpacked(packed.digest, packed.data),
    )


def _lines(text: str, first_line: int) -> Callable[[str], int | None]:
    """Where a field stands; the text is read with positions once somebody asks."""
    positions: dict[Any, Any] = {}

    def line_of(field: str) -> int | None:
        if not positions:
            positions.update(yaml.load_with_positions(text)[1])
        place = place_of(field)
        while place and place not in positions:
            place = place[:-1]
        line, _ = positions.get(place, (None, None))
        return None if line is None else line + first_line

    return line_of


def _show(report: Report, fails_at: Severity, output: str) -> None:
    if output == "sarif":
        data = sarif(report, version=version("chimera-ecosystem"))
        click.echo(shown(msgspec.json.format(msgspec.json.encode(data), indent=2).decode()))
        return
    if output != "table":
        out.show({"passed": report.passed(fails_at), **msgspec.to_builtins(report)}, output)
        return
    if report.findings:
        out.table(COLUMNS, [_row(one) for one in report.findings])
        click.echo("")
    steps = dict.fromkeys((one.rule, one.next_step) for one in report.findings)
    for rule, step in steps:
        click.echo(clean(f"{rule}: {step}"))
    for one in report.unjudged:
        where = ": ".join(part for part in (one.agent or "", str(one.place)) if part)
        click.echo(clean(f"not judged ({one.scanner}): {where + ': ' if where else ''}{one.message}; {one.next_step}"))
    failing = report.failing(fails_at)
    click.echo(
        f"{len(failing):,} findings that fail, {len(report.findings) - len(failing):,} others, "
        f"{len(report.accepted):,} waived, {len(report.unjudged):,} not judged; "
        + ", ".join(f"{name} {count:,}" for name, count in report.looked.items())
    )


def _row(finding: Finding) -> dict[str, Any]:
    return {**msgspec.to_builtins(finding), "place": str(finding.place)}
