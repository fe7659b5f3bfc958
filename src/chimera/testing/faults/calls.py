"""Faults in the file calls and the wall clock of real processes: an `LD_PRELOAD` library, made when a test needs it.

It stands between the processes and the C library, so what fails is what a full or broken disk fails: `pwrite` says
ENOSPC, `fdatasync` says EIO. Nothing in the product knows of it. (libfiu and libfaketime each do a part of this; no
registry has them.)
"""

import errno
import mmap
import shutil
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

SOURCE: Final = Path(__file__).with_name("preload.c")
LAYOUT: Final = struct.Struct("=iiqq256s")
FAILED_AT: Final = 16


def compiler() -> str | None:
    """A C compiler of this machine, if there is one."""
    return shutil.which("cc") or shutil.which("gcc")


class Faults:
    """What goes wrong in the processes that were started with `environ`; nothing at first.

    Args:
        folder: where the library and the file of faults go.
        path: files whose path holds this text are meant, up to 255 bytes.

    Raises:
        RuntimeError: this machine has no C compiler.
        subprocess.CalledProcessError: it refused the library.
    """

    def __init__(self, folder: Path, path: str) -> None:
        """Make the library."""
        if (compile_ := compiler()) is None:
            raise RuntimeError("faults in file calls need a C compiler (cc)")
        library, shared = folder / "faults.so", folder / "faults"
        subprocess.run([compile_, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)
        self._path = path.encode()
        shared.write_bytes(LAYOUT.pack(0, 0, 0, 0, self._path))
        with shared.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), LAYOUT.size)
        self.environ = {"LD_PRELOAD": str(library), "CHIMERA_FAULTS": str(shared)}

    def __enter__(self) -> Self:
        """The same."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Let the file go."""
        self._map.close()

    def fail(self, *, write: int = 0, sync: int = 0) -> None:
        """From here on writes and syncs of these files fail so (an `errno`); 0: they don't."""
        struct.pack_into("=ii", self._map, 0, write, sync)

    def set_clock(self, offset: int) -> None:
        """The wall clock is this many seconds off; the monotonic one never is."""
        struct.pack_into("=q", self._map, 8, offset)

    @property
    def failed(self) -> int:
        """How many calls have failed so far."""
        return int(struct.unpack_from("=q", self._map, FAILED_AT)[0])


KINDS: Final = {
    "the disk is full": {"write": errno.ENOSPC},
    "writing fails": {"write": errno.EIO},
    "syncing fails": {"sync": errno.EIO},
}
