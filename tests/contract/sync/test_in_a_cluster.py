"""Following from control planes in a cluster: folders are mounted, clones are caches, and one of several follows."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chimera.adapters.storage.leases import StoredLeases
from chimera.bootstrap.delivery_places import DeliveryPlaces, follow
from chimera.bootstrap.sync_parts import SyncParts
from chimera.delivery.git.sources import SourceState
from chimera.testing.git_server import GitServer

from .conftest import Sync

PASSWORD = "a password"
GIB = 1024**3


@pytest.fixture
def server(sync: Sync) -> Iterator[GitServer]:
    sync.commit(sync.repository.agents("ann", "bob"), "Begin")
    made = GitServer(sync.repository.folder.parent, password=PASSWORD).start()
    yield made
    made.stop()


class Pod:
    """A control plane's part that follows, with folders as the kubelet mounts them."""

    def __init__(self, sync: Sync, server: GitServer, folder: Path) -> None:
        self.secrets, self.copies = folder / "secrets", folder / "repositories"
        self.copies.mkdir(parents=True)
        self.mount("wrong")
        self._places = DeliveryPlaces(
            namespace="chimera",
            ledger="chimera-ledger",
            repositories=str(self.copies),
            secrets=str(self.secrets),
            scanning=str(folder),
        )
        made = follow(
            sync.database,
            sync.catalogue,
            sync.changes,
            lambda: None,
            group={"hosts": [server.host], "insecure_hosts": [server.host], "poll": 0.05, "longest_wait": 1.0},
            home=None,
            places=self._places,
            environ={},
            memory=GIB,
        )
        assert made is not None
        self.parts: SyncParts = made

    def mount(self, value: str) -> None:
        """A Secret's key, behind the links that the kubelet exchanges; anybody in the pod may read it."""
        data = self.secrets / f"..{value.replace(' ', '-')}"
        data.mkdir(parents=True)
        (data / "git_default_token").write_text(value)
        (data / "git_default_token").chmod(0o444)
        link, new = self.secrets / "..data", self.secrets / "..data_tmp"
        new.symlink_to(data.name)
        new.rename(link)
        key = self.secrets / "git_default_token"
        if not key.is_symlink():
            key.symlink_to("..data/git_default_token")


async def until(sync: Sync, wanted: Callable[[SourceState], bool]) -> SourceState:
    """The source's state once it is as wanted; a webhook says again and again that there is something to see."""
    async with asyncio.timeout(90):
        while not wanted(state := (await sync.source()).state):
            await sync.confirm()
            await asyncio.sleep(1.0)
    return state


async def test_one_of_two_follows_by_a_mounted_secret_and_the_other_takes_over_with_a_clone_of_its_own(
    sync: Sync, server: GitServer, tmp_path: Path
) -> None:
    url = server.url(f"{sync.repository.folder.name}/.git")
    await sync.add(url=url, credential="secret:git_default_token", interval=5.0)
    pods = [Pod(sync, server, tmp_path / f"pod-{number}") for number in range(2)]
    await StoredLeases(sync.database).release(sync.lease)
    loops = [asyncio.create_task(pod.parts.loop()) for pod in pods]
    state = await until(sync, lambda one: one.phase == "unreachable")
    assert "credential" in state.next_step or "credential" in state.reason
    for pod in pods:
        pod.mount(PASSWORD)  # as a rotated Secret comes: nothing is started anew
    first = await until(sync, lambda one: one.phase == "current")
    assert set(await sync.live()) == {"ann", "bob"} and first.agents == 2
    having = [pod for pod in pods if any(pod.copies.iterdir())]
    assert len(having) == 1, "one follows"
    gone = pods.index(having[0])
    loops[gone].cancel()  # its pod goes, and its clone with it; the lease is given back
    await asyncio.gather(loops[gone], return_exceptions=True)
    commit = sync.commit(sync.repository.agents("carl"), "Another")
    last = await until(sync, lambda one: one.commit == commit)
    assert set(await sync.live()) == {"ann", "bob", "carl"} and last.agents == 3
    assert any(pods[1 - gone].copies.iterdir())
    loops[1 - gone].cancel()
    await asyncio.gather(*loops, return_exceptions=True)


async def test_where_there_is_neither_home_nor_mounted_folder_nothing_follows(sync: Sync) -> None:
    nothing = follow(
        sync.database,
        sync.catalogue,
        sync.changes,
        lambda: None,
        group={},
        home=None,
        places=None,
        environ={},
        memory=GIB,
    )
    assert nothing is None
