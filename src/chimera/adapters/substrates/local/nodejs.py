"""The Node.js program that runs agents of `node:18-alpine` on one machine.

Node 18 is past its end of life, so that name means the oldest supported release or a newer one. Which program it is,
the setting `node.node_program` says; without it, the runtime `node` where it is installed, else `node` on the path.
"""

import asyncio
import shutil
import subprocess
from pathlib import Path

from chimera.adapters.runtimes import Runtimes
from chimera.platform.errors import RuntimeMissing
from chimera.platform.model import NODE_HEAP_SHARE
from chimera_host.config import HostConfig

OLDEST = 20
ANSWER_TIMEOUT = 10.0


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


def look(command: str, runtimes: Runtimes) -> tuple[Path, str]:
    """The program that `command`, a name on the path or a file, leads to, and its version.

    Raises `RuntimeMissing` where there is none, or one that is too old.
    """
    step = (
        f"run `chimera runtime install node`, or install Node.js {OLDEST} or newer, or name it in the setting "
        "node.node_program, and try again"
    )
    if not command and (installed := runtimes.node()) is not None:
        return installed, version(installed)
    command = command or "node"
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

    def __init__(self, command: str, runtimes: Runtimes) -> None:
        """`command` is a name on the path, a file, or empty; see `look`."""
        self._command = command
        self._runtimes = runtimes
        self._script = runtimes.host_path() / "chimera_host" / "node" / "host.mjs"
        self._found: Path | None = None

    async def find(self) -> Path:
        """The program; raises `RuntimeMissing` where there is none, or one that is too old."""
        if self._found is None:
            self._found = (await asyncio.to_thread(look, self._command, self._runtimes))[0]
        return self._found

    async def command(self, config: HostConfig) -> tuple[str, ...]:
        """What starts a host, up to the options that name its descriptors."""
        heap = f"--max-old-space-size={int(config.memory_bytes * NODE_HEAP_SHARE) >> 20}"
        return str(await self.find()), heap, str(self._script)
