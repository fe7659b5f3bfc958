"""How much memory there is for this process and those it starts: the machine's, or less where control groups bound it.

A container's bound ends all of its processes together (`memory.oom.group`), so whoever starts processes beside itself
gives each a part that leaves room for all.
"""

import os
from collections.abc import Iterator
from pathlib import Path

OWN = 512 * 1024**2
"""Bytes that the process keeps for itself."""
LEAST = 512 * 1024**2
"""With less, a process can't even start."""


def memory_there(groups: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that this process may use with all that it starts, by cgroups(7), versions 1 and 2."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_bounds(groups, process)])


def share(there: int, processes: int) -> int:
    """Bytes for each of so many processes beside this one."""
    return max(LEAST, (there - OWN) // max(1, processes))


def _bounds(groups: Path, process: Path) -> Iterator[int]:
    try:
        lines = process.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, name = groups, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = groups / "memory", "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be the machine's and not be there: then the root is the container's own group.
        here = root / path.strip("/")
        for folder in (here, *here.parents):
            yield from _read(folder / name)
            if folder == root:
                break


def _read(file: Path) -> Iterator[int]:
    try:
        text = file.read_text().strip()
    except OSError:
        return
    if text.isdigit():  # no bound is "max"
        yield int(text)
