"""The Node.js program that runs agents of `node:18-alpine` on one machine.

Node 18 is past its end of life, so that name means the oldest supported release or a newer one.
"""

import asyncio
import shutil
import subprocess
from pathlib import Path

from chimera.platform.errors import RuntimeMissing
from chimera_host.config import HostConfig

OLDEST = 20
ANSWER_TIMEOUT = 10.0
HEAP_SHARE = 0.75
"""Of a host's memory; V8's own code, buffers and stacks take the rest."""


def version(program: Path) -> str:
    """What `program --version` says, such as `v22.1.0`; empty where it says nothing in time."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False, timeout=ANSWER_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def supported(said: str) -> bool:
    """Whether a version is one that the Node host runs on."""
    major = said.removeprefix("v").partition(".")[0]
    return major.isdigit() and int(major) >= OLDEST


def look(command: str) -> tuple[Path, str]:
    """The program that `command`, a name on the path or a file, leads to, and its version.

    Raises `RuntimeMissing` where there is none, or one that is too old.
    """
    step = f"install Node.js {OLDEST} or newer, or name it in the setting node.node_program, and try again"
    found = shutil.which(command)
    if found is None:
        raise RuntimeMissing(f"agents on Node need the program {command!r}, which is not there", next_step=step)
    said = version(Path(found))
    if not supported(said):
        raise RuntimeMissing(
            f"{found} is {said or 'no Node.js'}; agents on Node need {OLDEST} or newer", next_step=step
        )
    return Path(found), said


class NodeProgram:
    """Finds the program once."""

    def __init__(self, command: str, host_path: Path) -> None:
        """`command` is a name on the path or a file; `host_path` the folder that holds the host's package."""
        self._command = command
        self._script = host_path / "chimera_host" / "node" / "host.mjs"
        self._found: Path | None = None

    async def find(self) -> Path:
        """The program; raises `RuntimeMissing` where there is none, or one that is too old."""
        if self._found is None:
            self._found = (await asyncio.to_thread(look, self._command))[0]
        return self._found

    async def command(self, config: HostConfig) -> tuple[str, ...]:
        """What starts a host, up to the options that name its descriptors."""
        heap = f"--max-old-space-size={int(config.memory_bytes * HEAP_SHARE) >> 20}"
        return str(await self.find()), heap, str(self._script)
