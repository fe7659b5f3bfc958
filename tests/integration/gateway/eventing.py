"""What the tests of events share: settings that make haste, facts, and waiting for what comes true."""

import asyncio
from collections.abc import Callable
from typing import Any

from chimera.adapters.storage.journal import journal
from chimera.events.model import Fact
from chimera.kernel.ids import new_id

TENANT = "/v1/tenants/default"
QUICK = {
    **{"poll": 0.02, "save": 0.02, "lease": 2.0, "allow": "127.0.0.0/8", "timeout": 0.5, "connect_timeout": 0.5},
    **{"backoff": 0.02, "backoff_cap": 0.05, "attempts": 4, "source": "https://chimera.example"},
}


async def happen(world: Any, *subjects: str, tenant: str = "default", size: int = 0) -> None:
    def job(connection: Any) -> None:
        for subject in subjects:
            data = {"name": subject + "x" * size, "by": "system:test"}
            fact = Fact(id=new_id("evt"), type="tenant.resumed", tenant=tenant, subject=subject, at=5.0, data=data)
            journal(connection).fact(fact)

    await world.database.write(job)


async def until(holds: Callable[[], Any], within: float = 20.0) -> Any:
    async with asyncio.timeout(within):
        while True:
            if found := await holds():
                return found
            await asyncio.sleep(0.02)
