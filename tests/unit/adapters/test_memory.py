"""How much memory there is: the least of the machine's and of the control groups' bounds, and parts of it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.adapters.memory import LEAST, OWN, memory_there, share

GIB = 1024**3


def there(folder: Path, groups: dict[str, str], process: str) -> int:
    for name, text in groups.items():
        file = folder / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "self").write_text(process)
    return memory_there(folder / "cgroup", folder / "self")


@pytest.mark.parametrize(
    ("groups", "process", "expected"),
    [
        ({"memory.max": "1073741824\n"}, "0::/\n", GIB),
        ({"a/memory.max": "max\n", "a/b/memory.max": str(GIB)}, "0::/a/b\n", GIB),
        ({"a/memory.max": str(GIB // 2), "a/b/memory.max": str(GIB)}, "0::/a/b\n", GIB // 2),
        ({"memory.max": str(GIB)}, "0::/kubepods/of/the/machine\n", GIB),
        ({"memory/memory.limit_in_bytes": str(GIB)}, "5:cpu,cpuacct:/x\n4:memory:/kubepods/x\n0::/\n", GIB),
        ({"memory/a/memory.limit_in_bytes": str(GIB)}, "4:memory,hugetlb:/a\n", GIB),
    ],
)
def test_a_control_group_bounds_memory(tmp_path: Path, groups: dict[str, str], process: str, expected: int) -> None:
    assert there(tmp_path, groups, process) == expected


@pytest.mark.parametrize(
    ("groups", "process"),
    [
        ({"a/memory.max": "max\n"}, "0::/a\n"),
        ({"memory/memory.limit_in_bytes": "9223372036854771712"}, "4:memory:/\n"),
        ({"b/memory.max": "1"}, "0::/a\n"),
        ({"a/memory.max": "1"}, "3:cpu:/a\n"),
    ],
)
def test_without_a_bound_it_is_the_machines(tmp_path: Path, groups: dict[str, str], process: str) -> None:
    machine = memory_there(tmp_path / "none", tmp_path / "none")
    assert there(tmp_path, groups, process) == machine > 0


@given(st.integers(0, 2**45), st.integers(1, 200))
def test_parts_leave_room_for_all_where_a_process_can_start_at_all(memory: int, processes: int) -> None:
    part = share(memory, processes)
    assert part >= LEAST
    assert part == LEAST or OWN + processes * part <= memory
