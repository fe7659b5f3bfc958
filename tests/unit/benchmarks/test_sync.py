"""The benchmark of following a branch in small: it runs to its end, and each look finds what it should."""

import shutil
from pathlib import Path

import pytest

from benchmarks.sync import measure


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
async def test_it_runs_to_its_end(tmp_path: Path) -> None:
    made = await measure(tmp_path, agents=60, changed=5, database_name=str(tmp_path / "chimera.db"))
    looks = {what: sent for what, _, sent, _ in made.rows}
    assert len(looks) == 6
    assert looks["nothing new"] < looks["a commit that changes 5"] < looks["the first look: 60 definitions"]
