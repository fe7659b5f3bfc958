"""The documentation's generator is a package beside the project's own: its folder's parent goes onto the path here."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def pages(root: Path) -> dict[Path, str]:
    """Every page that belongs to the project, by its path."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    files = [root / name for name in listed] or [*root.glob("*.md"), *root.glob("docs/**/*.md")]
    return {file: file.read_text(encoding="utf-8") for file in files if file.exists()}
