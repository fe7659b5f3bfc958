"""Real limits for a host's process, where the system has them: memory and CPU by control groups.

Version 2 and version 1 of control groups are both served; where neither can be written (no root, no delegation,
another system) nothing is limited here, and the node agent's own look at resident memory is what is left.
`chimera doctor` tells which of the two holds. CPU is a share, not a cap: an idle core is never withheld from anybody.
"""

import contextlib
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from chimera.platform.model import ResourceClass

ROOT = Path("/sys/fs/cgroup")
GROUP = "chimera"
DEFAULT_SHARES = 1024
DEFAULT_WEIGHT = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlGroups:
    """Where groups can be made: one folder in version 2, one for each controller in version 1; empty for none."""

    version: int
    folders: tuple[Path, ...]

    def place(self, name: str, pid: int, resources: ResourceClass) -> bool:
        """Put the process `pid` under the limits of its resource class; False where that can't be done."""
        try:
            for folder in self.folders:
                group = folder / name
                group.mkdir(parents=True, exist_ok=True)
                for file, value in self._values(group, resources):
                    (group / file).write_text(value)
                (group / "cgroup.procs").write_text(str(pid))
        except OSError:
            self.remove(name)
            return False
        return bool(self.folders)

    def remove(self, name: str) -> None:
        """Remove the group of a process that has ended; a group that isn't empty yet stays for `sweep`."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                (folder / name).rmdir()

    def sweep(self, *, older: float = 60.0) -> None:
        """Remove empty groups that processes left behind, of any home; a younger one may be about to be used.

        A group with a process in it can't be removed, so this is safe at any time.
        """
        for folder in self.folders:
            with contextlib.suppress(OSError):
                for group in [entry for entry in folder.iterdir() if entry.is_dir()]:
                    with contextlib.suppress(OSError):
                        if time.time() - group.stat().st_mtime > older:
                            group.rmdir()

    def _values(self, group: Path, resources: ResourceClass) -> list[tuple[str, str]]:
        if self.version == 2:
            weight = max(1, min(10_000, DEFAULT_WEIGHT * resources.cpu_millicores // 1000))
            return [("memory.max", str(resources.memory_bytes)), ("cpu.weight", str(weight))]
        if (group / "memory.limit_in_bytes").exists():
            return [("memory.limit_in_bytes", str(resources.memory_bytes))]
        return [("cpu.shares", str(max(2, DEFAULT_SHARES * resources.cpu_millicores // 1000)))]


NONE = ControlGroups(version=0, folders=())


def bound_files(pid: int, most: int) -> None:
    """Bound the descriptors of a process that doesn't bound them itself; nothing where the system can't."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (wanted, wanted))


def detect(root: Path = ROOT) -> ControlGroups:
    """What this machine lets this user do."""
    if (root / "cgroup.controllers").exists():
        return ControlGroups(version=2, folders=(root / GROUP,)) if _delegated(root) else NONE
    folders = tuple(root / name for name in ("memory", "cpu") if os.access(root / name / "cgroup.procs", os.W_OK))
    if len(folders) == 2:
        return ControlGroups(version=1, folders=tuple(folder / GROUP for folder in folders))
    return NONE


def _delegated(root: Path) -> bool:
    """Whether groups below ours can have limits: each level has to pass the controllers on to the next (cgroups(7))."""
    if not {"memory", "cpu"} <= set((root / "cgroup.controllers").read_text().split()):
        return False
    try:
        (root / GROUP).mkdir(exist_ok=True)
        for folder in (root, root / GROUP):
            passed_on = (folder / "cgroup.subtree_control").read_text().split()
            if not {"memory", "cpu"} <= set(passed_on):
                (folder / "cgroup.subtree_control").write_text("+memory +cpu")
    except OSError:
        return False
    return True
