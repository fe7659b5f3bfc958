"""Where things are on this machine: the home, and the runtimes that all homes share."""

from collections.abc import Mapping
from pathlib import Path


def default_home(environ: Mapping[str, str]) -> Path:
    """`$CHIMERA_HOME`, else `.chimera` in the current folder if it is there, else the user's data folder."""
    if home := environ.get("CHIMERA_HOME"):
        return Path(home).absolute()
    here = Path(".chimera").absolute()
    return here if here.is_dir() else data_folder(environ)


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
