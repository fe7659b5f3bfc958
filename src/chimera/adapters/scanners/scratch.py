"""Folders that images are fetched into, which go though the process that has made them is killed.

Scans are killed when they take too long, and an image is large: what one has left is in the way of the next. Each
folder is locked while it is used, and the kernel lets go of a lock when its process ends, however it ends.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "chimera-image."


def clear() -> None:
    """Remove the folders that nobody uses any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), _held(folder):  # in use, gone, somebody else's, or on a disk without locks
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder, empty at first and gone afterwards."""
    with contextlib.ExitStack() as stack:
        while True:
            made = tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(made))
            try:
                stack.enter_context(_held(folder))
            except (BlockingIOError, FileNotFoundError):
                continue  # somebody has cleared it before it was locked
            except OSError:
                break  # where there are no locks, nobody clears
            if folder.is_dir():
                break
        yield folder


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock a folder; raises `BlockingIOError` where another has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
