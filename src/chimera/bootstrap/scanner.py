"""The process that scans what strangers sent: `python -m chimera.bootstrap.scanner`.

It has bounds of memory and time, holds nothing that a scan doesn't need, and answers one request after another:
`ScannerConfig` and then each `Ask` on its standard input, an `Answer` to each on its standard output, as frames.
"""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from chimera.adapters.framing import MOST_FRAME, bound, bound_cpu, framed, read_frame
from chimera.adapters.scanners.apart import Answer, Failed, Scanned
from chimera.adapters.scanners.knowing import Knowing, Places
from chimera.adapters.substrates.knative.render import HostBounds, pod_manifest
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.agents.compile import CanonicalDefinition
from chimera.delivery.scanning.packed import Ask, scan_packed
from chimera.delivery.scanning.settings import ScanningSettings
from chimera.kernel.clock import SystemClock
from chimera_host.contract.problem import ProblemError

MOST_FILE = 64 * 1024**3
"""Bytes of a file that a scan may write: a layer of an image is fetched into one."""


class ScannerConfig(Struct, frozen=True, kw_only=True):
    """The start of the process: `memory` in bytes and `seconds` of CPU bound it, its folders are those of `Places`."""

    scanning: ScanningSettings
    rendering: KnativeSettings
    bounds: HostBounds
    files: str
    secrets: str
    advisories: str | None
    mounted: bool
    memory: int
    seconds: float


def make_knowing(config: ScannerConfig) -> Knowing:
    """What scans need to know."""
    places = Places(
        files=Path(config.files),
        secrets=Path(config.secrets),
        advisories=None if config.advisories is None else Path(config.advisories),
        mounted=config.mounted,
    )

    def manifest(value: CanonicalDefinition) -> Mapping[str, Any] | None:
        return pod_manifest(value, config.rendering, config.bounds)

    return Knowing(config.scanning, SystemClock(), manifest, places)


async def answer(ask: Ask, knowing: Knowing, memory: int) -> Answer:
    """What is found, with so many bytes of memory."""
    try:
        knowledge = await knowing.knowledge(ask.scanner, [one.value for one in ask.agents])
        return Scanned(scan_packed(ask, knowledge))
    except ProblemError as error:
        return Failed(error.detail, error.next_step or "see the control plane's log")
    except MemoryError:
        return Failed(
            f"looking for {ask.scanner} takes more memory than the {memory >> 20} MiB that it may have",
            "take out of the source folders what unpacks to very much, or raise `scanning.memory_bytes`, and where "
            "that is more already what the machine or the pod has (`--control-plane-memory` in a cluster)",
        )


async def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Answer until the input ends."""
    if (first := await asyncio.to_thread(read_frame, source)) is None:
        return
    config = msgspec.msgpack.decode(first, type=ScannerConfig)
    knowing = make_knowing(config)
    bound(memory=config.memory, file_bytes=MOST_FILE)
    decoder = msgspec.msgpack.Decoder(Ask)
    while (data := await asyncio.to_thread(read_frame, source)) is not None:
        bound_cpu(config.seconds)
        said = framed(await answer(decoder.decode(data), knowing, config.memory))
        if len(said) > MOST_FRAME:
            said = framed(Failed("there is more to say than can be", "scan fewer agents with one change"))
        target.write(said)
        target.flush()


def main() -> None:
    """Run the process."""
    asyncio.run(serve(sys.stdin.buffer, sys.stdout.buffer))


if __name__ == "__main__":
    main()
