"""The queue on both databases, and how tests put something into it."""

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from chimera.adapters.storage.database import Database
from chimera.adapters.storage.tasks.store import TaskStorage
from chimera.gateway.tasks.model import Submission, TaskRequest
from chimera.kernel.ids import new_id
from chimera_host.contract.call import Message

KEEP, LEASE = 1_000.0, 15.0
MakeSubmission = Callable[..., Submission]


def submission(agent: str = "anna", *, key: str | None = None, text: str = "do it", **fields: Any) -> Submission:
    request = TaskRequest(messages=(Message(role="user", content=text),), principal=b"{}")
    return Submission(
        tenant=fields.pop("tenant", "default"),
        task=new_id("task"),
        agent=agent,
        request=msgspec.json.encode(request),
        digest=text.encode(),
        deadline=fields.pop("deadline", time.time() + 1_000),
        key=None if key is None else key.encode(),
        actor="key:one",
        **fields,
    )


@pytest.fixture
def store(database: Database) -> TaskStorage:
    return TaskStorage(database, keep=KEEP, lease=LEASE)
