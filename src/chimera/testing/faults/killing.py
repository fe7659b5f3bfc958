"""Kill -9 of a platform's processes, found as the supervisor's descendants."""

import os
import random
import signal
from pathlib import Path
from typing import Final

PARTS: Final = ("control-plane", "gateway", "host")


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                # "pid (name) state ppid …"; the name may hold anything, a bracket too.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            found.setdefault(parent, []).append(int(entry.name))
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def processes(supervisor: int) -> dict[str, list[int]]:
    """Process ids of each part of the platform that this supervisor runs; hosts are what the zygotes forked."""
    children = _children()
    found: dict[str, list[int]] = {part: [] for part in PARTS}
    for pid in children.get(supervisor, ()):
        command = _command(pid)
        if "chimera.bootstrap.control_plane" in command:
            found["control-plane"].append(pid)
        elif "chimera.bootstrap.gateway" in command:
            found["gateway"].append(pid)
        elif " zygote " in command:
            found["host"] += children.get(pid, ())
    return found


def kill(supervisor: int, part: str, moments: random.Random | None = None) -> list[int]:
    """Kill one process of a part, or `all` of all parts at once; who was killed."""
    running = processes(supervisor)
    if part == "all":
        victims = [pid for pids in running.values() for pid in pids]
    else:
        victims = [(moments or random).choice(running[part])] if running[part] else []
    killed = []
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed.append(pid)
    return killed
