"""Advisories are read from folders, files and addresses, to their bounds, and what can't be read is counted."""

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from chimera.adapters.scanners import advisory_files
from chimera.adapters.scanners.advisory_files import load_advisories
from chimera.delivery.scanning.advisories import Advisories
from chimera.delivery.scanning.errors import AdvisoriesUnreadable

NOW = 1_800_000_000.0


def record(number: int, *, modified: str = "2027-01-10T00:00:00.123456789Z") -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": "2"}]
    package = {"ecosystem": "PyPI", "name": f"p{number}", "purl": f"pkg:pypi/p{number}"}
    ranges = [{"type": "ECOSYSTEM", "events": events}, {"type": "GIT", "repo": "x", "events": [{"introduced": "ab"}]}]
    return {
        "id": f"PYSEC-{number}",
        "modified": modified,
        "references": [{"type": "WEB", "url": "https://example.org"}],
        "affected": [{"package": package, "ranges": ranges, "database_specific": {"source": "x"}}],
        "database_specific": {"severity": "HIGH", "cwe_ids": []},
    }


def zipped(*records: dict[str, Any], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        archive.writestr("README.txt", "not an advisory")
        for one in records:
            archive.writestr(f"{one['id']}.json", json.dumps(one))
    return target.getvalue()


def known(index: Advisories) -> set[str]:
    return {name for _, name in index.entries}


async def test_a_folder_of_records_lists_and_zips(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.json").write_text(json.dumps(record(1)))
    (tmp_path / "deep" / "many.json").write_text(json.dumps([record(2), record(3)]))
    (tmp_path / "deep" / "all.zip").write_bytes(zipped(record(4), record(5)))
    (tmp_path / "readme.md").write_text("not an advisory")
    index = await load_advisories([str(tmp_path)], now=NOW)
    assert (index.records, known(index), index.faults) == (5, {"p1", "p2", "p3", "p4", "p5"}, [])
    assert index.judge("PyPI", "P1", "1").vulnerabilities[0].severity == "high"
    assert index.fault("PyPI", now=NOW, longest=7 * 86_400) is None


async def test_files_are_named_themselves(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(record(1)))
    (tmp_path / "all.zip").write_bytes(zipped(record(4)))
    index = await load_advisories([str(tmp_path / "a.json"), str(tmp_path / "all.zip")], now=NOW)
    assert known(index) == {"p1", "p4"}


@pytest.mark.parametrize(
    "content",
    ["{", "[]x", "null", '{"id": "x"}', json.dumps(record(1) | {"modified": "lately"}), "[" * 100_000, '[{"id": 7}]'],
)
async def test_a_record_that_can_not_be_read_is_counted(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    (tmp_path / "b.json").write_text(json.dumps(record(2)))
    index = await load_advisories([str(tmp_path)], now=NOW)
    assert known(index) == {"p2"}
    assert len(index.faults) == 1 and "a.json" in index.faults[0]


async def test_a_damaged_zip_is_counted(tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_bytes(zipped(record(4))[:-30])
    assert (await load_advisories([str(tmp_path)], now=NOW)).faults


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
async def test_a_zip_that_is_damaged_inside_is_counted_however_it_is_packed(compression: int, tmp_path: Path) -> None:
    whole = zipped(record(4), compression=compression)
    assert known(await load_advisories([str(_put(tmp_path, whole))], now=NOW)) == {"p4"}
    start = whole.index(b"PYSEC-4.json") + len("PYSEC-4.json")
    broken = _put(tmp_path, whole[:start] + b"\xa5" * 60 + whole[start + 60 :])
    index = await load_advisories([str(broken)], now=NOW)
    assert (index.records, len(index.faults)) == (0, 1)
    server = await served(broken.read_bytes())
    try:
        index = await load_advisories([str(server.make_url("/all.zip"))], now=NOW)
    finally:
        await server.close()
    assert (index.records, len(index.faults)) == (0, 1)


def _put(folder: Path, data: bytes) -> Path:
    (folder / "all.zip").write_bytes(data)
    return folder / "all.zip"


async def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(record(1)))
    os.mkfifo(tmp_path / "b.json")
    (tmp_path / "c.json").symlink_to("/dev/zero")
    index = await load_advisories([str(tmp_path)], now=NOW)
    assert known(index) == {"p1"}
    assert [fault.rpartition("/")[2] for fault in index.faults] == ["b.json: it is no file", "c.json: it is no file"]


async def test_a_record_beyond_the_bound_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advisory_files, "LARGEST_RECORD", 2_000)
    (tmp_path / "all.zip").write_bytes(zipped(record(1) | {"details": "x" * 5_000}, record(2)))
    index = await load_advisories([str(tmp_path)], now=NOW)
    assert known(index) == {"p2"} and "too large" in index.faults[0]


async def test_a_time_to_come_is_not_fresh(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(record(1, modified="2099-01-01T00:00:00Z")))
    index = await load_advisories([str(tmp_path)], now=NOW)
    fault = index.fault("PyPI", now=NOW, longest=7 * 86_400)
    assert fault is not None and "days old" in fault


async def test_nothing_there_is_refused(tmp_path: Path) -> None:
    for name in ("missing", ""):
        with pytest.raises(AdvisoriesUnreadable) as refused:
            await load_advisories([str(tmp_path / name)], now=NOW)
        assert refused.value.next_step


async def served(data: bytes, status: int = 200) -> TestServer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=data, status=status)

    app = web.Application()
    app.router.add_get("/all.zip", answer)
    server = TestServer(app)
    await server.start_server()
    return server


@pytest.mark.parametrize("data", [zipped(record(1)), json.dumps(record(1)).encode()])
async def test_an_address_gives_a_zip_or_json(data: bytes) -> None:
    server = await served(data)
    try:
        assert known(await load_advisories([str(server.make_url("/all.zip"))], now=NOW)) == {"p1"}
    finally:
        await server.close()


@pytest.mark.parametrize(
    ("asked", "way", "unsafe"),
    [
        ("https://a.example/x", ["https://a.example/x"], None),
        ("https://a.example/x", ["https://a.example/x", "https://b.example/y"], None),
        ("https://a.example/x", ["https://a.example/x", "http://b.example/y"], "http://b.example/y"),
        (
            "https://a.example/x",
            ["https://a.example", "http://b.example/y", "https://c.example/z"],
            "http://b.example/y",
        ),
        ("http://a.example/x", ["http://a.example/x", "http://b.example/y"], None),
    ],
)
def test_who_asks_encrypted_is_not_led_out_of_it(asked: str, way: list[str], unsafe: str | None) -> None:
    found = advisory_files.unencrypted(asked, [URL(one) for one in way])
    assert (None if found is None else str(found)) == unsafe


async def test_an_address_that_gives_none_or_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    server = await served(b"x" * 3_000_000, 200)
    try:
        monkeypatch.setattr(advisory_files, "LARGEST_DOWNLOAD", 1_000_000)
        with pytest.raises(AdvisoriesUnreadable, match="larger than"):
            await load_advisories([str(server.make_url("/all.zip"))], now=NOW)
        with pytest.raises(AdvisoriesUnreadable, match="answers 404"):
            await load_advisories([str(server.make_url("/other"))], now=NOW)
    finally:
        url = str(server.make_url("/all.zip"))
        await server.close()
    with pytest.raises(AdvisoriesUnreadable, match="can't be had"):
        await load_advisories([url], now=NOW)
