"""Keeps the processes' log files bounded: a file that has grown too long is moved aside once, and starts again.

Processes hold their logs open by descriptor, in append mode, so a file is copied and then emptied, as logrotate's
`copytruncate` does it: a line that is written in the microseconds between the two may be lost, which a log can bear.
One part is kept of each, so that a process takes at most about twice the bound.
"""

import os
from pathlib import Path

KEPT = ".1"
"""The ending of a log's part that was moved aside."""
PIECE = 1024 * 1024


def bound(folder: Path, most: int) -> list[Path]:
    """Move aside the content of each log in `folder` of more than `most` bytes; which ones. Costs a stat for each."""
    moved = []
    for entry in os.scandir(folder):
        if not entry.name.endswith(".jsonl"):
            continue
        try:
            if entry.stat().st_size > most:
                _start_again(Path(entry.path))
                moved.append(Path(entry.path))
        except FileNotFoundError:
            continue
    return moved


def _start_again(file: Path) -> None:
    kept = file.with_name(file.name + KEPT)
    partial = kept.with_name(kept.name + ".partial")
    with file.open("r+b") as source, partial.open("wb") as target:
        while piece := source.read(PIECE):
            target.write(piece)
        source.truncate(0)
    partial.replace(kept)
