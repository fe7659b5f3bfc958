"""Where things are on this machine: the home, and the runtimes that all homes share."""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

BESIDE = ("settings.toml", "audit/public-keys", "audit/checkpoints", "provenance/public-keys")
"""What lies in a home beside the database, holds no secret, and is needed to come back to what was."""
PRIVATE = ("audit.key", "chimera.key", "provenance.key", "webhooks.key")
"""Keys in a home that a backup has only where somebody asks for it."""


def default_home(environ: Mapping[str, str]) -> Path:
    """`$CHIMERA_HOME`, else `.chimera` in the current folder if it is there, else the user's data folder."""
    if home := environ.get("CHIMERA_HOME"):
        return Path(home).absolute()
    here = Path(".chimera").absolute()
    return here if here.is_dir() else data_folder(environ)


def hold(home: Path) -> int:
    """Take a home for this process alone, while the descriptor is open; raises `BlockingIOError` where it is taken.

    A running supervisor holds its home, and so does every command that must not meet one. The kernel lets it go when
    the process ends, however it ends.
    """
    folder = home / "run"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def data_folder(environ: Mapping[str, str]) -> Path:
    """The user's data folder for Chimera (XDG base directory specification)."""
    base = environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "chimera"


def runtimes_folder(environ: Mapping[str, str]) -> Path:
    """Where runtime environments are: `$CHIMERA_RUNTIMES`, else in the user's data folder."""
    if folder := environ.get("CHIMERA_RUNTIMES"):
        return Path(folder).absolute()
    return data_folder(environ) / "runtimes"


def runtime_overrides(environ: Mapping[str, str]) -> dict[str, Path]:
    """Interpreters given by `CHIMERA_RUNTIME_<NAME>_PYTHON`, by runtime."""
    prefix, suffix = "CHIMERA_RUNTIME_", "_PYTHON"
    return {
        name[len(prefix) : -len(suffix)].lower().replace("_", "-"): Path(value)
        for name, value in environ.items()
        if name.startswith(prefix) and name.endswith(suffix)
    }
