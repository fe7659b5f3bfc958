"""The two distributions: their wheels carry everything that the code reads, and work where nothing else is."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import uv

DISTRIBUTIONS = {"chimera": "chimera_ecosystem", "chimera_host": "chimera_host"}

pytestmark = pytest.mark.slow


def run_uv(*arguments: str | Path, cwd: Path) -> None:
    """Run uv, from its cache where that has everything; the network is needed otherwise."""
    command = [uv.find_uv_bin(), "--quiet", *map(str, arguments)]
    if subprocess.run([*command, "--offline"], cwd=cwd, capture_output=True, check=False).returncode != 0:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheels(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both wheels, each built from its source distribution, by the package inside."""
    target = tmp_path_factory.mktemp("wheels")
    run_uv("build", "--all-packages", "--out-dir", target, cwd=root)
    return {package: next(target.glob(f"{name}-*.whl")) for package, name in DISTRIBUTIONS.items()}


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the two wheels and what they need, as the lock file has it."""
    folder = tmp_path_factory.mktemp("installed")
    needed = folder / "requirements.txt"
    run_uv("export", "--frozen", "--no-emit-workspace", "--no-dev", "--output-file", needed, cwd=root)
    run_uv("venv", "--python", sys.executable, folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    run_uv("pip", "install", "--python", python, "--require-hashes", "-r", needed, cwd=folder)
    run_uv("pip", "install", "--python", python, "--no-deps", *wheels.values(), cwd=folder)
    run_uv("pip", "check", "--python", python, cwd=folder)
    return python.parent


def alone(program: Path, *arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a program with nothing of this process's environment."""
    environment = {"HOME": str(home), "PATH": os.defpath}
    return subprocess.run(
        [program, *arguments], cwd=home, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("package", DISTRIBUTIONS)
def test_a_wheel_carries_every_file_of_its_package(wheels: dict[str, Path], shipped: list[Path], package: str) -> None:
    inside = set(zipfile.ZipFile(wheels[package]).namelist())
    files = [file for file in shipped if package in file.parts]
    source = next(parent for parent in files[0].parents if parent.name == package).parent
    assert len(files) > 50
    assert {file.relative_to(source).as_posix() for file in files} <= inside


def test_wheels_carry_what_is_not_python(wheels: dict[str, Path], root: Path) -> None:
    inside = zipfile.ZipFile(wheels["chimera"])
    names = set(inside.namelist())
    assert {f"chimera/schemas/{file.name}" for file in (root / "schemas").iterdir()} <= names
    assert len([name for name in names if re.search(r"/migrations/versions/v\d+_", name)]) >= 1
    assert len([name for name in names if re.search(r"/templates/.*\.yaml$", name)]) >= 9
    locks = [name for name in names if name.startswith("chimera/runtimes/") and name.endswith(".lock")]
    assert len(locks) == 6
    assert all(b"--hash=sha256:" in inside.read(lock) for lock in locks if inside.read(lock).count(b"=="))


@pytest.mark.parametrize("package", DISTRIBUTIONS)
def test_a_wheel_carries_the_licence_and_nothing_beside_its_package(
    wheels: dict[str, Path], root: Path, package: str
) -> None:
    wheel = zipfile.ZipFile(wheels[package])
    names = wheel.namelist()
    (licence,) = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    assert wheel.read(licence) == (root / "LICENSE").read_bytes()
    assert [name for name in names if name.endswith(".dist-info/licenses/NOTICE")]
    outside = [name for name in names if not name.startswith((f"{package}/", f"{DISTRIBUTIONS[package]}-"))]
    assert not outside


def test_doctor_finds_an_empty_machine_sound(installed: Path, tmp_path: Path) -> None:
    done = alone(installed / "chimera", "doctor", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "broken" not in done.stdout
    assert "chimera runtime install autogen" in done.stdout


def test_a_first_definition_is_valid_there(installed: Path, tmp_path: Path) -> None:
    assert alone(installed / "chimera", "init", "hello", home=tmp_path).returncode == 0
    done = alone(installed / "chimera", "validate", "hello.yaml", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_database_is_made_there(installed: Path, tmp_path: Path) -> None:
    program = (
        "import asyncio; from chimera.adapters.storage.migrating import is_current, migrate\n"
        "from chimera.adapters.storage.opening import open_database\n"
        "database = open_database('chimera.db'); asyncio.run(migrate(database))\n"
        "print(asyncio.run(is_current(database))); database.close()"
    )
    done = alone(installed / "python", "-c", program, home=tmp_path)
    assert done.stdout == "True\n", done.stderr


def test_the_host_runs_there_by_itself(installed: Path, tmp_path: Path) -> None:
    done = alone(installed / "python", "-m", "chimera_host", "serve", "--help", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--lifeline-fd" in done.stdout
