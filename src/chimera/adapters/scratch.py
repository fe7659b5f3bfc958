"""Folders for large temporary files, which go though the process that made them is killed.

All of one process are below one folder, which is locked (flock(2)) while it is in use: the kernel lets go of a lock
when its process ends, however it ends. Whoever makes its own removes those that nobody holds.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

PREFIX = "chimera-scratch."


class Scratch:
    """Folders of this process. They are made, and others' remains removed, when the first one is wanted."""

    def __init__(self) -> None:
        """Nothing is there yet."""
        self._base: Path | None = None
        self._lock = -1

    def make(self) -> Path:
        """A new folder."""
        if self._base is None:
            _sweep(Path(tempfile.gettempdir()))
            self._base, self._lock = _locked()
        return Path(tempfile.mkdtemp(dir=self._base))

    def close(self) -> None:
        """Remove all of them."""
        if self._base is not None:
            shutil.rmtree(self._base, ignore_errors=True)
            os.close(self._lock)
            self._base = None


def _locked() -> tuple[Path, int]:
    """A folder of our own with its lock; a sweep may have come between making and locking it."""
    while True:
        made = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # on a disk without locks nobody removes what others left
            fcntl.flock(lock, fcntl.LOCK_EX)
        if made.exists():
            return made, lock
        os.close(lock)


def _sweep(folder: Path) -> None:
    for left in folder.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # it is another's, in use, or gone
            lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)
