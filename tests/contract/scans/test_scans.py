"""Scans by processes of their own, and within the test's: the same is found, and the same is said of what can't be."""

import asyncio
import io
import json
import pickle
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from chimera.adapters.scanners.apart import ScansApart
from chimera.adapters.substrates.knative.render import HostBounds
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.agents.archive import ArchivedFile
from chimera.agents.bundle import pack_files
from chimera.agents.compile import CanonicalDefinition, compile_definition
from chimera.agents.validate import check_data
from chimera.bootstrap.scanner import ScannerConfig, make_knowing
from chimera.bootstrap.scanning_parts import PROGRAM
from chimera.delivery.scanning.errors import ScanningError
from chimera.delivery.scanning.model import SCANNERS, Scanner
from chimera.delivery.scanning.packed import Ask, Asked, Scans
from chimera.delivery.scanning.settings import ScanningSettings
from chimera.testing.definitions import definition
from chimera.testing.scans import InlineScans

SECRET = "sk_live_" + "Vq9s7Kd02xLm4Tz8Wb6R"
HASH = "--hash=sha256:" + "a" * 64
GONE = "sha256:" + "0" * 64
FILES = {
    "main.py": f'KEY = "{SECRET}"\n'.encode(),
    "requirements.txt": f"bad==1 {HASH}\n".encode(),
    "weights.pkl": pickle.dumps(io.BytesIO),
}


def config(folder: Path, memory: int = 1024**3, **settings: Any) -> ScannerConfig:
    """On advisories of a folder that speak of one package."""
    folder.mkdir(exist_ok=True)
    affected = {"package": {"ecosystem": "PyPI", "name": "bad"}, "versions": ["1"]}
    (folder / "one.json").write_text(
        json.dumps({"id": "OSV-1", "modified": "2020-01-01T00:00:00Z", "affected": [affected]})
    )
    return ScannerConfig(
        scanning=ScanningSettings(**{"advisories": (str(folder),), "advisories_days": 36_500.0, **settings}),
        rendering=KnativeSettings(),
        bounds=HostBounds(),
        files="",
        secrets="",
        advisories=None,
        mounted=False,
        memory=memory,
        seconds=60.0,
    )


@pytest.fixture(params=["apart", "inline"])
async def scans(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scans]:
    """Each kind."""
    if request.param == "inline":
        yield InlineScans(make_knowing(config(tmp_path / "osv")))
        return
    apart = ScansApart(PROGRAM, config(tmp_path / "osv"), at_once=2, seconds=60.0)
    yield apart
    await apart.aclose()


def packed(files: Mapping[str, bytes]) -> tuple[str, bytes]:
    made = pack_files({path: ArchivedFile(data=data) for path, data in files.items()}, name="code")
    return made.digest, made.data


def value(name: str, **changed: Any) -> CanonicalDefinition:
    return compile_definition(check_data(definition(name, **changed)), tenant="default").value


async def test_every_scanner_finds_what_is_in_definitions_and_packed_folders(scans: Scans) -> None:
    digest, data = packed(FILES)
    agents = [
        Asked(agent="coded", value=value("coded"), file="coded.yaml", bundle=digest),
        Asked(agent="also", value=value("also"), file="also.yaml", bundle=digest),
        Asked(agent="plain", value=value("plain", metadata={"description": f"Say {SECRET}."}), file="plain.yaml"),
    ]
    found: dict[Scanner, set[tuple[str | None, str, str]]] = {}
    for scanner in SCANNERS:
        report = await scans.scan(Ask(scanner=scanner, agents=agents, bundles={digest: data}))
        assert report.looked == {scanner: 3}
        assert not report.unjudged, scanner
        found[scanner] = {(one.agent, one.rule, one.place.file) for one in report.findings}
    stripe = "secrets/stripe-key"
    assert found["secrets"] == {
        ("coded", stripe, "main.py"),
        ("also", stripe, "main.py"),
        ("plain", stripe, "plain.yaml"),
    }
    assert found["dependencies"] == {
        (agent, "dependencies/known-vulnerability", "requirements.txt") for agent in ("coded", "also")
    }
    assert {agent for agent, _, file in found["models"] if file == "weights.pkl"} == {"coded", "also"}


async def test_a_folder_that_is_gone_or_broken_is_not_judged_for_each_of_its_agents(scans: Scans) -> None:
    broken = "sha256:" + "1" * 64
    agents = [Asked(agent=f"{number}", value=value("x"), bundle=broken) for number in range(2)]
    agents.append(Asked(agent="gone", value=value("x"), bundle=GONE))
    report = await scans.scan(Ask(scanner="secrets", agents=agents, bundles={broken: b"no archive"}))
    assert [one.agent for one in report.unjudged] == ["0", "1", "gone"]
    assert report.unjudged[-1].message == "its source folder isn't kept any more"
    assert {one.next_step for one in report.unjudged} == {"apply the agent again"}


async def test_advisories_that_cannot_be_read_are_said(scans: Scans, tmp_path: Path) -> None:
    (tmp_path / "osv" / "one.json").unlink()
    (tmp_path / "osv").rmdir()
    with pytest.raises(ScanningError, match="osv") as refused:
        await scans.scan(Ask(scanner="dependencies", agents=[Asked(agent="a", value=value("a"))]))
    assert refused.value.next_step
    report = await scans.scan(Ask(scanner="secrets", agents=[Asked(agent="a", value=value("a"))]))
    assert report.looked == {"secrets": 1}, "the next one is answered"


async def test_many_are_asked_at_once(scans: Scans) -> None:
    digest, data = packed(FILES)
    asks = [
        Ask(
            scanner=scanner,
            agents=[Asked(agent=f"{scanner}{number}", value=value("x"), bundle=digest)],
            bundles={digest: data},
        )
        for number in range(3)
        for scanner in ("secrets", "dependencies")
    ]
    reports = await asyncio.gather(*(scans.scan(ask) for ask in asks))
    for ask, report in zip(asks, reports, strict=True):
        assert {one.agent for one in report.findings} == {ask.agents[0].agent}
