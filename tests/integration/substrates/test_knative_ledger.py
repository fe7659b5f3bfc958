"""The ledger: public keys and checkpoints in a ConfigMap, by whichever control plane holds the lease."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from chimera.adapters.signing.ed25519 import check_signature
from chimera.adapters.signing.ring import SecretRing
from chimera.adapters.storage.audit import AuditStorage
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.substrates.knative import places
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.ledger import KEPT_CHECKPOINTS, Ledger, LedgerKeys
from chimera.adapters.substrates.knative.rights import CONTROL_PLANE, RIGHTS
from chimera.bootstrap.audit_parts import ledger_checkpointer, sign_in_cluster
from chimera.immune.audit.checkpoint import Checkpoint, check
from chimera.immune.audit.checkpointer import Checkpointer
from chimera.immune.audit.errors import AuditAltered, AuditKeyUnusable
from chimera.immune.audit.note import parse_public_key
from chimera.immune.audit.settings import AuditSettings
from chimera.testing.audit import record
from chimera.testing.clock import ManualClock
from chimera.testing.cluster import FakeCluster


@dataclass
class Rig:
    """A cluster with an installation's ledger, and a log in a database."""

    cluster: FakeCluster
    api: Kubernetes
    ledger: Ledger
    store: AuditStorage
    key: Path
    written: int = 0

    def text(self, key: str) -> list[str]:
        found = self.cluster.object("configmaps", "chimera", places.LEDGER) or {}
        return str(found.get("data", {}).get(key, "")).splitlines()

    def checkpoints(self) -> list[Checkpoint]:
        return [msgspec.json.decode(line, type=Checkpoint) for line in self.text(places.CHECKPOINTS)]

    async def write(self, count: int) -> None:
        await self.store.record([record(self.written + number) for number in range(count)])
        self.written += count

    async def checkpointer(self, settings: AuditSettings | None = None) -> Checkpointer:
        made = settings or AuditSettings()
        return await asyncio.to_thread(ledger_checkpointer, self.store, self.ledger, self.key, made, ManualClock())


@pytest_asyncio.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[Rig]:
    async with FakeCluster() as cluster:
        await cluster.put("configmaps", places.ledger("chimera"))
        api = Kubernetes(ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="chimera"))
        key = tmp_path / "audit.key"
        key.write_text("a" * 44)
        ledger = Ledger(api, namespace="chimera", name=places.LEDGER)
        yield Rig(cluster, api, ledger, AuditStorage(database), key)
        await api.aclose()


async def test_checkpoints_are_made_and_vouched_for_beside_the_database(rig: Rig) -> None:
    await rig.write(5)
    first = await rig.checkpointer()
    assert [parse_public_key(line) for line in rig.text(places.AUDIT_KEYS)], "the key is known before it signs"
    made = await first.step(None, now_at_once=True)
    assert made is not None and made.size == 5
    keys = [parse_public_key(line) for line in rig.text(places.AUDIT_KEYS)]
    (kept,) = rig.checkpoints()
    assert check(kept, keys, check_signature).size == 5
    await rig.write(3)
    other = await rig.checkpointer()  # another control plane, which goes on
    await other.load()
    assert (await other.step(None, now_at_once=True) or made).size == 8
    assert [one.size for one in rig.checkpoints()] == [5, 8]
    assert len(rig.text(places.AUDIT_KEYS)) == 1


async def test_a_database_that_was_set_back_is_found_by_the_ledger(rig: Rig, database: Database) -> None:
    await rig.write(5)
    await (await rig.checkpointer()).step(None, now_at_once=True)
    await database.exclusive(lambda connection: connection.exec_driver_sql("DELETE FROM audit_checkpoint") and None)
    again = await rig.checkpointer()
    await again.load()
    with pytest.raises(AuditAltered, match="checkpoint of 5 entries"):
        await again.step(None, now_at_once=True)


async def test_the_newest_checkpoints_stay_and_the_ledger_does_not_grow(rig: Rig) -> None:
    checkpointer = await rig.checkpointer()
    for _ in range(KEPT_CHECKPOINTS + 3):
        await rig.write(1)
        await checkpointer.step(None, now_at_once=True)
    sizes = [one.size for one in rig.checkpoints()]
    assert sizes == list(range(4, KEPT_CHECKPOINTS + 4))


async def test_another_secret_is_another_key_and_what_the_one_before_signed_stays_good(rig: Rig) -> None:
    await rig.write(2)
    await (await rig.checkpointer()).step(None, now_at_once=True)
    rig.key.write_text("b" * 44)
    other = await rig.checkpointer()
    assert await other.is_ours()
    await other.load()
    await rig.write(1)
    assert await other.step(None, now_at_once=True) is not None
    assert len(rig.text(places.AUDIT_KEYS)) == 2
    rig.key.write_text("short")
    with pytest.raises(AuditKeyUnusable):
        await rig.checkpointer()


async def test_a_key_elsewhere_signs_and_the_ledger_says_which(rig: Rig) -> None:
    elsewhere = AuditSettings(key="elsewhere")
    with pytest.raises(AuditKeyUnusable, match="names no key"):
        await rig.checkpointer(elsewhere)
    await rig.checkpointer()
    await rig.write(1)
    checkpointer = await rig.checkpointer(elsewhere)
    assert await checkpointer.step(None, now_at_once=True) is None


async def test_without_an_archive_nothing_is_let_go(rig: Rig) -> None:
    settings = AuditSettings(keep_days=0.0001)
    checkpointer = await rig.checkpointer(settings)
    await rig.write(3)
    await checkpointer.step(None, now_at_once=True)
    leases = StoredLeases(rig.store._database)
    lease = await leases.acquire("audit", "one", 15.0)
    assert lease is not None
    await checkpointer.archive(lease)
    assert checkpointer.progress.archived == 0


async def test_of_several_control_planes_one_signs_and_goes_on_once_the_cluster_answers(
    rig: Rig, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chimera.bootstrap.audit_parts.KEY_RETRY", 0.05)
    await rig.write(1)
    rig.key.unlink()
    settings = AuditSettings(checkpoint_entries=1)
    loops = [
        asyncio.create_task(
            sign_in_cluster(
                rig.store,
                rig.ledger,
                rig.key,
                settings,
                ManualClock(),
                StoredLeases(database),
                owner=owner,
                life=15.0,
            )
        )
        for owner in ("one", "other")
    ]
    await asyncio.sleep(0.2)
    assert not rig.text(places.CHECKPOINTS)
    rig.key.write_text("a" * 44)
    async with asyncio.timeout(20):
        while not rig.text(places.CHECKPOINTS):  # noqa: ASYNC110 - it happens elsewhere
            await asyncio.sleep(0.02)
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    assert len(rig.text(places.AUDIT_KEYS)) == 1


async def test_provenance_keys_of_before_are_listed_and_each_writer_leaves_the_others_texts(rig: Rig) -> None:
    kept = LedgerKeys(rig.ledger, places.PROVENANCE_KEYS)

    def ring() -> SecretRing:
        return SecretRing(rig.key, kept)

    await (await rig.checkpointer()).step(None)
    first = (await asyncio.to_thread(ring().signer)).key_id
    rig.key.write_text("c" * 44)
    second = (await asyncio.to_thread(ring().signer)).key_id
    assert first != second
    assert list(await asyncio.to_thread(ring().public)) == [first, second]
    assert rig.text(places.PROVENANCE_KEYS) == [first, second] and rig.text(places.AUDIT_KEYS)
    rig.key.write_text("d" * 44)
    assert len(await asyncio.to_thread(ring().public)) == 3, "one that has not signed yet is listed, and not noted"
    assert len(rig.text(places.PROVENANCE_KEYS)) == 2


async def test_the_control_plane_may_do_with_the_ledger_what_it_does_and_no_more(rig: Rig) -> None:
    await rig.write(1)
    await (await rig.checkpointer()).step(None, now_at_once=True)
    (right,) = [one for one in RIGHTS[CONTROL_PLANE] if one.resource == "configmaps"]
    assert rig.cluster.verbs == {("chimera", "configmaps", verb) for verb in right.verbs}
    assert right.own and right.only == (places.LEDGER,)
