"""Revisions read together, on both databases."""

from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.testing.definitions import compiled, staged


async def test_many_revisions_are_read_at_once_and_what_is_not_kept_is_left_out(database: Database) -> None:
    catalogue = Catalogue(database, max_hosts=7)
    agents = [compiled(f"agent-{number:04d}") for number in range(3)]
    await catalogue.apply("default", staged(*agents), keep_going=False, expect=None, by="user:x")
    wanted = [one.digest for one in agents] + ["sha256:" + "0" * 64, agents[0].digest]
    found = await catalogue.compiled_many("default", wanted)
    assert found == {one.digest: one for one in agents}
    assert await catalogue.compiled_many("another", wanted) == {}
    assert await catalogue.compiled_many("default", []) == {}
    one = await catalogue.compiled("default", agents[1].digest)
    assert one == found[agents[1].digest]
