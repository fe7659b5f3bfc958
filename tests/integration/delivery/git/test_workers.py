"""Repositories over HTTP and on this machine, by processes that are killed when they take too long."""

import asyncio
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from chimera.adapters.git.workers import WorkerRepositories
from chimera.delivery.git.errors import GitError, RepositoryTooLarge, Unreachable
from chimera.delivery.git.ports import Remote
from chimera.delivery.git.settings import SyncSettings
from chimera.testing.git_server import GitServer
from chimera.testing.repositories import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "served/catalogue.git")
    made.commit(made.agents("ann", "bob"), "Begin")
    return made


@pytest.fixture
def server(repository: Repository) -> Iterator[GitServer]:
    made = GitServer(repository.folder.parent, password="a password").start()
    yield made
    made.stop()


@pytest.fixture
async def repositories(tmp_path: Path) -> AsyncIterator[WorkerRepositories]:
    made = WorkerRepositories(tmp_path / "copies", SyncSettings(look_timeout=20.0, fetch_timeout=30.0))
    yield made
    await made.aclose()


def remote(server: GitServer, **more: str) -> Remote:
    wanted = {"branch": "main", "username": "git", "password": "a password"} | more
    return Remote(url=server.url("catalogue.git/.git"), **wanted)


async def read(repositories: WorkerRepositories, key: str, commit: str, files: tuple[str, ...]) -> list[str]:
    return [one.file async for some in repositories.read(key, commit, files) for one in some]


async def test_a_branch_is_fetched_bit_by_bit(
    repository: Repository, server: GitServer, repositories: WorkerRepositories
) -> None:
    first = await repositories.tip(remote(server))
    told = await repositories.fetch("one", remote(server), first, None)
    assert (told.subject, told.author, told.forward) == ("Begin", "ann@example.com", None)
    touched = await repositories.compare("one", None, first, "agents")
    assert touched.changed == ("agents/ann.yaml", "agents/bob.yaml")
    assert await read(repositories, "one", first, touched.changed) == list(touched.changed)
    repository.commit({"agents/large.txt": "x" * 100_000} | repository.agents("ann", description="Better."))
    second = await repositories.tip(remote(server))
    before = server.sent
    told = await repositories.fetch("one", remote(server), second, first)
    assert told.forward is True
    assert server.sent - before < 10_000
    touched = await repositories.compare("one", first, second, "agents")
    assert touched.changed == ("agents/ann.yaml", "agents/large.txt")
    assert await read(repositories, "one", second, (*touched.changed, "agents/gone.yaml")) == ["agents/ann.yaml"]
    asked = len(server.requests)
    assert (await repositories.fetch("one", remote(server), second, first)).forward is True
    assert len(server.requests) == asked


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"password": "another"}, "does not let us in"),
        ({"branch": "other"}, "there is no branch 'other'"),
        ({"url": "missing.git"}, "is no repository"),
    ],
)
async def test_what_is_wrong_is_said(
    server: GitServer, repositories: WorkerRepositories, more: dict[str, str], said: str
) -> None:
    wanted = remote(server, **{key: value for key, value in more.items() if key != "url"})
    if "url" in more:
        wanted = Remote(url=server.url(more["url"]), branch="main", username="git", password="a password")
    with pytest.raises(Unreachable, match=said) as caught:
        await repositories.tip(wanted)
    assert "password" not in caught.value.detail


async def test_a_server_that_leads_elsewhere_is_not_followed(
    repository: Repository, server: GitServer, repositories: WorkerRepositories
) -> None:
    other = GitServer(repository.folder.parent).start()
    server.redirect = f"http://{other.host}"
    with pytest.raises(Unreachable, match="302"):
        await repositories.tip(remote(server))
    assert not other.requests
    other.stop()


async def test_one_that_takes_too_long_is_given_up(server: GitServer, tmp_path: Path) -> None:
    hasty = WorkerRepositories(tmp_path / "copies", SyncSettings(look_timeout=1.0))
    server.hold.clear()
    with pytest.raises(Unreachable, match="longer than 1 s"):
        await hasty.tip(remote(server))
    server.hold.set()
    await hasty.aclose()


async def test_one_that_is_too_large_is_given_up(repository: Repository, server: GitServer, tmp_path: Path) -> None:
    import random

    repository.commit({"large.bin": random.Random(1).randbytes(3 * 1024**2).hex()})
    small = WorkerRepositories(tmp_path / "copies", SyncSettings(repository_bytes=1024**2))
    with pytest.raises(RepositoryTooLarge):
        await small.fetch("one", remote(server), await small.tip(remote(server)), None)
    here = Remote(url=repository.url, branch="main", folder=f"{repository.folder}/.git")
    with pytest.raises(GitError):
        await small.fetch("two", here, await small.tip(here), None)
    await small.aclose()


async def test_a_file_that_unpacks_to_very_much_is_given_up(
    repository: Repository, server: GitServer, tmp_path: Path
) -> None:
    repository.commit({"agents/bomb.yaml": "schema_version: x\n" + " " * (400 * 1024**2)})
    bounded = WorkerRepositories(tmp_path / "copies", SyncSettings(memory_bytes=512 * 1024**2))
    tip = await bounded.tip(remote(server))
    with pytest.raises(GitError):
        await bounded.fetch("one", remote(server), tip, None)
        await read(bounded, "one", tip, ("agents/bomb.yaml",))
    await bounded.aclose()


async def test_a_process_that_is_killed_is_replaced(server: GitServer, repositories: WorkerRepositories) -> None:
    tip = await repositories.tip(remote(server))
    (idle,) = repositories._workers._idle
    idle.process.kill()
    await idle.process.wait()
    assert await repositories.tip(remote(server)) == tip


async def test_a_process_that_is_killed_while_it_reads_is_said(
    server: GitServer, repositories: WorkerRepositories
) -> None:
    tip = await repositories.tip(remote(server))
    (idle,) = repositories._workers._idle
    idle.process.send_signal(signal.SIGSTOP)
    asking = asyncio.create_task(repositories.tip(remote(server)))
    async with asyncio.timeout(30):
        while repositories._workers.idle:  # noqa: ASYNC110 - it is asked as soon as it isn't
            await asyncio.sleep(0)
    idle.process.kill()
    with pytest.raises(Unreachable, match=r"process that reads repositories has no answer: .* killed by SIGKILL"):
        await asking
    assert await repositories.tip(remote(server)) == tip


async def test_a_process_has_so_much_processor_time_for_each_request(
    server: GitServer, repositories: WorkerRepositories
) -> None:
    tip = await repositories.tip(remote(server))
    (idle,) = repositories._workers._idle
    first, _ = resource.prlimit(idle.process.pid, resource.RLIMIT_CPU)
    assert 30 <= first < 90, "what its start took, and the time of fetching"
    resource.prlimit(idle.process.pid, resource.RLIMIT_CPU, (100_000, resource.RLIM_INFINITY))
    assert await repositories.tip(remote(server)) == tip
    second, _ = resource.prlimit(idle.process.pid, resource.RLIMIT_CPU)
    assert first <= second < 90, "counted anew"


@pytest.mark.parametrize(("memory", "said"), [(512, 512), (4096, 1024)])
async def test_a_process_takes_its_part_of_memory_and_no_more_than_the_setting(
    server: GitServer, tmp_path: Path, memory: int, said: int
) -> None:
    settings = SyncSettings(memory_bytes=1024 * 1024**2)
    made = WorkerRepositories(tmp_path / "copies", settings, memory=memory * 1024**2)
    await made.tip(remote(server))
    (idle,) = made._workers._idle
    assert resource.prlimit(idle.process.pid, resource.RLIMIT_AS)[0] == said * 1024**2
    await made.aclose()


async def test_a_fetch_that_is_killed_is_made_again(server: GitServer, repositories: WorkerRepositories) -> None:
    tip = await repositories.tip(remote(server))
    for seconds in (0.0, 0.02, 0.1, 0.3):
        fetching = asyncio.create_task(repositories.fetch("one", remote(server), tip, None))
        await asyncio.sleep(seconds)
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
    assert (await repositories.fetch("one", remote(server), tip, None)).commit == tip
    assert (await repositories.compare("one", None, tip, "agents")).changed


async def test_no_process_stays(server: GitServer, tmp_path: Path) -> None:
    made = WorkerRepositories(tmp_path / "copies", SyncSettings(at_once=2))
    await asyncio.gather(*(made.tip(remote(server)) for _ in range(3)))
    processes = list(made._workers._idle)
    assert 1 <= len(processes) <= 2
    await made.aclose()
    assert all(one.process.returncode is not None for one in processes)


async def test_copies_that_were_not_used_for_a_while_make_room_for_others(
    repository: Repository, server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = tmp_path / "copies"
    left = copies / "left-by-another-process"
    left.mkdir(parents=True)
    (left / "pack").write_bytes(b"x" * 2_000_000)
    small = SyncSettings(look_timeout=20.0, fetch_timeout=30.0, copies_bytes=1024**2)
    made = WorkerRepositories(copies, small)
    commit = await made.tip(remote(server))
    await made.fetch("one", remote(server), commit, None)
    assert {one.name for one in copies.iterdir()} == {"one"}, "what nobody here has used goes first"
    (copies / "one" / "pack").write_bytes(b"x" * 2_000_000)
    await made.fetch("two", remote(server), commit, None)
    assert (copies / "one").exists(), "a look may still need it"
    monkeypatch.setattr("chimera.adapters.git.workers.IN_USE", 0.0)
    await made.fetch("two", remote(server), commit, None)
    assert {one.name for one in copies.iterdir()} == {"two"}
    told = await made.fetch("one", remote(server), commit, None)
    assert told.commit == commit, "and is fetched anew"
    await made.aclose()
