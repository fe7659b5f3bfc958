"""The project's own files, as git knows them; in a tree without git, as they lie there."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "src" / "chimera", ROOT / "host" / "src" / "chimera_host")
NOT_OURS = {".git", ".venv", ".tools", "__pycache__", "node_modules", "build", "dist", ".hypothesis"}


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """Every file of the project."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [file for file in (names or sorted(_walk(ROOT))) if file.is_file()]


@pytest.fixture(scope="session")
def shipped(tracked: list[Path]) -> list[Path]:
    """Every file of the two packages."""
    return [file for file in tracked if any(file.is_relative_to(package) for package in PACKAGES)]


def _walk(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name not in NOT_OURS:
            yield from _walk(entry)
        elif entry.is_file() and entry.suffix != ".pyc":
            yield entry
