"""Log files stay bounded, and whoever follows them loses its place in none."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from chimera.adapters.substrates.local import logfiles
from chimera.entrypoints.node import logs

LINE = b'{"time":"%d","message":"x"}\n'


def test_a_long_log_is_moved_aside_and_its_writer_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "gateway.jsonl"
    writer = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(writer, LINE % 1 * 100)
        assert logfiles.bound(tmp_path, 100_000) == []
        assert logfiles.bound(tmp_path, 1000) == [file]
        os.write(writer, LINE % 2)
    finally:
        os.close(writer)
    assert file.read_bytes() == LINE % 2
    assert (tmp_path / "gateway.jsonl.1").read_bytes() == LINE % 1 * 100
    assert sorted(one.name for one in tmp_path.iterdir()) == ["gateway.jsonl", "gateway.jsonl.1"]


def test_what_is_no_log_is_left_alone(tmp_path: Path) -> None:
    for name in ("gateway.jsonl.1", "notes.txt"):
        (tmp_path / name).write_bytes(b"x" * 5000)
    assert logfiles.bound(tmp_path, 1000) == []


@given(st.lists(st.sampled_from(["write", "bound", "read"]), max_size=30))
def test_a_follower_sees_each_line_once_or_not_at_all(tmp_path_factory, steps: list[str]) -> None:
    folder = tmp_path_factory.mktemp("logs")
    file = folder / "gateway.jsonl"
    file.touch()
    position: logs.Position = {}
    seen: list[bytes] = []
    written = unread = 0
    for step in steps:
        if step == "write":
            written, unread = written + 1, unread + 1
            with file.open("ab") as target:
                target.write(b'{"time":"%03d"}\n' % written)
        elif step == "bound" and not unread:
            logfiles.bound(folder, 0)
        elif step == "read":
            seen += logs._added(folder, logs.LogQuery(), position)
            unread = 0
    seen += logs._added(folder, logs.LogQuery(), position)
    assert len(seen) == len(set(seen)) == written


async def test_following_ends_with_the_one_who_asked(tmp_path: Path) -> None:
    looks = iter((False, True))
    assert [line async for line in logs.follow(tmp_path, logs.LogQuery(), {}, lambda: next(looks))] == []


def test_a_line_without_a_time_stays_behind_the_one_before_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"time":"2"}\nTraceback\n')
    (tmp_path / "b.jsonl").write_bytes(b'{"time":"1"}\n{"time":"3"}\n')
    found = logs.read(tmp_path, logs.LogQuery(lines=3))[1]
    assert [b"Traceback" in line for line in found] == [False, True, False]
