"""Images are read from files and registries to their bounds, and what is wrong in any of their layers is found."""

import base64
import gzip
import io
import json
import pickle
import struct
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp.test_utils import TestServer

from chimera.adapters.scanners.image_files import image_files
from chimera.adapters.scanners.registry import DOCKER_HUB, Registry, parse_reference, read_credentials
from chimera.delivery.scanning import images as scanning
from chimera.delivery.scanning import layers as bounds
from chimera.delivery.scanning.advisories import Advisories, OsvRecord
from chimera.delivery.scanning.dependencies import Against
from chimera.delivery.scanning.errors import ImageUnreadable
from chimera.delivery.scanning.images import scan_image
from chimera.delivery.scanning.model import Finding, Result, Unjudged
from chimera.testing.images import ALPINE, DEBIAN, TestImage, TestRegistry, layer


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


NOW = 1_800_000_000.0
MOST = 64 * 1024**2
SECRET = "sk_live_" + "Vq9s7Kd02xLm4Tz8Wb6R"
STATUS = b"""Package: libssl3
Status: install ok installed
Source: openssl (3.0.11-1~deb12u1)
Version: 3.0.11-1~deb12u1

Package: gone
Status: deinstall ok config-files
Version: 1

Package: zlib1g
Status: install ok installed
Version: 1:1.2.13.dfsg-1
"""
APK = b"C:Q1\nP:libcrypto3\nV:3.3.1-r0\no:openssl\n\nP:busybox\nV:1.36.1-r29\n"
FIXED = {"Debian:12": "3.0.14-1", "Alpine:v3.20": "3.3.2-r0", "PyPI": "2.1", "npm": "1.3.0"}
NAMES = {"Debian:12": "openssl", "Alpine:v3.20": "openssl", "PyPI": "requests", "npm": "left-pad"}


def against() -> Against:
    index = Advisories()
    for ecosystem, fixed in FIXED.items():
        events = [{"introduced": "0"}, {"fixed": fixed}]
        affected = {
            "package": {"ecosystem": ecosystem, "name": NAMES[ecosystem]},
            "ranges": [{"type": "ECOSYSTEM", "events": events}],
        }
        record = {"id": f"OSV-{ecosystem}", "modified": "x", "affected": [affected]}
        index.add(msgspec.json.decode(json.dumps(record), type=OsvRecord), NOW)
    return Against(advisories=index, now=NOW, longest=86_400.0)


BASE = layer({"etc/os-release": DEBIAN, "var/lib/dpkg/status": STATUS.replace(b"3.0.11-1~deb12u1", b"3.0.14-1")})


def image(*layers: dict[str, Any], base: bytes = BASE, **config: Any) -> TestImage:
    return TestImage(layers=[base, *map(layer, layers)], config={"config": {"User": "65532", **config}})


def scanned(made: TestImage, folder: Path) -> list[Result]:
    with image_files(made.layout(folder / "layout")) as found:
        return [one for part in found for one in scan_image(part, against())]


def rules(results: list[Result]) -> dict[str, str]:
    found = {one.rule.removeprefix("images/"): one.severity for one in results if isinstance(one, Finding)}
    return {**found, **{f"unjudged: {one.message}": "" for one in results if isinstance(one, Unjudged)}}


def test_an_image_without_faults_has_no_finding(tmp_path: Path) -> None:
    files = {"app/main.py": b"print(1)\n", "app/weights.pkl": pickle.dumps([1]), "usr/bin/passwd": (b"\x7fELF", 0o755)}
    assert scanned(image(files, {"app/.wh.main.py": b""}), tmp_path) == []


@pytest.mark.parametrize("write", ["layout", "archive", "saved"])
def test_each_form_of_a_file_is_read(write: str, tmp_path: Path) -> None:
    made = image({"app/settings.py": f'KEY = "{SECRET}"\n'.encode()})
    with image_files(getattr(made, write)(tmp_path / f"{write}.tar")) as found:
        (one,) = [one for part in found for one in scan_image(part, against())]
    assert isinstance(one, Finding) and one.rule == "images/stripe-key"
    assert "!layer 2 (" in one.place.file and one.place.file.endswith("!app/settings.py") and one.place.line == 1


def test_deletions_without_number_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MOST_STEPS", 100)
    setuid = {f"opt/{number}": (b"\x7fELF", 0o4755) for number in range(10)}
    gone = {f"opt/.wh.never-{number}": b"" for number in range(20)}
    assert "unjudged: it deletes more than can be followed" in rules(scanned(image(setuid, gone), tmp_path))


def test_a_layer_that_is_a_link_in_dockers_archive_is_read(tmp_path: Path) -> None:
    made = TestImage(layers=[BASE, BASE])
    with image_files(made.saved(tmp_path / "a.tar")) as found:
        assert [one for part in found for one in scan_image(part, against())] == []


OLD_DEBIAN = layer({"etc/os-release": DEBIAN, "var/lib/dpkg/status": STATUS})
PACKAGES: dict[str, TestImage] = {
    "Debian:12": image(base=OLD_DEBIAN),
    "Debian:12 distroless": image(
        base=layer({"etc/os-release": DEBIAN, "var/lib/dpkg/status.d/openssl": STATUS.split(b"\n\n")[0]})
    ),
    "Alpine:v3.20": image(base=layer({"usr/lib/os-release": ALPINE, "lib/apk/db/installed": APK})),
    "PyPI": image({"usr/lib/python3/dist-packages/requests-2.0.dist-info/METADATA": b"Name: Requests\nVersion: 2.0\n"}),
    "npm": image({"app/node_modules/left-pad/package.json": b'{"name": "left-pad", "version": "1.2.9"}'}),
}


@pytest.mark.parametrize("what", PACKAGES)
def test_packages_of_every_kind_are_held_against_advisories(what: str, tmp_path: Path) -> None:
    (one,) = scanned(PACKAGES[what], tmp_path)
    assert isinstance(one, Finding) and one.rule == "images/known-vulnerability", one
    ecosystem = what.partition(" ")[0]
    assert f"OSV-{ecosystem}" in one.message and FIXED[ecosystem] in one.next_step


def test_a_package_that_only_an_earlier_layer_has_is_low(tmp_path: Path) -> None:
    upgraded = STATUS.replace(b"3.0.11-1~deb12u1", b"3.0.14-1")
    (one,) = scanned(image({"var/lib/dpkg/status": upgraded}, base=OLD_DEBIAN), tmp_path)
    assert isinstance(one, Finding) and one.severity == "low" and "only an earlier layer" in one.message


@pytest.mark.parametrize("gone", [{"app/.wh.key": b""}, {".wh.app": b""}, {"app/.wh..wh..opq": b""}])
def test_a_secret_that_a_later_layer_deletes_is_found_and_said_to_be_there_still(
    gone: dict[str, bytes], tmp_path: Path
) -> None:
    (one,) = scanned(image({"app/key": f"token: {SECRET}\n".encode()}, gone), tmp_path)
    assert isinstance(one, Finding) and one.severity == "critical"
    assert one.message.endswith("layer 3 deletes it, and it is still in the image")


def device(name: str) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = tarfile.CHRTYPE
    return made


FOUND: dict[str, tuple[TestImage, dict[str, str]]] = {
    "no user": (image(User=""), {"root": "high"}),
    "user 0": (image(User="0:100"), {"root": "high"}),
    "root": (image(User="root"), {"root": "high"}),
    "a secret in the environment": (image(Env=[f"STRIPE={SECRET}"]), {"stripe-key": "critical"}),
    "setuid of its own": (image({"opt/tool": (b"\x7fELF", 0o4755)}), {"setuid": "high"}),
    "setuid under a known name in a place of one's own": (image({"app/su": (b"\x7fELF", 0o4755)}), {"setuid": "high"}),
    "setgid": (image({"opt/tool": (b"\x7fELF", 0o2755)}), {"setuid": "medium"}),
    "setuid of the system": (image({"usr/bin/su": (b"\x7fELF", 0o4755)}), {"setuid": "low"}),
    "a device": (image({"dev/mem": device("dev/mem")}), {"device": "medium"}),
    "a pickle": (
        image({"models/a.pt": pickle.dumps(Path("x")).replace(b"PosixPath", b"NobodysXY")}),
        {"pickle": "high"},
    ),
    "a pickle without its ending": (
        image({"models/a": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R."}),
        {"pickle": "critical"},
    ),
    "a private key": (
        image({"root/.ssh/id_rsa": b"-----BEGIN OPENSSH PRIVATE " + b"KEY-----\n"}),
        {"private-key": "critical"},
    ),
    "credentials by their place": (image({"home/a/.aws/credentials": b"[default]\n"}), {"credentials": "high"}),
    "a path that leads out": (image({"../../app/key": f"token: {SECRET}\n".encode()}), {"stripe-key": "critical"}),
}


@pytest.mark.parametrize("what", FOUND)
def test_what_is_wrong_in_an_image_is_found(what: str, tmp_path: Path) -> None:
    made, expected = FOUND[what]
    assert rules(scanned(made, tmp_path)) == expected


def test_history_is_read_for_secrets(tmp_path: Path) -> None:
    made = TestImage(
        layers=[BASE], config={"config": {"User": "1"}, "history": [{"created_by": f"RUN login {SECRET}"}]}
    )
    (one,) = scanned(made, tmp_path)
    assert isinstance(one, Finding) and one.place.field == "history[0]"


def test_a_setuid_bit_that_a_later_layer_takes_away_is_gone(tmp_path: Path) -> None:
    tool = {"opt/tool": (b"\x7fELF", 0o4755)}
    assert scanned(image(tool, {"opt/tool": (b"\x7fELF", 0o755)}), tmp_path) == []
    assert scanned(image(tool, {"opt/.wh.tool": b""}), tmp_path / "b") == []


def claims(size: int) -> bytes:
    """A layer whose header claims more than there is."""
    entry = tarfile.TarInfo("app/key")
    entry.size = size
    return gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + b"x" * 512)


def long_header() -> bytes:
    entry = tarfile.TarInfo("././@PaxHeader")
    entry.type, entry.size = tarfile.XHDTYPE, 5 * 1024**3
    return gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)


UNJUDGED: dict[str, tuple[TestImage, str]] = {
    "a file claims 5 GB": (TestImage(layers=[BASE, claims(5 * 1024**3)]), "can't be read on"),
    "a file ends early": (TestImage(layers=[BASE, claims(5_000)]), "can't be read on"),
    "a header claims 5 GB": (TestImage(layers=[BASE, long_header()]), "a header claims 5,368,709,120 bytes"),
    "a damaged gzip": (TestImage(layers=[BASE, BASE[:40]]), "gzip ends too early"),
    "zstd": (TestImage(layers=[BASE, b"\x28\xb5\x2f\xfd" + b"\0" * 40]), "zstd"),
    "no tar at all": (TestImage(layers=[BASE, gzip.compress(b"x" * 5_000)]), "can't be read on"),
    "rpm": (image({"var/lib/rpm/rpmdb.sqlite": b"SQLite"}), "packages of rpm aren't read"),
    "another distribution": (
        image(base=layer({"etc/os-release": b"ID=void\n", "var/lib/dpkg/status": STATUS})),
        "no advisories here",
    ),
    "no distribution": (image(base=layer({"var/lib/dpkg/status": STATUS})), "no advisories here"),
    "nothing says what is installed": (image(base=layer({"app/server": (b"\x7fELF", 0o755)})), "nothing in it says"),
    "a package without a version": (
        image(base=layer({"etc/os-release": DEBIAN, "var/lib/dpkg/status": b"Package: x\n"})),
        "names no package and version",
    ),
    "a pickle that is cut": (image({"a.pkl": pickle.dumps([1, 2, 3])[:-1]}), "the pickle"),
}


@pytest.mark.parametrize("what", UNJUDGED)
def test_what_can_not_be_read_is_not_judged(what: str, tmp_path: Path) -> None:
    made, words = UNJUDGED[what]
    results = scanned(made, tmp_path)
    assert any(isinstance(one, Unjudged) and words in one.message for one in results), results


def test_a_layer_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "RATIO_FROM", 1024**2)
    made = image({"var/cache/zeros": b"\0" * (32 * 1024**2)})
    assert any(
        isinstance(one, Unjudged) and "more than a layer may have" in one.message for one in scanned(made, tmp_path)
    )


@pytest.mark.parametrize(
    ("name", "bound", "words"),
    [
        ("LARGEST_LISTS", 5_000, "what says what is installed has more than 5,000"),
        ("MOST_FINDINGS", 2, "more than 2 th"),
    ],
)
def test_what_is_kept_of_all_layers_is_bounded(
    name: str, bound: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = b'{"name": "left-pad", "version": "1.3.0", "x": "%s"}' % (b"x" * 400)
    files = {f"app/node_modules/p{number}/package.json": package for number in range(20)}
    files |= {f"app/{number}.env": f"KEY={SECRET}{number}".encode() for number in range(5)}
    monkeypatch.setattr(scanning, name, bound)
    assert any(isinstance(one, Unjudged) and words in one.message for one in scanned(image(files), tmp_path))


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ([{"Config": "config.json", "Layers": ["0/layer.tar"] * 501}], "501 layers"),
        ([{"Config": "config.json", "Layers": []}] * 101, "101 images"),
    ],
)
def test_dockers_archive_names_no_more_than_an_image_has(manifest: Any, words: str, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "0/layer.tar": layer({}), "manifest.json": json.dumps(manifest).encode()}
    (tmp_path / "a.tar").write_bytes(layer(files, packed=False))
    with pytest.raises(ImageUnreadable, match=words), image_files(tmp_path / "a.tar"):
        pass


def test_links_and_odd_names_in_a_layer_stop_nothing(tmp_path: Path) -> None:
    link = tarfile.TarInfo("app/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
    hard = tarfile.TarInfo("app/hard")
    hard.type, hard.linkname = tarfile.LNKTYPE, "../../etc/shadow"
    assert scanned(image({"app/link": link, "app/hard": hard, "a\tb/\u00fc": b"x", "/absolute": b"x"}), tmp_path) == []


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda folder: (folder / "index.json").write_text("{"), "no JSON"),
        (lambda folder: (folder / "index.json").write_text("{}"), "lists no image"),
        (lambda folder: (folder / "index.json").unlink(), "index.json is missing"),
        (
            lambda folder: [file.write_bytes(b"{}") for file in (folder / "blobs" / "sha256").iterdir()],
            "others than its digest",
        ),
        (lambda folder: [file.unlink() for file in (folder / "blobs" / "sha256").iterdir()], "is missing"),
        (
            lambda folder: (folder / "index.json").write_text(
                '{"manifests": [{"digest": "sha256:../../../etc/passwd"}]}'
            ),
            "no digest",
        ),
    ],
)
def test_a_layout_that_is_not_whole_is_refused(break_it: Any, words: str, tmp_path: Path) -> None:
    folder = image().layout(tmp_path / "layout")
    break_it(folder)
    with pytest.raises(ImageUnreadable, match=words), image_files(folder) as found:
        list(scan_image(found[0], against()))


def test_a_changed_layer_is_refused(tmp_path: Path) -> None:
    made = image({"app/a": b"1"})
    folder = made.layout(tmp_path / "layout")
    layers = [digest for digest, data in made.blobs.items() if data.startswith(b"\x1f\x8b")]
    (folder / "blobs" / "sha256" / layers[1].partition(":")[2]).write_bytes(layer({"app/a": b"2"}))
    with pytest.raises(ImageUnreadable, match="others than its digest"), image_files(folder) as found:
        list(scan_image(found[0], against()))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no tar",
        layer({"a": b""}, packed=False),
        layer({"manifest.json": b"{}"}, packed=False),
        layer({"manifest.json": b"[]"}, packed=False),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(ImageUnreadable), image_files(tmp_path / "a.tar"):
        pass
    with pytest.raises(ImageUnreadable), image_files(tmp_path / "missing.tar"):
        pass


def test_an_index_is_followed_to_the_platform(tmp_path: Path) -> None:
    made = image()
    with image_files(made.layout(tmp_path / "a", top=made.index("arm64", "amd64"))) as found:
        assert len(list(found[0].layers)) == 1
    with (
        pytest.raises(ImageUnreadable, match="no image for linux/amd64"),
        image_files(made.layout(tmp_path / "b", top=made.index("arm64", "riscv64"))),
    ):
        pass


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def served(registry: TestRegistry) -> tuple[TestServer, str]:
    server = TestServer(registry.app())
    await server.start_server()
    return server, f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(("user", "by"), [(None, "none"), ("anna:geheim", "token"), ("anna:geheim", "basic")])
async def test_an_image_of_a_registry_is_fetched_and_scanned(
    user: str | None, by: str, tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    registry = TestRegistry(user=user, basic=by == "basic")
    made = image({"app/key": f"token: {SECRET}\n".encode()})
    registry.add("team/agent:1", made, top=made.index("arm64", "amd64"))
    server, host = await served(registry)
    try:
        credentials = {host: basic("anna", "geheim")} if user else {}
        await Registry(session, credentials=credentials, largest=MOST).fetch(f"{host}/team/agent:1", tmp_path / "a")
        with image_files(tmp_path / "a") as found:
            assert rules([one for part in found for one in scan_image(part, against())]) == {"stripe-key": "critical"}
        if by == "token":
            assert any("scope=repository" in one and "team" in one for one in registry.asked)
            assert sum(one.startswith("/token") for one in registry.asked) == 1
    finally:
        await server.close()


async def test_what_a_registry_refuses_or_damages_is_said(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    registry = TestRegistry(user="anna:geheim")
    registry.add("team/agent:1", image({"app/a": b"x" * 100_000}))
    registry.add("team/declared:1", TestImage(layers=[b"never asked for"], declared=20 * 1024**3))
    server, host = await served(registry)
    good = {host: basic("anna", "geheim")}
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({}, "team/agent:1", "gives no token"),
        ({"credentials": {host: basic("anna", "wrong")}}, "team/agent:1", "gives no token"),
        ({"credentials": good}, "team/other:1", "answers 404"),
        ({"credentials": good, "largest": 10}, "team/agent:1", "larger than 10 bytes"),
        ({"credentials": good, "largest": 10}, "team/declared:1", "larger than 10 bytes"),
        ({"credentials": good, "only": ["registry.example"]}, "team/agent:1", "isn't one that may be asked"),
    ]
    try:
        for number, (given, name, words) in enumerate(cases):
            with pytest.raises(ImageUnreadable, match=words) as refused:
                await Registry(session, **{"largest": MOST, **given}).fetch(f"{host}/{name}", tmp_path / str(number))
            assert refused.value.next_step
            assert ("scanning.image_bytes" in refused.value.next_step) == ("larger" in words)
        assert not [one for one in registry.asked if "/team/declared/blobs/" in one], "what is too large isn't fetched"
        registry.damage = True
        with pytest.raises(ImageUnreadable, match="others than its digest"):
            await Registry(session, credentials=good, largest=MOST).fetch(f"{host}/team/agent:1", tmp_path / "damaged")
    finally:
        await server.close()
    with pytest.raises(ImageUnreadable, match="can't be had"):
        await Registry(session, largest=MOST).fetch(f"{host}/team/agent:1", tmp_path / "away")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("python:3.11-slim", (DOCKER_HUB, "library/python", "3.11-slim")),
        ("team/agent", (DOCKER_HUB, "team/agent", "latest")),
        ("docker.io/team/agent:1", (DOCKER_HUB, "team/agent", "1")),
        ("registry.example:5000/a/b:1", ("registry.example:5000", "a/b", "1")),
        ("localhost/a", ("localhost", "a", "latest")),
        ("ghcr.io/a/b:1@sha256:" + "a" * 64, ("ghcr.io", "a/b", "sha256:" + "a" * 64)),
    ],
)
def test_names_of_images_are_taken_apart(text: str, expected: tuple[str, str, str]) -> None:
    found = parse_reference(text)
    assert (found.registry, found.repository, found.version) == expected
    assert found.base.startswith("http://" if "localhost" in text else "https://")


@pytest.mark.parametrize(
    "text", ["", "A/b", "a/../b", "registry.example/a:b:c", "reg istry.example/a", "a@sha256:12", "http://x/y"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ImageUnreadable):
        parse_reference(text)


def test_credentials_are_those_of_docker_login(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(
        json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": "YQ=="}, "ghcr.io": {"auth": "Yg=="}, "x": {}}})
    )
    assert read_credentials(file) == {DOCKER_HUB: "YQ==", "ghcr.io": "Yg=="}
    file.write_text("{")
    with pytest.raises(ImageUnreadable):
        read_credentials(file)


def test_a_stream_of_any_size_is_read_in_pieces() -> None:
    data = layer({"app/a": b"x" * 3_000_000})
    assert struct.unpack("<I", data[-4:])[0] > 3_000_000
    assert [one.path for one in bounds.read_layer(io.BytesIO(data))] == ["app/a"]
