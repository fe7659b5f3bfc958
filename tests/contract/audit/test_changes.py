"""Changes leave their entry in the transaction that makes them, on both databases."""

import pytest

from chimera.adapters.storage.audit import AuditStorage
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.agents.catalogue import DuplicateNames
from chimera.immune.audit.model import AuditRecord, decode
from chimera.testing.definitions import compiled, staged


async def entries(database: Database) -> list[AuditRecord]:
    return [decode(one.entry) for one in await AuditStorage(database).entries(0, 100)]


async def test_each_agent_of_a_batch_and_each_deletion_is_recorded(database: Database) -> None:
    catalogue = Catalogue(database, max_hosts=4)
    both = staged(compiled("anna"), compiled("bert"))
    await catalogue.apply("default", both, keep_going=False, expect=None, by="key:k1")
    await catalogue.apply("default", both, keep_going=False, expect=None, by="key:k1")  # nothing changes
    again = staged(compiled("anna", metadata={"version": "2.0.0"}))
    await catalogue.apply("default", again, keep_going=False, expect=None, by="user:me")
    await catalogue.delete_agents("default", ["bert", "nobody"], by="key:k2")
    found = await entries(database)
    assert [(one.action, one.resource, one.actor, one.outcome) for one in found] == [
        ("agent.created", "agents/anna", "key:k1", "done"),
        ("agent.created", "agents/bert", "key:k1", "done"),
        ("agent.updated", "agents/anna", "user:me", "done"),
        ("agent.deleted", "agents/bert", "key:k2", "done"),
    ]
    assert found[2].detail["before"] == found[0].detail["revision"]


async def test_a_change_that_is_not_made_leaves_nothing(database: Database) -> None:
    catalogue = Catalogue(database, max_hosts=4)
    with pytest.raises(DuplicateNames):
        await catalogue.apply(
            "default", staged(compiled("anna"), compiled("anna")), keep_going=False, expect=None, by=None
        )
    assert await entries(database) == []
