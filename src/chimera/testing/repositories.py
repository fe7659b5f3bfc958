"""Repositories that tests make, and the port of reading them within the test's own process."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

from chimera.adapters.git.messages import (
    Ask,
    AskCompare,
    AskFetch,
    AskRead,
    AskTip,
    Compared,
    Failed,
    Fetched,
    Files,
    Frame,
    Tip,
)
from chimera.adapters.git.worker import Worker
from chimera.adapters.git.workers import KINDS
from chimera.delivery.git.errors import GitError
from chimera.delivery.git.ports import CommitTold, ReadFile, Remote, Touched

AGENT = """\
schema_version: "ADaC v2.0"
extends: autogen-conversational
metadata: {{name: {name}, version: "0.1.0", description: {description}}}
capabilities: {{primary_functions: [answer]}}
"""
"""A small definition; fill in `name` and `description`."""


class InlineRepositories:
    """The port `Repositories` without a process of its own; `fail` is raised by the next step of that name."""

    def __init__(self, folder: Path, most_bytes: int = 64 * 1024**2, most_commits: int = 1_000) -> None:
        """Copies are in `folder`."""
        self._folder = folder
        self._worker = Worker(folder, most_bytes, 1024**3, most_commits)
        self.fail: dict[str, Exception] = {}
        self.read_files: list[str] = []

    async def tip(self, remote: Remote) -> str:
        """See `Repositories`."""
        found = self._first("tip", AskTip(remote))
        assert isinstance(found, Tip)
        return found.commit

    async def fetch(self, key: str, remote: Remote, commit: str, before: str | None) -> CommitTold:
        """See `Repositories`."""
        found = self._first("fetch", AskFetch(key, remote, commit, before))
        assert isinstance(found, Fetched)
        return found.told

    async def compare(self, key: str, before: str | None, commit: str, path: str) -> Touched:
        """See `Repositories`."""
        found = self._first("compare", AskCompare(key, before, commit, path))
        assert isinstance(found, Compared)
        return found.touched

    async def read(self, key: str, commit: str, files: Sequence[str]) -> AsyncIterator[list[ReadFile]]:
        """See `Repositories`."""
        for frame in self._frames("read", AskRead(key, commit, tuple(files))):
            if isinstance(frame, Files):
                self.read_files += [one.file for one in frame.files]
                yield frame.files

    async def forget(self, key: str) -> None:
        """See `Repositories`."""
        shutil.rmtree(self._folder / key, ignore_errors=True)

    def _first(self, step: str, ask: Ask) -> Frame:
        return next(iter(list(self._frames(step, ask))))

    def _frames(self, step: str, ask: Ask) -> Iterator[Frame]:
        if step in self.fail:
            raise self.fail.pop(step)
        for frame in self._worker.answer(ask):
            if isinstance(frame, Failed):
                raise KINDS.get(frame.kind, GitError)(frame.detail, next_step=frame.next_step)
            yield frame


class Repository:
    """A repository with a working tree, made with the real git."""

    def __init__(self, folder: Path) -> None:
        """Make it, empty, on the branch `main`."""
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        for name, value in (("user.name", "Ann"), ("user.email", "ann@example.com"), ("gc.auto", "0")):
            self.git("config", name, value)

    @property
    def url(self) -> str:
        """Its address on this machine."""
        return f"file://{self.folder}/.git"

    def git(self, *arguments: str) -> str:
        """Run git there."""
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, capture_output=True, text=True, check=False, env=_environment()
        )
        if done.returncode != 0:
            raise AssertionError(f"git {' '.join(arguments)}: {done.stderr}")
        return done.stdout.strip()

    def write(self, files: Mapping[str, str | None]) -> None:
        """Write files, or remove those that are None."""
        for name, text in files.items():
            path = self.folder / name
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)

    def commit(self, files: Mapping[str, str | None], message: str = "Change") -> str:
        """Commit these files; the commit's id."""
        self.write(files)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def agents(self, *names: str, description: str = "Answers.") -> dict[str, str | None]:
        """Files of small definitions, each in `agents/NAME.yaml`."""
        return {f"agents/{name}.yaml": AGENT.format(name=name, description=description) for name in names}


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}
