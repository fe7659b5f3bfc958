"""Waivers cover what they say, for as long as they say, and nothing that was not judged."""

import datetime
from typing import Any

import pytest

from chimera.delivery.scanning.errors import InvalidWaivers
from chimera.delivery.scanning.model import Finding, Place, Report, Unjudged, found, report
from chimera.delivery.scanning.waivers import LONGEST_DAYS, apply, read_waivers

TODAY = datetime.date(2026, 11, 26)


def finding(**changed: Any) -> Finding:
    given: dict[str, Any] = {
        "scanner": "dependencies",
        "rule": "known-vulnerability",
        "severity": "high",
        "message": "requests 2.0 has PYSEC-1",
        "next_step": "take 2.1",
        "place": Place(file="requirements.txt", line=3),
        "agent": "anna",
        "subject": "requests@2.0 PYSEC-1",
    }
    given |= changed
    return found(given.pop("scanner"), given.pop("rule"), given.pop("severity"), given.pop("message"), **given)


def waiver(**changed: Any) -> dict[str, Any]:
    made = {
        "rule": "dependencies/known-vulnerability",
        "reason": "the function that is broken is never called",
        "until": "2026-12-31",
        "subject": "requests@*PYSEC-1",
    }
    return {name: value for name, value in (made | changed).items() if value is not None}


def judged(one: Finding, *waivers: dict[str, Any], today: datetime.date = TODAY) -> Report:
    read = read_waivers({"waivers": list(waivers)}, file="w.yaml", today=TODAY)
    return apply(report([one], {"dependencies": 1}), read, today=today, file="w.yaml")


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"subject": None, "agent": "ann?"},
        {"subject": None, "file": "*.txt"},
        {"subject": None, "fingerprint": finding().fingerprint},
        {"until": "2026-11-26"},
    ],
)
def test_a_waiver_sets_a_finding_apart_with_its_reason(changed: dict[str, Any]) -> None:
    after = judged(finding(), waiver(**changed))
    assert after.passed("low")
    assert [(one.finding, one.reason) for one in after.accepted] == [
        (finding(), "the function that is broken is never called")
    ]


@pytest.mark.parametrize(
    "changed",
    [
        {"rule": "dependencies/other"},
        {"subject": "flask*"},
        {"agent": "bob"},
        {"file": "other.txt"},
        {"fingerprint": "0" * 16},
    ],
)
def test_a_waiver_of_something_else_covers_nothing_and_is_told_of(changed: dict[str, Any]) -> None:
    after = judged(finding(), waiver(**changed))
    assert [one.rule for one in after.failing("high")] == ["dependencies/known-vulnerability"]
    (unused,) = [one for one in after.findings if one.rule == "dependencies/waiver-unused"]
    assert unused.severity == "low" and unused.place.file == "w.yaml"


def test_a_waiver_that_has_ended_covers_nothing_and_the_finding_says_so() -> None:
    after = judged(finding(), waiver(), today=datetime.date(2027, 1, 1))
    assert not after.accepted
    (back,) = after.findings
    assert "its waiver ended on 2026-12-31" in back.message


def test_of_two_waivers_one_that_holds_is_enough() -> None:
    ended, holds = waiver(until="2026-11-01"), waiver(until="2026-11-30", reason="mended upstream this week")
    for order in ((ended, holds), (holds, ended)):
        after = judged(finding(), *order)
        assert [one.reason for one in after.accepted] == ["mended upstream this week"]


def test_what_was_not_judged_can_not_be_waived() -> None:
    unjudged = Unjudged(scanner="dependencies", message="flask 1..2 is no version", next_step="lock it")
    before = report([finding(), unjudged], {"dependencies": 1})
    read = read_waivers({"waivers": [waiver()]}, file="w", today=TODAY)
    after = apply(before, read, today=TODAY)
    assert after.unjudged == (unjudged,)
    assert not after.findings and not after.passed("critical")


def test_a_waiver_of_a_scanner_that_did_not_run_is_not_called_unused() -> None:
    read = read_waivers({"waivers": [waiver()]}, file="w", today=TODAY)
    assert not apply(report([], {"secrets": 1}), read, today=TODAY).findings


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"reason": "because"}, "length >= 10"),
        ({"until": "2026-13-01"}, "is no date"),
        ({"until": "soon"}, "matching regex"),
        ({"until": str(TODAY + datetime.timedelta(days=LONGEST_DAYS + 1))}, "days ahead"),
        ({"subject": None}, "covers a whole rule"),
        ({"subject": "*", "agent": "**"}, "match everything"),
        ({"rule": "*"}, "matching regex"),
        ({"untill": "2026-12-31"}, "unknown field"),
    ],
)
def test_a_waiver_that_says_too_little_or_too_much_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidWaivers, match=words) as refused:
        read_waivers({"waivers": [waiver(**changed)]}, file="w.yaml", today=TODAY)
    assert refused.value.next_step
