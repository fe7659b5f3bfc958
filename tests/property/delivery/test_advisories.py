"""Ranges of versions mean what OSV says, for every order of events and every way of naming a version."""

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from chimera.delivery.scanning.advisories import Advisories, OsvRecord
from chimera.delivery.scanning.cvss import base_score, rated, severity_of
from chimera.delivery.scanning.versions import alpine, debian, semver

POOL = [
    *("0.1", "0.9.dev1", "0.9", "1.0.dev1", "1.0a1", "1.0b2", "1.0rc1", "1.0", "1.0.post1", "1.0.1", "1.1", "1.9"),
    *("1.10", "2.0a1", "2.0", "2!0.1", "3.0", "3.0+local"),
]
ORDERED = sorted(POOL, key=Version)
VERSION = st.sampled_from(POOL)


def indexed(*affected: dict[str, Any], **record: Any) -> Advisories:
    index = Advisories()
    data = {"id": "OSV-1", "modified": "2026-11-20T00:00:00Z", "affected": list(affected), **record}
    index.add(msgspec.json.decode(json.dumps(data), type=OsvRecord), 1_000.0)
    return index


def hit(index: Advisories, version: str, ecosystem: str = "PyPI") -> bool:
    judged = index.judge(ecosystem, "pkg", version)
    assert not judged.undecided, judged
    return bool(judged.vulnerabilities)


def package(ecosystem: str = "PyPI") -> dict[str, str]:
    return {"ecosystem": ecosystem, "name": "pkg"}


@st.composite
def intervals(draw: st.DrawFn) -> list[tuple[str, str | None, bool]]:
    """Intervals that don't overlap: from, to, and whether the end belongs to it."""
    places = sorted(draw(st.sets(st.integers(0, len(ORDERED) - 1), min_size=1, max_size=6)))
    made: list[tuple[str, str | None, bool]] = []
    for start, end in zip(places[::2], [*places[1::2], None], strict=False):
        made.append((ORDERED[start], None if end is None else ORDERED[end], draw(st.booleans())))
    return made


@given(intervals(), VERSION, st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=400)
def test_a_version_is_hit_where_it_lies_in_an_interval(
    spans: list[tuple[str, str | None, bool]], version: str, chance: Any, one_range: bool
) -> None:
    expected = False
    groups: list[list[dict[str, str]]] = []
    for start, end, included in spans:
        value = Version(version)
        inside = value >= Version(start) and (
            end is None or value < Version(end) or (included and value == Version(end))
        )
        expected = expected or inside
        events = [{"introduced": start}]
        if end is not None:
            events.append({"last_affected" if included else "fixed": end})
        groups.append(events)
    if one_range:
        groups = [[event for events in groups for event in events]]
    for events in groups:
        chance.shuffle(events)
    ranges = [{"type": "ECOSYSTEM", "events": events} for events in groups]
    assert hit(indexed({"package": package(), "ranges": ranges}), version) is expected


@given(st.sets(VERSION, max_size=5), VERSION)
def test_a_listed_version_is_hit_however_it_is_spelt(listed: set[str], version: str) -> None:
    index = indexed(
        {"package": package(), "versions": [f"v{one}.0" if one == "1.1" else one for one in listed] or ["9"]}
    )
    assert hit(index, version) is (Version(version) in {Version(one) for one in listed})


@given(VERSION)
def test_zero_is_before_every_version_and_a_limit_bounds_it(version: str) -> None:
    events = [{"introduced": "0"}]
    assert hit(indexed({"package": package(), "ranges": [{"type": "ECOSYSTEM", "events": events}]}), version)
    limited = [*events, {"limit": "1.0"}]
    index = indexed({"package": package(), "ranges": [{"type": "ECOSYSTEM", "events": limited}]})
    assert hit(index, version) is (Version(version) < Version("1.0"))
    unlimited = [*events, {"limit": "1.0"}, {"limit": "*"}]
    assert hit(indexed({"package": package(), "ranges": [{"type": "ECOSYSTEM", "events": unlimited}]}), version)


@given(
    st.sampled_from(["npm", "Debian:12", "Alpine:v3.20"]), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)
)
def test_every_ecosystem_has_its_own_order(ecosystem: str, start: int, end: int, at: int) -> None:
    form = {"npm": "1.{}.0", "Debian:12": "1:{}.2-1", "Alpine:v3.20": "3.{}-r1"}[ecosystem]
    events = [{"introduced": form.format(start)}, {"fixed": form.format(end)}]
    index = indexed({"package": package(ecosystem), "ranges": [{"type": "ECOSYSTEM", "events": events}]})
    order = {"npm": semver, "Debian:12": debian, "Alpine:v3.20": alpine}[ecosystem]
    value, low, high = (order(form.format(number)) for number in (at, start, end))
    # Where an end stands before its beginning, the range begins anew after it.
    expected = low <= value < high if start < end else value >= low
    assert hit(index, form.format(at), ecosystem) is expected


DAY = 86_400.0
RELEASES = {
    "Debian:12": ["Debian:11", "Debian:13", "Debian:1", "Debian"],
    "Alpine:v3.20": ["Alpine:v3.19", "Alpine:v3.2", "Alpine"],
    "Ubuntu:24.04:LTS": ["Ubuntu:22.04:LTS", "Ubuntu:24.10", "Ubuntu:24.04", "Ubuntu:Pro:24.04:LTS", "Ubuntu"],
    "Ubuntu:Pro:18.04:LTS": ["Ubuntu:18.04:LTS", "Ubuntu:Pro:FIPS-updates:18.04:LTS", "Ubuntu:Pro:20.04:LTS"],
    "PyPI": ["npm"],
}
"""Ecosystems as OSV's exports name them, and others that look like them and have advisories of their own."""


@given(st.sampled_from([(one, other) for one, others in RELEASES.items() for other in [one, *others]]))
def test_a_release_is_judged_by_advisories_of_its_own(names: tuple[str, str]) -> None:
    recorded, asked = names
    inside = asked == recorded or asked.startswith(f"{recorded}:")
    index = indexed({"package": package(recorded), "versions": ["1"]})
    fault = index.fault(asked, now=1_000.0 + DAY, longest=7 * DAY)
    assert fault == (None if inside else f"there are no advisories for {asked}")


def test_advisories_that_name_no_suffix_speak_of_all_that_have_one() -> None:
    """`Ubuntu:24.04` is `Ubuntu:24.04:LTS` too, and `Alpine` every release, where a record says so itself."""
    for recorded, asked in [("Ubuntu:24.04", "Ubuntu:24.04:LTS"), ("Alpine", "Alpine:v3.20")]:
        index = indexed({"package": package(recorded), "versions": ["1"]})
        assert index.fault(asked, now=1_000.0 + DAY, longest=7 * DAY) is None
        assert hit(index, "1", asked)


def test_a_younger_release_makes_no_other_young() -> None:
    index = Advisories()
    for number, (ecosystem, at) in enumerate([("Debian:12", 0.0), ("Debian:13", 20 * DAY)]):
        affected = [{"package": package(ecosystem), "versions": ["1"]}]
        data = {"id": f"DSA-{number}", "modified": "", "affected": affected}
        index.add(msgspec.convert(data, OsvRecord), at)
    assert index.fault("Debian:13", now=21 * DAY, longest=7 * DAY) is None
    assert index.fault("Debian:12", now=21 * DAY, longest=7 * DAY) == "the newest advisory for Debian:12 is 21 days old"


VECTORS = {
    "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H": 9.8,
    "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H": 10.0,
    "CVSS:3.0/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N": 6.1,
    "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H": 7.8,
    "CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:N/I:N/A:H": 5.9,
    "CVSS:3.1/AV:P/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N": 1.6,
    "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N": 0.0,
    "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N": None,
    "CVSS:3.1/AV:N": None,
    "AV:N/AC:L/Au:N/C:P/I:P/A:P": None,
    "": None,
}


def test_scores_are_those_of_the_calculator() -> None:
    assert {vector: base_score(vector) for vector in VECTORS} == VECTORS
    assert [rated(score) for score in (9.0, 8.9, 7.0, 6.9, 4.0, 3.9)] == [
        "critical",
        "high",
        "high",
        "medium",
        "medium",
        "low",
    ]


def test_what_does_not_say_how_severe_it_is_is_high() -> None:
    assert severity_of([], []) == "high"
    assert severity_of(["?"], ["CVSS:4.0/AV:N"]) == "high"
    assert severity_of(["MODERATE"], list(VECTORS)) == "medium"
    assert severity_of([], list(VECTORS)) == "critical"
