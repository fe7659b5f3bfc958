"""A log with signed checkpoints, on both databases."""

from pathlib import Path

import pytest

from chimera.adapters.storage.database import Database
from chimera.testing.audit import AuditLog


@pytest.fixture
def audit_log(database: Database, tmp_path: Path) -> AuditLog:
    return AuditLog(database, tmp_path)


@pytest.fixture
async def signed(audit_log: AuditLog) -> AuditLog:
    """Forty entries: checkpoints of 10, 20 and 30, and ten entries after the last."""
    for _ in range(3):
        await audit_log.write(10)
        await audit_log.sign()
    await audit_log.write(10)
    return audit_log
