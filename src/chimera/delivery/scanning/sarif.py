"""A report as SARIF 2.1.0, which code hosts and editors show beside the code.

Findings that a waiver covers are there too, suppressed with its reason. What was not judged is a notification of the
run, and the run then says that it was not successful, as the standard has it for an analysis that could not look.
"""

from typing import Any
from urllib.parse import quote

from chimera.delivery.scanning.model import Finding, Place, Report, Severity, Unjudged

VERSION = "2.1.0"
SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_LEVELS: dict[Severity, str] = {"low": "note", "medium": "warning", "high": "error", "critical": "error"}
_SCORES: dict[Severity, str] = {"low": "3.0", "medium": "5.0", "high": "8.0", "critical": "9.5"}
Json = dict[str, Any]


def sarif(report: Report, *, version: str) -> Json:
    """The report as a SARIF log of one run."""
    rules: dict[str, int] = {}
    results = [_result(one, rules) for one in report.findings]
    for accepted in report.accepted:
        suppressed = _result(accepted.finding, rules)
        suppressed["suppressions"] = [
            {"kind": "external", "status": "accepted", "justification": f"{accepted.reason} (until {accepted.until})"}
        ]
        results.append(suppressed)
    invocation: Json = {"executionSuccessful": not report.unjudged}
    if report.unjudged:
        invocation["toolExecutionNotifications"] = [_notification(one) for one in report.unjudged]
    driver = {
        "name": "chimera scan",
        "version": version,
        "rules": [{"id": rule, "defaultConfiguration": {"level": "error"}} for rule in rules],
    }
    return {
        "$schema": SCHEMA,
        "version": VERSION,
        "runs": [{"tool": {"driver": driver}, "invocations": [invocation], "results": results}],
    }


def _result(finding: Finding, rules: dict[str, int]) -> Json:
    who = f"{finding.agent}: " if finding.agent else ""
    made: Json = {
        "ruleId": finding.rule,
        "ruleIndex": rules.setdefault(finding.rule, len(rules)),
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{who}{finding.message}. Next: {finding.next_step}."},
        "partialFingerprints": {"chimera/v1": finding.fingerprint},
        "properties": {"severity": finding.severity, "security-severity": _SCORES[finding.severity]},
    }
    if location := _location(finding.place, finding.agent):
        made["locations"] = [location]
    return made


def _notification(one: Unjudged) -> Json:
    made: Json = {
        "level": "error",
        "message": {"text": f"not judged by {one.scanner}: {one.message}. Next: {one.next_step}."},
    }
    if location := _location(one.place, one.agent):
        made["locations"] = [location]
    return made


def _location(place: Place, agent: str | None) -> Json:
    made: Json = {}
    if place.file:
        # What lies inside an archive has no address of its own: the archive has.
        outer = place.file.partition("!")[0]
        made["physicalLocation"] = {"artifactLocation": {"uri": _uri(outer)}}
        if place.line is not None:
            made["physicalLocation"]["region"] = {"startLine": max(1, place.line)}
    names = [name for name in (agent, place.field, place.file if "!" in place.file else "") if name]
    if names:
        made["logicalLocations"] = [{"fullyQualifiedName": "/".join(names)}]
    return made


def _uri(path: str) -> str:
    return quote(path.replace("\\", "/"), safe="/:._-~")
