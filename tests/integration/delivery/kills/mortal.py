"""Control planes that are killed at a write that a test names: the real program, forked, and ended by SIGKILL.

For each line of its standard input (a configuration, where its log goes, and the write at which it dies, or null) this
program forks one, and says how it ended; forking saves seconds of imports for each. What it says are lines of JSON:
`started`, `wrote` with each write of delivery's that is committed, `dying`, `ended`.

A write is named by the method that submits it, and by what it keeps where that can be several things. Before its
commit means after all its statements; after it means before anybody hears of it.
"""

import inspect
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from chimera.adapters.storage.postgresql import PostgreSQLDatabase
from chimera.adapters.storage.sqlite import SQLiteDatabase
from chimera.bootstrap import control_plane

# What isn't a step of delivery: any process's own business, which is lost or done again without anybody's noticing.
APART = ("StoredLeases", "UpkeepStorage", "AuditStorage", "StoredConditions", "migrate", "when_there")
SAYS = 3
"""The file descriptor of what is said, in the forked process: its output is the control plane's log."""


def names_of(job: Callable[..., Any]) -> list[str]:
    """What a write is called: by its method, and each thing that it keeps of which there are several."""
    method = getattr(job, "__qualname__", "?").partition(".<locals>")[0]
    known = inspect.getclosurevars(job).nonlocals if inspect.isfunction(job) else {}
    kept = [str(one) for one in known.get("told", ())]
    kept += [row["new_phase"] for row in known.get("rows", ()) if isinstance(row, dict) and "new_phase" in row]
    kept += [known[moved].told.fact for moved in ("opened", "after") if hasattr(known.get(moved), "told")]
    kept += [known["state"].phase] if hasattr(known.get("state"), "phase") else []
    kept += [known["check"]] if isinstance(known.get("check"), str) else []
    return [f"{method} {one}" for one in dict.fromkeys(kept)] or [method]


def say(*what: object) -> None:
    os.write(SAYS, msgspec.json.encode(what) + b"\n")


def make_mortal(dies_at: tuple[str, str] | None) -> None:
    """Have this process die at a write: its name, and `before` or `after` its commit."""

    def die(names: list[str], moment: str) -> None:
        if dies_at is not None and dies_at[1] == moment and dies_at[0] in names:
            say("dying", *dies_at)
            os.kill(os.getpid(), signal.SIGKILL)

    for kind in (SQLiteDatabase, PostgreSQLDatabase):
        write = kind.write

        async def mortal(self: Any, job: Callable[..., Any], write: Any = write) -> Any:
            names = names_of(job)
            if names[0].startswith(APART):
                return await write(self, job)

            def watched(connection: Any) -> Any:
                done = job(connection)
                die(names, "before")
                return done

            done = await write(self, watched)
            say("wrote", *names)
            die(names, "after")
            return done

        kind.write = mortal  # type: ignore[method-assign]


def child(config: str, log: str, dies_at: tuple[str, str] | None) -> None:
    os.dup2(1, SAYS)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    make_mortal(dies_at)
    sys.argv = ["control_plane", "--config", config]
    sys.exit(control_plane.main())


if __name__ == "__main__":
    for line in sys.stdin.buffer:
        config, log, dies_at = msgspec.json.decode(line, type=tuple[str, str, tuple[str, str] | None])
        pid = os.fork()
        if pid == 0:
            child(config, log, dies_at)
        os.write(1, msgspec.json.encode(("started", pid)) + b"\n")
        _, status = os.waitpid(pid, 0)
        os.write(1, msgspec.json.encode(("ended", os.waitstatus_to_exitcode(status))) + b"\n")
