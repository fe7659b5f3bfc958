"""Looks into images by their names: a file or folder that is there, else a registry's; each once, one after the other.

An image that can't be had or read is a result too, and not an error: whoever asked must hear that it wasn't judged.
"""

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import aiohttp

from chimera.adapters.scanners.image_files import image_files
from chimera.adapters.scanners.registry import Registry, read_credentials
from chimera.adapters.scratch import Scratch
from chimera.delivery.scanning.dependencies import Against
from chimera.delivery.scanning.errors import ImageUnreadable
from chimera.delivery.scanning.images import scan_image
from chimera.delivery.scanning.model import Place, Result, Unjudged


async def look_into(
    names: Iterable[str],
    against: Against,
    allowed: Collection[str],
    *,
    only: Sequence[str] | None,
    credentials: Path | None,
    largest: int,
) -> dict[str, list[Result]]:
    """What is found in each image; of a registry, in one of `largest` bytes at most.

    With `only`, names are those of these registries, and never files.
    """
    found: dict[str, list[Result]] = {}
    names = list(dict.fromkeys(names))
    if not names:
        return found
    # The client answers no faster than layers come; its own limits are the registry's here.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
        for name in names:
            try:
                shown = read_credentials(credentials) if credentials else {}
                if only is None and await asyncio.to_thread(Path(name).exists):
                    found[name] = await asyncio.to_thread(_scan, Path(name), name, against, allowed)
                    continue
                with contextlib.closing(Scratch()) as scratch:
                    layout = await asyncio.to_thread(scratch.make) / "layout"
                    await Registry(session, only=only, credentials=shown, largest=largest).fetch(name, layout)
                    found[name] = await asyncio.to_thread(_scan, layout, name, against, allowed)
            except ImageUnreadable as error:
                found[name] = [
                    Unjudged(
                        scanner="images",
                        message=error.detail,
                        next_step=error.next_step or "build and push it anew",
                        place=Place(file=name),
                    )
                ]
    return found


def _scan(path: Path, name: str, against: Against, allowed: Collection[str]) -> list[Result]:
    results: list[Result] = []
    with image_files(path, name=name) as images:
        for image in images:
            results.extend(scan_image(image, against, allowed))
    return results
