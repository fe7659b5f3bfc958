"""What processes cost, read from /proc: CPU seconds of a whole process tree, and memory by proportional set size.

Pages that hosts share with the zygote they were forked from count once in all (PSS); resident set size would count
them once for each host.
"""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Process:
    """One process: its id, its parent's, and its CPU seconds with those of children that ended."""

    pid: int
    parent: int
    cpu: float


def processes() -> dict[int, Process]:
    """All processes of the machine."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                fields = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            ticks = sum(map(int, fields[11:15]))
            found[int(entry.name)] = Process(int(entry.name), int(fields[1]), ticks / _TICKS)
    return found


def tree(root: int) -> list[Process]:
    """`root` and everything below it."""
    known = processes()
    below: dict[int, list[int]] = {}
    for process in known.values():
        below.setdefault(process.parent, []).append(process.pid)
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        if pid in known:
            found.append(known[pid])
        waiting.extend(below.get(pid, ()))
    return found


def cpu_seconds(*roots: int) -> float:
    """CPU seconds that the trees below `roots` have used so far, ended children included."""
    return sum(process.cpu for root in roots for process in tree(root))


def proportional(pid: int) -> int:
    """Proportional set size in bytes; 0 for a process that is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def tree_memory(root: int, without: frozenset[int] = frozenset()) -> int:
    """Proportional set size of everything below `root`, in bytes."""
    return sum(proportional(process.pid) for process in tree(root) if process.pid not in without)


def describe() -> dict[str, str | int]:
    """The machine, for the report."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = int(Path("/proc/meminfo").read_text().split()[1]) // 1024
    uname = os.uname()
    return {
        "processor": model or uname.machine,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory,
        "kernel": f"{uname.sysname} {uname.release}",
    }
