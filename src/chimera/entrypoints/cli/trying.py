"""`chimera test`: agents' own tests, run on the platform: of definitions that aren't live yet, or of live agents.

Definitions are sent as for an apply, in a batch that is never committed. The run goes on by itself; the command follows
it, and ends it when it is interrupted.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click

from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.applying import CHUNK, SHOWN_FAULTS
from chimera.entrypoints.cli.client import Api, options_of, run
from chimera.entrypoints.cli.failing import INVALID, place
from chimera.entrypoints.cli.identity import limit_option, pages
from chimera.entrypoints.cli.sources import Source, read_sources
from chimera.entrypoints.cli.text import clean
from chimera_host.contract.problem import ProblemError

POLL = 0.5
PAGE = 1_000
NOT_PASSED = 1
UNFINISHED = ("waiting", "running")
COLUMNS = (("agent", "AGENT"), ("case", "TEST"), ("outcome", "OUTCOME"), ("seconds", "SECONDS"), ("detail", "WHY"))
RUNS = (
    *(("run", "RUN"), ("state", "STATE"), ("agents", "AGENTS"), ("total", "TESTS"), ("passed", "PASSED")),
    *(("failed", "FAILED"), ("skipped", "SKIPPED"), ("by", "BY")),
)


@click.command(epilog="Example: chimera test agents/ --junit report.xml ; chimera test invoice-auditor")
@click.argument("what", nargs=-1, metavar="PATH…|AGENT…")
@click.option("--all", "everything", is_flag=True, help="All live agents.")
@click.option("--run", "known", metavar="RUN", help="Follow a run that was begun before, or show what came of it.")
@click.option("--list", "listed", is_flag=True, help="List runs, the newest first.")
@limit_option
@click.option("--junit", type=click.Path(dir_okay=False), help="Write what came of it as JUnit XML into this file.")
@out.output_option
@click.pass_context
def test(
    context: click.Context,
    what: tuple[str, ...],
    everything: bool,
    known: str | None,
    listed: bool,
    limit: int,
    junit: str | None,
    output: str,
) -> int:
    """Run agents' own tests (`tests` of their definitions) in the hosts that serve, apart from production.

    Files, folders and globs name definitions, which are tested without being applied; other names are live agents. The
    exit code is 1 unless every test passed.
    """
    if bool(what) + everything + (known is not None) + listed != 1:
        raise click.UsageError("Name files or agents, or give --all, --run or --list.")
    options = options_of(context)
    if listed:
        _list(run(options, lambda api: pages(api, api.path("tests"), "runs", limit)), output)
        return 0
    followed = run(options, lambda api: _followed(api, what, everything, known))
    if (faults := followed.get("faults")) is not None:
        return _refused(faults, output)
    if junit is not None:
        Path(junit).write_bytes(junit_xml(followed["run"], followed["results"]))
    _show(followed, output)
    counts = followed["run"]["counts"]
    well = followed["run"]["state"] == "done" and counts["passed"] == counts["total"]
    return 0 if well else NOT_PASSED


async def _followed(api: Api, what: Sequence[str], everything: bool, known: str | None) -> dict[str, Any]:
    if known is None:
        if everything:
            body: dict[str, Any] = {"all": True}
        elif all(_is_path(one) for one in what):
            sources = await asyncio.to_thread(lambda: list(read_sources(list(what))))
            batch, faults = await _sent(api, sources)
            if faults:
                return {"faults": faults}
            body = {"batch": batch}
        elif any(_is_path(one) for one in what):
            raise click.UsageError("Name either files or live agents, not both at once.")
        else:
            body = {"agents": list(what)}
        known = str((await api.call_once(api.path("tests"), body))["run"])
    found = await _until_over(api, known)
    results = [one async for one in _results(api, known)]
    return {"run": found, "results": results}


def _is_path(text: str) -> bool:
    return text == "-" or text.endswith((".yaml", ".yml")) or any(c in text for c in "/*?[\\") or Path(text).exists()


async def _sent(api: Api, sources: Sequence[Source]) -> tuple[str, list[dict[str, Any]]]:
    """The batch that holds the definitions now, and their faults."""
    batch = str((await api.call("POST", api.path("batches")))["batch"])
    faults: list[dict[str, Any]] = []
    for first in range(0, len(sources), CHUNK):
        chunk = sources[first : first + CHUNK]
        for source in chunk:
            await source.send_bundle(api)
        items = await asyncio.to_thread(_items, chunk)
        told = await api.call("POST", api.path("batches", batch, "definitions"), {"first": first, "items": items})
        for one in told["results"]:
            faults += [{"file": sources[one["position"]].document.file, **fault} for fault in one.get("faults", ())]
    return batch, faults


def _items(sources: Sequence[Source]) -> list[dict[str, Any]]:
    return [source.item() for source in sources]


async def _until_over(api: Api, name: str) -> dict[str, Any]:
    told = ""
    try:
        while True:
            found: dict[str, Any] = await api.call("GET", api.path("tests", name))
            counts = found["counts"]
            done = counts["passed"] + counts["failed"] + counts["skipped"]
            said = f"{name}: {found['state']}, {done:,} of {counts['total']:,} tests, {counts['failed']:,} failed"
            if said != told and sys.stderr.isatty():
                sys.stderr.write(f"\r\x1b[K{said}")
                sys.stderr.flush()
            told = said
            if found["state"] not in UNFINISHED:
                out.end_progress()
                return found
            await asyncio.sleep(POLL)
    except asyncio.CancelledError:
        with suppress(ProblemError):
            await api.call("POST", api.path("tests", name, "cancel"))
        raise


async def _results(api: Api, name: str) -> AsyncIterator[dict[str, Any]]:
    query: dict[str, Any] = {"limit": PAGE}
    while True:
        page = await api.call("GET", api.path("tests", name, "results"), query=query)
        for one in page["results"]:
            yield one
        if page.get("next") is None:
            return
        query["after"] = page["next"]


# -- telling ----------------------------------------------------------------------------------------------------------


def _show(followed: dict[str, Any], output: str) -> None:
    if output != "table":
        out.show(followed, output)
        return
    found, counts = followed["run"], followed["run"]["counts"]
    wrong = [
        {**one, "seconds": f"{sum(each.get('seconds', 0.0) for each in one.get('tries', ())):.2f}"}
        for one in followed["results"]
        if one["outcome"] != "passed"
    ]
    if wrong:
        out.show(wrong, output, columns=COLUMNS, rows=wrong)
    said = f"{counts['passed']:,} of {counts['total']:,} tests of {found['agents']:,} agents passed"
    said += f", {counts['failed']:,} failed, {counts['skipped']:,} skipped"
    if found.get("untested"):
        said += f"; {found['untested']:,} agents declare no tests"
    click.echo(said)
    if found["state"] != "done":
        click.echo(f"The run is {found['state']}: {clean(str(found.get('problem', 'somebody ended it')))}", err=True)


def _list(runs: list[dict[str, Any]], output: str) -> None:
    rows = [{**one, **one["counts"]} for one in runs]
    out.show(runs, output, columns=RUNS, rows=rows)


def _refused(faults: list[dict[str, Any]], output: str) -> int:
    if output != "table":
        out.show({"faults": faults}, output)
    else:
        for fault in faults[:SHOWN_FAULTS]:
            click.echo(f"{fault.get('severity', 'error')}: {place(fault)}", err=True)
        click.echo("Nothing was tested.\nNext: mend the faults; `chimera validate` shows their lines.", err=True)
    return INVALID


def junit_xml(found: dict[str, Any], results: Sequence[dict[str, Any]]) -> bytes:
    """A report as JUnit writes it: a suite for each agent, a case for each test."""
    root = ElementTree.Element("testsuites", name=found["run"])
    suites: dict[str, ElementTree.Element] = {}
    for one in results:
        suite = suites.get(one["agent"])
        if suite is None:
            suite = suites[one["agent"]] = ElementTree.SubElement(root, "testsuite", name=one["agent"])
        seconds = sum(each.get("seconds", 0.0) for each in one.get("tries", ()))
        made = ElementTree.SubElement(
            suite, "testcase", classname=one["agent"], name=_xml(one["case"]), time=f"{seconds:.3f}"
        )
        if one["outcome"] == "failed":
            ElementTree.SubElement(made, "failure", message=_xml(one["detail"])).text = _xml(_told(one))
        elif one["outcome"] == "skipped":
            ElementTree.SubElement(made, "skipped", message=_xml(one["detail"]))
    for suite in [*suites.values(), root]:
        cases = list(suite.iter("testcase"))
        suite.set("tests", str(len(cases)))
        suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
        suite.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
        suite.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")
    if found["state"] != "done":
        ElementTree.SubElement(root, "system-err").text = _xml(str(found.get("problem") or found["state"]))
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _told(result: dict[str, Any]) -> str:
    lines: list[str] = []
    for number, one in enumerate(result.get("tries", ()), 1):
        lines += [f"run {number}: {one['outcome']}", *one.get("reasons", ())]
        lines += [f"judged: {reasons}" for reasons in one.get("judged", ())]
        if one.get("answer"):
            lines.append(f"answer: {one['answer']}")
    return "\n".join(lines)


def _xml(text: str) -> str:
    """`text` without what XML 1.0 can't hold."""
    return "".join(
        c for c in text if c in "\t\n\r" or "\x20" <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c > "\uffff"
    )
