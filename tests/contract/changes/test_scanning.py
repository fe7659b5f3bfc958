"""The scanners as checks of the pipeline: what is found or can't be judged stops a change, with its agents named."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from chimera.adapters.scanners.knowing import Knowing, Places
from chimera.adapters.substrates.knative.render import HostBounds, pod_manifest
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.agents.archive import ArchivedFile
from chimera.agents.bundle import pack_files
from chimera.agents.compile import CompiledAgent, compile_definition
from chimera.agents.validate import check_data
from chimera.delivery.model import Change, ChangeItem, Verdict
from chimera.delivery.ports import Revision
from chimera.delivery.scanning import checking
from chimera.delivery.scanning.checking import checks
from chimera.delivery.scanning.errors import InvalidWaivers
from chimera.delivery.scanning.packed import scan_packed
from chimera.delivery.scanning.scan import Knowledge
from chimera.delivery.scanning.settings import ScanningSettings
from chimera.kernel.settings import SettingsError
from chimera.testing.definitions import definition
from chimera.testing.scans import InlineScans

from .conftest import TENANT, Delivery, plain

SECRET = "sk_live_" + "Vq9s7Kd02xLm4Tz8Wb6R"
HASH = "--hash=sha256:" + "a" * 64


def with_scanners(delivery: Delivery, folder: Path, **settings: Any) -> None:
    """The real checks on advisories of a folder that speak of one package."""
    folder.mkdir(exist_ok=True)
    affected = {"package": {"ecosystem": "PyPI", "name": "bad"}, "versions": ["1"]}
    (folder / "one.json").write_text(
        json.dumps({"id": "OSV-1", "modified": "2020-01-01T00:00:00Z", "affected": [affected]})
    )
    given = ScanningSettings(**{"advisories": (str(folder),), "advisories_days": 36_500.0, **settings})
    knative = KnativeSettings()
    knows = Knowing(given, delivery.clock, lambda value: pod_manifest(value, knative, HostBounds()))
    delivery.parts.checks = checks(
        delivery.catalogue, InlineScans(knows), knows, delivery.clock, fails_at=given.fails_at, only=given.wanted()
    )


async def with_code(delivery: Delivery, name: str, files: dict[str, bytes], **changed: Any) -> CompiledAgent:
    """An agent with a source folder that is kept."""
    packed = pack_files({path: ArchivedFile(data=data) for path, data in files.items()}, name=name)
    await delivery.catalogue.put_bundle(TENANT, packed.digest, packed.data, packed.requirements)
    data = definition(
        name, specification={"framework": "function", "source": "code", "entrypoint": "main:f"}, **changed
    )
    return compile_definition(check_data(data), tenant=TENANT, bundle=packed.bundle)


def said(change: Change) -> dict[tuple[str, str | None], Verdict]:
    return {(one.check, one.agent): one for one in change.verdicts}


async def test_a_clean_change_passes_every_scanner(delivery: Delivery, tmp_path: Path) -> None:
    with_scanners(delivery, tmp_path / "osv")
    change = await delivery.open(plain("one"), await with_code(delivery, "two", {"main.py": b"def f(x): return x\n"}))
    await delivery.settle()
    now = await delivery.now(change)
    assert now.state == "awaiting-approval", now.reason
    names = ("secrets", "dependencies", "models", "permissions", "prompts", "containers", "images")
    assert {(one.check, one.agent, one.outcome) for one in now.verdicts} == {
        (f"scan-{name}", None, "passed") for name in names
    }
    assert "of 2 agents" in now.verdicts[0].detail


async def test_what_is_found_fails_the_change_and_names_the_agent(delivery: Delivery, tmp_path: Path) -> None:
    with_scanners(delivery, tmp_path / "osv")
    files = {"main.py": f'KEY = "{SECRET}"\n'.encode(), "requirements.txt": f"bad==1 {HASH}\n".encode()}
    change = await delivery.open(plain("one"), await with_code(delivery, "two", files))
    await delivery.settle()
    now = await delivery.now(change)
    assert now.state == "failed"
    verdicts = said(now)
    assert verdicts["scan-secrets", None].outcome == verdicts["scan-secrets", "two"].outcome == "failed"
    assert ("scan-secrets", "one") not in verdicts
    assert verdicts["scan-secrets", "two"].evidence["findings"][0]["place"] == "main.py:1"
    assert "bad 1 is vulnerable (OSV-1)" in verdicts["scan-dependencies", "two"].detail
    assert SECRET not in repr(now)


@pytest.mark.parametrize("settings", [{"advisories": ()}, {"advisories_days": 1.0}])
async def test_missing_or_stale_advisories_fail_the_change(
    delivery: Delivery, tmp_path: Path, settings: dict[str, Any]
) -> None:
    with_scanners(delivery, tmp_path / "osv", **settings)
    change = await delivery.open(plain("one"))
    await delivery.settle()
    now = await delivery.now(change)
    verdict = said(now)["scan-dependencies", None]
    assert (now.state, verdict.outcome) == ("failed", "skipped")
    assert "scanning.advisories" in verdict.next_step


async def test_an_archive_that_does_not_open_skips_and_fails(delivery: Delivery, tmp_path: Path) -> None:
    with_scanners(delivery, tmp_path / "osv")
    files = {"main.py": b"def f(x): return x\n", "data.zip": b"PK\x03\x04" + b"\0" * 40}
    change = await delivery.open(await with_code(delivery, "two", files))
    await delivery.settle()
    now = await delivery.now(change)
    assert now.state == "failed"
    assert said(now)["scan-secrets", "two"].outcome == said(now)["scan-models", "two"].outcome == "skipped"


async def test_an_image_of_a_registry_that_is_not_named_is_skipped(delivery: Delivery, tmp_path: Path) -> None:
    with_scanners(delivery, tmp_path / "osv")
    specification = {"framework": "function", "runtime": "registry.example/agent:1"}
    agent = compile_definition(check_data(definition("two", specification=specification)), tenant=TENANT)
    change = await delivery.open(agent)
    await delivery.settle()
    assert said(await delivery.now(change))["scan-images", "two"].outcome == "skipped"


async def test_a_waiver_lets_a_change_pass_until_its_day(delivery: Delivery, tmp_path: Path) -> None:
    waivers = tmp_path / "waivers.yaml"
    day = "1970-12-31"
    waivers.write_text(
        f"waivers: [{{rule: secrets/stripe-key, agent: two, reason: a key of tests alone, until: {day}}}]\n"
    )
    with_scanners(delivery, tmp_path / "osv", waivers=str(waivers), scanners=("secrets",))
    change = await delivery.open(await with_code(delivery, "two", {"main.py": f'K = "{SECRET}"\n'.encode()}))
    await delivery.settle()
    verdict = said(await delivery.now(change))["scan-secrets", None]
    assert (verdict.outcome, verdict.evidence["waived"]) == ("passed", 1)


def test_a_scanner_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match="no scanner 'secret'"):
        ScanningSettings(scanners=("secret",)).wanted()


async def test_source_folders_are_scanned_few_at_a_time_and_one_that_is_gone_is_skipped(
    delivery: Delivery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "BATCH_BYTES", 30)
    with_scanners(delivery, tmp_path / "osv", scanners=("secrets",))
    agents = [await with_code(delivery, f"a{number}", {"main.py": b"x = 1\n" * (number + 1)}) for number in range(9)]
    bad = await with_code(delivery, "bad", {"main.py": f'K = "{SECRET}"\n'.encode()})
    parts = [
        Revision(
            item=ChangeItem(agent=one.value.agent.name, revision=one.digest, before=None), compiled=one, before=None
        )
        for one in (plain("none"), *agents, bad)
    ]
    found = [ask async for ask in checking.asks(delivery.catalogue, TENANT, parts, "secrets")]
    assert sorted(one.agent for ask in found for one in ask.agents) == sorted(
        ["none", "bad", *(f"a{number}" for number in range(9))]
    )
    assert len(found) > 4
    assert all({one.bundle for one in ask.agents} - {None} == set(ask.bundles) for ask in found)
    change = await delivery.open(*agents, bad)
    await delivery.settle()
    verdicts = said(await delivery.now(change))
    assert {agent for _, agent in verdicts} == {None, "bad"}
    assert "of 10 agents" in verdicts["scan-secrets", None].detail
    (gone,) = [ask async for ask in checking.asks(delivery.catalogue, "other", parts[-1:], "secrets")]
    assert [(one.agent, gone.bundles) for one in gone.agents] == [("bad", {})]
    (unjudged,) = scan_packed(gone, Knowledge()).unjudged
    assert (unjudged.agent, unjudged.message) == ("bad", "its source folder isn't kept any more")


async def test_a_cluster_mounts_waivers_and_advisories_and_they_may_come_later(
    delivery: Delivery, tmp_path: Path
) -> None:
    files, volume = tmp_path / "config", tmp_path / "volume"
    files.mkdir()
    given = ScanningSettings(advisories_days=36_500.0)
    mounted = Places(files=files, secrets=tmp_path, advisories=volume, mounted=True)
    today = datetime.date(2026, 1, 2)

    def knows(settings: ScanningSettings) -> Knowing:
        return Knowing(settings, delivery.clock, lambda _: None, mounted)

    assert (await knows(given).knowledge("dependencies", [])).advisories is None, "nothing is mounted: it is not judged"
    assert await knows(given).waivers(today) == ()
    with_scanners(delivery, volume)
    found = (await knows(given).knowledge("dependencies", [])).advisories
    assert found is not None and found.records == 1
    (files / "osv.json").write_bytes((volume / "one.json").read_bytes())
    named = (await knows(ScanningSettings(advisories=("osv.json",))).knowledge("dependencies", [])).advisories
    assert named is not None and named.records == 1
    waiver = {"rule": "secrets/stripe-key", "file": "a.py", "reason": "a key of a test account", "until": "2026-02-03"}
    (files / "waivers.yaml").write_text(json.dumps({"waivers": [waiver]}))
    assert [one.rule for one in await knows(given).waivers(today)] == ["secrets/stripe-key"]
    with pytest.raises(InvalidWaivers):
        await knows(ScanningSettings(waivers="others.yaml")).waivers(today)
