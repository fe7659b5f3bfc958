"""The port `Scans` without processes of its own."""

import asyncio

from chimera.adapters.scanners.knowing import Knowing
from chimera.delivery.scanning.model import Report
from chimera.delivery.scanning.packed import Ask, scan_packed


class InlineScans:
    """Scans in a thread of the test."""

    def __init__(self, knowing: Knowing) -> None:
        """By what it knows."""
        self._knowing = knowing

    async def scan(self, ask: Ask) -> Report:
        """See `Scans`."""
        knowledge = await self._knowing.knowledge(ask.scanner, [one.value for one in ask.agents])
        return await asyncio.to_thread(scan_packed, ask, knowledge)
