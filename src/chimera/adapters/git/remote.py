"""Remote repositories: where a branch is, and bringing a commit here. Blocking; it runs in a worker's process.

A copy here is a bare repository that holds what was fetched and nothing else: no settings of the remote, no hooks. It
may be removed at any time, since all that is known for good is in the database. What a fetch was killed over leaves is
swept up by the next.
"""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import urllib3
from dulwich.client import (
    GitClient,
    HTTPProxyUnauthorized,
    HTTPUnauthorized,
    LocalGitClient,
    Urllib3HttpGitClient,
    default_urllib3_manager,
)
from dulwich.errors import GitProtocolError, NotGitRepository
from dulwich.objects import ObjectID
from dulwich.refs import Ref
from dulwich.repo import Repo

from chimera.adapters.git.history import since
from chimera.adapters.git.objects import Objects
from chimera.delivery.git.errors import MalformedObject, RepositoryTooLarge, Unreachable
from chimera.delivery.git.ports import CommitTold, Remote

T = TypeVar("T")

HEADS = "refs/heads/"
OWN = Ref(b"refs/heads/followed")
MOST_PACKS = 40
CONNECT, READ = 10.0, 30.0
_TIMES = urllib3.Timeout(connect=CONNECT, read=READ)


class _Pool(urllib3.PoolManager):
    """What was allowed is what is asked: an answer that leads elsewhere is an error."""

    def urlopen(self, method: str, url: str, redirect: bool = True, **more: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]
        more.update(retries=False, timeout=_TIMES)
        return super().urlopen(method, url, redirect=False, **more)


class _ProxyPool(urllib3.ProxyManager):
    """The same through a proxy."""

    def urlopen(self, method: str, url: str, redirect: bool = True, **more: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]
        more.update(retries=False, timeout=_TIMES)
        return super().urlopen(method, url, redirect=False, **more)


def tip(remote: Remote) -> str:
    """The commit that the branch is at."""
    client, path = _client(remote)
    wanted = Ref(f"{HEADS}{remote.branch}".encode())
    found = _asked(remote, lambda: client.get_refs(path.encode(), ref_prefix=[wanted])).refs.get(wanted)
    if found is None:
        raise Unreachable(
            f"there is no branch {remote.branch!r} in {remote.url}", next_step="check its name, or follow another"
        )
    return _plain(found)


def fetch(
    folder: Path, remote: Remote, commit: str, before: str | None, most_bytes: int, most_commits: int
) -> CommitTold:
    """Bring `commit` into the copy at `folder`, which is made where it isn't there."""
    for attempt in range(2):
        try:
            return _fetch(folder, remote, commit, before, most_bytes, most_commits)
        except MalformedObject:
            # The copy may be damaged here, not there: once more from the beginning.
            if attempt:
                raise
            shutil.rmtree(folder, ignore_errors=True)
    raise AssertionError


def _fetch(
    folder: Path, remote: Remote, commit: str, before: str | None, most_bytes: int, most_commits: int
) -> CommitTold:
    _sweep(folder)
    with _opened(folder) as repo:
        name = ObjectID(commit.encode("ascii"))
        if not _has_all(repo, name):
            client, path = _client(remote)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            _asked(remote, lambda: _bring(client, path, repo, name, most_bytes - size))
            if name not in repo.object_store:
                raise Unreachable(f"{remote.url} did not send {commit[:12]}", next_step="it is tried again")
            repo.refs[OWN] = name
        if len(list((folder / "objects/pack").glob("*.pack"))) > MOST_PACKS:
            repo.object_store.repack()
    objects = Objects(folder / "objects")
    try:
        made = objects.commit(commit)
        # A commit that isn't here any more is one that this one doesn't go back to: its history came with it.
        known = before if before is not None and objects.has(before) else None
        found = since(objects.commit, commit, known, most_commits)
        return CommitTold(
            commit=commit,
            subject=made.subject,
            author=made.author,
            forward=False if known != before else found.forward,
            contributors=tuple(sorted(found.people)),
            unread=found.unread,
        )
    finally:
        objects.close()


def _has_all(repo: Repo, name: ObjectID) -> bool:
    """Whether a commit was fetched with all that belongs to it: then the reference, which is set last, says so."""
    return OWN in repo.refs and repo.refs[OWN] == name and name in repo.object_store


def _bring(client: GitClient, path: str, repo: Repo, name: ObjectID, most_bytes: int) -> None:
    if isinstance(client, LocalGitClient):
        client.fetch(path, repo, determine_wants=lambda refs, depth=None: [name])
        return
    spool = repo.object_store.pack_dir
    taken = 0
    with (Path(spool) / "incoming-fetch").open("w+b") as pack:

        def write(data: bytes) -> int:
            nonlocal taken
            taken += len(data)
            if taken > most_bytes:
                raise _too_large()
            return pack.write(data)

        client.fetch_pack(path, lambda refs, depth=None: [name], repo.get_graph_walker(), write)
        if taken:
            pack.seek(0)
            repo.object_store.add_thin_pack(pack.read, None)


def _client(remote: Remote) -> tuple[GitClient, str]:
    if remote.folder is not None:
        return LocalGitClient(), remote.folder
    pool = default_urllib3_manager(None, pool_manager_cls=_Pool, proxy_manager_cls=_ProxyPool, base_url=remote.url)
    client = Urllib3HttpGitClient(
        remote.url,
        dumb=False,
        pool_manager=pool,
        username=remote.username if remote.password is not None else None,
        password=remote.password,
        quiet=True,
    )
    return client, ""


def _asked(remote: Remote, ask: Callable[[], T]) -> T:
    """Ask a remote repository; its errors in our words, which never hold a credential."""
    where = f"{remote.url} "
    try:
        return ask()
    except NotGitRepository:
        raise Unreachable(
            where + "is no repository, or not one that we may see", next_step="check the address"
        ) from None
    except (HTTPUnauthorized, HTTPProxyUnauthorized):
        raise Unreachable(
            where + "does not let us in", next_step="check the credential that the source names"
        ) from None
    except (GitProtocolError, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError) as error:
        raise Unreachable(
            f"{where}did not answer as Git does: {str(error)[:300]}", next_step="it is tried again"
        ) from error
    except OSError as error:
        if error.errno == 27:  # EFBIG, by the bound of the process
            raise _too_large() from error
        raise Unreachable(f"{where}can't be read: {error.strerror or error}", next_step="it is tried again") from error
    except (RepositoryTooLarge, MalformedObject, Unreachable, MemoryError):
        raise
    except Exception as error:  # what a hostile server sends fails in as many ways as it is read
        raise Unreachable(
            f"{where}sent what can't be read: {type(error).__name__}: {str(error)[:200]}", next_step="it is tried again"
        ) from error


@contextlib.contextmanager
def _opened(folder: Path) -> Any:
    if not (folder / "HEAD").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        fresh = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.parent.mkdir(parents=True, exist_ok=True)
        Repo.init_bare(str(fresh), mkdir=True).close()
        fresh.replace(folder)
    repo = Repo(str(folder))
    try:
        yield repo
    finally:
        repo.close()


def _sweep(folder: Path) -> None:
    """Remove what a fetch that was killed left: nobody else fetches here."""
    for pattern in ("tmp_*", "incoming-*", "*.lock"):
        for inner in (folder / "objects/pack", folder / "objects", folder / "refs/heads", folder):
            for file in inner.glob(pattern) if inner.is_dir() else ():
                file.unlink(missing_ok=True)


def _plain(name: bytes) -> str:
    text = name.decode("ascii", "replace")
    if len(text) != 40:
        raise Unreachable("the repository has SHA-256 ids, which are not supported", next_step="follow one with SHA-1")
    return text


def _too_large() -> RepositoryTooLarge:
    return RepositoryTooLarge(
        "the repository is larger than `sync.repository_bytes`", next_step="raise the setting, or follow a smaller one"
    )
