"""What is vulnerable is named with what mends it; what nobody can say fails."""

import json
from typing import Any

import msgspec
import pytest

from chimera.delivery.scanning.advisories import Advisories, OsvRecord
from chimera.delivery.scanning.dependencies import Against, judge
from chimera.delivery.scanning.model import Finding, Unjudged
from chimera.delivery.scanning.packages import Package, PackageFault, of_files, of_lock

NOW, DAY = 1_800_000_000.0, 86_400.0
HASH = "--hash=sha256:" + "a" * 64


def record(number: str = "PYSEC-1", name: str = "requests", **changed: Any) -> dict[str, Any]:
    events = changed.pop("events", [{"introduced": "0"}, {"fixed": "2.1"}])
    affected = {
        "package": {"ecosystem": changed.pop("ecosystem", "PyPI"), "name": name},
        "ranges": [{"type": "ECOSYSTEM", "events": events}],
    }
    return {
        "id": number,
        "modified": "2027-01-14T00:00:00Z",
        "summary": "reads what it shouldn't",
        "affected": [affected | changed.pop("affected", {})],
        **changed,
    }


def against(*records: dict[str, Any], age: float = 0.0) -> Against:
    index = Advisories()
    for one in records:
        index.add(msgspec.json.decode(json.dumps(one), type=OsvRecord), NOW - age)
    return Against(advisories=index, now=NOW, longest=7 * DAY)


def used(name: str = "requests", version: str = "2.0", ecosystem: str = "PyPI") -> list[Package]:
    return [Package(ecosystem=ecosystem, name=name, version=version)]


def test_a_vulnerable_package_is_told_with_its_names_and_the_version_to_use() -> None:
    (one,) = judge(used(), against(record(aliases=["CVE-2027-1", "GHSA-x"])))
    assert isinstance(one, Finding)
    assert "requests 2.0 is vulnerable (CVE-2027-1, GHSA-x, PYSEC-1): reads what it shouldn't" in one.message
    assert one.next_step == "use requests 2.1 or later"
    assert one.subject == "requests@2.0 CVE-2027-1, GHSA-x, PYSEC-1"
    assert one.severity == "high"


@pytest.mark.parametrize("name", ["Requests", "requests", "re_quests", "re.quests"])
def test_a_name_is_compared_as_the_index_of_its_ecosystem_does(name: str) -> None:
    assert list(judge(used(name), against(record(name="re-quests" if name[2] in "_." else "requests"))))


@pytest.mark.parametrize(
    ("version", "changed"),
    [
        ("2.1", {}),
        ("2.0", {"withdrawn": "2027-01-02T00:00:00Z"}),
        ("2.0", {"name": "other"}),
        ("2.0", {"ecosystem": "npm"}),
    ],
)
def test_what_no_advisory_speaks_of_is_clean(version: str, changed: dict[str, Any]) -> None:
    other = record("PYSEC-9", "flask")
    assert not list(judge(used(version=version), against(record(**changed), other)))


def test_records_that_name_each_other_are_one_vulnerability_of_the_worst_severity() -> None:
    first = record("PYSEC-1", aliases=["CVE-1"], database_specific={"severity": "LOW"})
    second = record(
        "GHSA-1",
        aliases=["CVE-1"],
        database_specific={"severity": "CRITICAL"},
        events=[{"introduced": "0"}, {"fixed": "2.2"}],
    )
    third = record("OSV-3", aliases=["PYSEC-1"])
    apart = record("PYSEC-2")
    found = list(judge(used(), against(first, second, third, apart)))
    assert [one.subject for one in found] == ["requests@2.0 CVE-1, GHSA-1, OSV-3, PYSEC-1", "requests@2.0 PYSEC-2"]
    assert found[0].severity == "critical" and found[0].next_step == "use requests 2.2 or later"


def test_a_package_made_to_do_harm_is_critical_and_has_no_version_to_use() -> None:
    (one,) = judge(
        used(), against(record("MAL-2027-1", events=[{"introduced": "0"}], database_specific={"severity": "LOW"}))
    )
    assert one.severity == "critical" and "replace requests" in one.next_step


@pytest.mark.parametrize(
    ("bench", "words"),
    [
        (Against(advisories=None, now=NOW, longest=DAY), "no advisories were named"),
        (against(), "there are no advisories for PyPI"),
        (against(record(ecosystem="npm")), "there are no advisories for PyPI"),
        (against(record(), age=8 * DAY), "is 8 days old"),
        (
            against(record(events=[{"introduced": "0"}, {"fixed": "two"}])),
            "PYSEC-1 can't be held against it: its bound 'two'",
        ),
        (against(record(affected={"ranges": [], "versions": []})), "it names no versions"),
        (
            against(record(affected={"ranges": [{"type": "GIT", "events": [{"introduced": "abc"}]}]})),
            "it names no versions",
        ),
    ],
)
def test_what_can_not_be_judged_fails(bench: Against, words: str) -> None:
    (one,) = judge(used(), bench)
    assert isinstance(one, Unjudged) and words in one.message and one.next_step


@pytest.mark.parametrize("version", ["", "latest", "1.0-", "git+https://x", "1" * 500])
def test_a_version_that_is_none_is_not_judged(version: str) -> None:
    (one,) = judge(used(version=version), against(record()))
    assert isinstance(one, Unjudged)


def test_a_fault_of_an_ecosystem_is_told_once() -> None:
    packages = [Package(ecosystem="PyPI", name=f"p{number}", version="1") for number in range(50)]
    assert len(list(judge(packages, against()))) == 1


def test_twelve_thousand_agents_are_one_pass() -> None:
    """Each package is looked up once, however many agents lock it."""
    bench = against(*(record(f"PYSEC-{number}", f"p{number}") for number in range(2_000)))
    lock = [Package(ecosystem="PyPI", name=f"p{number}", version="2.0") for number in range(0, 120, 2)]
    found = sum(1 for _ in range(12_000) for _ in judge(lock[:3], bench)) + len(list(judge(lock, bench)))
    assert found == 12_000 * 3 + 60
    assert bench.advisories is not None and bench.advisories.looks == 60


def test_a_lock_names_packages_with_their_lines() -> None:
    text = f"# by uv\nrequests[socks]==2.0 ; python_version > '3' \\\n  {HASH}\nZope.Interface==7 {HASH}\n"
    listed = list(of_lock(text, file="requirements.txt"))
    assert [(one.name, one.version, one.place.line) for one in listed] == [
        ("requests", "2.0", 2),
        ("Zope.Interface", "7", 4),
    ]
    (fault,) = of_lock("requests>=2\n", file="requirements.txt")
    assert isinstance(fault, PackageFault) and fault.place.line == 1


NPM3 = {
    "lockfileVersion": 3,
    "packages": {
        "": {"name": "me"},
        "node_modules/a": {"version": "1.0.0"},
        "node_modules/a/node_modules/@s/b": {"version": "2.0.0"},
        "lib": {"version": "9"},
        "node_modules/lib": {"link": True},
    },
}
NPM1 = {
    "lockfileVersion": 1,
    "dependencies": {"a": {"version": "1.0.0", "dependencies": {"@s/b": {"version": "2.0.0"}}}},
}


@pytest.mark.parametrize("lock", [NPM3, NPM1])
def test_npms_locks_are_read(lock: dict[str, Any]) -> None:
    listed = list(
        of_files({"package.json": b'{"dependencies":{"a":"^1"}}', "package-lock.json": json.dumps(lock).encode()})
    )
    assert [(one.ecosystem, one.name, one.version) for one in listed] == [
        ("npm", "a", "1.0.0"),
        ("npm", "@s/b", "2.0.0"),
    ]


def test_what_lies_there_installed_is_read_too() -> None:
    files = {
        "package.json": b'{"dependencies":{"a":"1"}}',
        "node_modules/a/package.json": b'{"name":"a","version":"1.0.0"}',
        "node_modules/a/esm/package.json": b'{"type":"module"}',
        "vendor/x-1.dist-info/METADATA": b"Metadata-Version: 2.1\nName: x\nVersion: 1\n\nVersion: 9\n",
    }
    assert [(one.name, one.version) for one in of_files(files)] == [("a", "1.0.0"), ("x", "1")]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"package.json": b'{"dependencies":{"left-pad":"*"}}'}, "left-pad is wanted and not locked"),
        ({"yarn.lock": b""}, "yarn.lock isn't read"),
        ({"package-lock.json": b"{"}, "no lock of npm's"),
        ({"package-lock.json": b"[" * 100_000}, "no lock of npm's"),
        ({"package-lock.json": b"{}"}, "lists no packages"),
        ({"package-lock.json": b'{"packages":{"node_modules/a":{"version":7}}}'}, "no version that can be judged"),
        ({"node_modules/a/package.json": b'{"name":"a"}'}, "no version that can be judged"),
        ({"a.dist-info/METADATA": b"Name: a\n"}, "names no package and version"),
        ({"requirements.txt": b"a\n"}, "doesn't name one version"),
    ],
)
def test_what_names_no_version_is_a_fault(files: dict[str, bytes], words: str) -> None:
    (fault,) = of_files(files)
    assert isinstance(fault, PackageFault) and words in fault.message and fault.next_step
    (one,) = judge([fault], against())
    assert isinstance(one, Unjudged)
