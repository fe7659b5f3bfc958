"""Control groups: what is written where, on folders like the system's, and on the system's own if it lets us."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chimera.adapters.substrates.local import limits
from chimera.platform.model import ResourceClass

RESOURCES = ResourceClass(name="standard", cpu_millicores=500, memory_bytes=256 * 1024**2)


def second(root: Path, *, controllers: str = "cpuset cpu io memory pids", passed_on: str = "") -> Path:
    (root / "cgroup.controllers").write_text(controllers)
    (root / "cgroup.subtree_control").write_text(passed_on)
    (root / limits.GROUP).mkdir()
    (root / limits.GROUP / "cgroup.subtree_control").write_text("")
    return root


def test_version_two_passes_the_controllers_on_at_each_level(tmp_path: Path) -> None:
    found = limits.detect(second(tmp_path))
    assert (found.version, found.folders) == (2, (tmp_path / limits.GROUP,))
    for folder in (tmp_path, tmp_path / limits.GROUP):
        assert (folder / "cgroup.subtree_control").read_text() == "+memory +cpu"

    assert found.place("host-1", 4321, RESOURCES)
    group = tmp_path / limits.GROUP / "host-1"
    assert (group / "memory.max").read_text() == str(256 * 1024**2)
    assert (group / "cpu.weight").read_text() == "50"
    assert (group / "cgroup.procs").read_text() == "4321"


def test_version_one_has_a_folder_for_each_controller(tmp_path: Path) -> None:
    memory, cpu = (tmp_path / controller / limits.GROUP / "host-1" for controller in ("memory", "cpu"))
    for group in (memory, cpu):
        group.mkdir(parents=True)
        (group.parents[1] / "cgroup.procs").write_text("")
    (memory / "memory.limit_in_bytes").write_text("9223372036854771712")

    found = limits.detect(tmp_path)
    assert (found.version, found.folders) == (1, (memory.parent, cpu.parent))
    assert found.place("host-1", 4321, RESOURCES)
    assert (memory / "memory.limit_in_bytes").read_text() == str(256 * 1024**2)
    assert (cpu / "cpu.shares").read_text() == "512"
    assert (memory / "cgroup.procs").read_text() == (cpu / "cgroup.procs").read_text() == "4321"


def test_a_limit_that_can_not_be_set_is_told(tmp_path: Path) -> None:
    (tmp_path / "host-1" / "memory.max").mkdir(parents=True)
    assert not limits.ControlGroups(version=2, folders=(tmp_path,)).place("host-1", 4321, RESOURCES)
    assert not (tmp_path / "host-1" / "cgroup.procs").exists()


def test_what_is_passed_on_already_is_not_asked_for_again(tmp_path: Path) -> None:
    limits.detect(second(tmp_path, passed_on="cpu memory"))
    assert (tmp_path / "cgroup.subtree_control").read_text() == "cpu memory"


@pytest.mark.parametrize("controllers", ["", "cpu io", "memory"])
def test_without_both_controllers_nothing_is_promised(tmp_path: Path, controllers: str) -> None:
    assert limits.detect(second(tmp_path, controllers=controllers)) == limits.NONE


def test_where_controllers_are_not_delegated_nothing_is_promised(tmp_path: Path) -> None:
    root = second(tmp_path)
    (root / limits.GROUP / "cgroup.subtree_control").unlink()
    assert limits.detect(root) == limits.NONE


def test_a_machine_without_control_groups(tmp_path: Path) -> None:
    assert limits.detect(tmp_path) == limits.NONE
    assert not limits.NONE.place("host-1", os.getpid(), RESOURCES)


@pytest.mark.skipif(not limits.detect().folders, reason="control groups can't be written here")
def test_the_system_limits_a_process() -> None:
    groups = limits.detect()
    eater = "import sys; sys.stdin.readline(); held = [bytearray(b'x' * 2**20) for _ in range(1024)]"
    process = subprocess.Popen([sys.executable, "-c", eater], stdin=subprocess.PIPE, text=True)
    try:
        assert groups.place("chimera-test", process.pid, RESOURCES)
        process.communicate("go\n", timeout=60)
        assert process.returncode == -9
    finally:
        process.kill()
        process.wait()
        groups.remove("chimera-test")
    assert not any((folder / "chimera-test").exists() for folder in groups.folders)


def test_groups_left_behind_are_swept(tmp_path: Path) -> None:
    groups = limits.detect(second(tmp_path))
    for name in ("left", "used"):
        (tmp_path / limits.GROUP / name).mkdir()
    (tmp_path / limits.GROUP / "used" / "cgroup.procs").write_text("1")
    groups.sweep()
    assert (tmp_path / limits.GROUP / "left").exists(), "it may be about to be used"
    groups.sweep(older=-1.0)
    assert [one.name for one in (tmp_path / limits.GROUP).iterdir() if one.is_dir()] == ["used"]
