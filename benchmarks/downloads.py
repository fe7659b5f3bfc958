"""What a first run downloads: the sizes of the packages that the lock files name, as the package index gives them.

`python -m benchmarks.downloads` asks the index by uv, which chooses the files for this machine and downloads none. What
several parts have in common is downloaded once, into uv's cache, and counted for the first of them. `make demo` and the
tutorial say these figures.
"""

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import uv

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "src" / "chimera" / "runtimes"
EXPORT = ("export", "--quiet", "--frozen", "--no-hashes", "--no-emit-workspace", "--no-annotate")
PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "demo": (("--no-default-groups",), ("autogen", "langgraph", "crewai", "function", "local-model")),
    "runtimes": (
        ("--extra", "test", "--group", "dev"),
        ("autogen", "langgraph", "crewai", "function", "local-model", "node"),
    ),
}
"""By what is run: which of Chimera's own packages it syncs, and the runtimes that it installs."""


def files(lock: Mapping[str, Any], minor: int = sys.version_info.minor) -> dict[str, int]:
    """The file of each package by its address, with its size: the wheel for Python 3.`minor`, else the source.

    uv has left the wheels of this platform alone. Of several that fit, the compiled one is taken, which is larger.
    """
    found = {}
    for package in lock.get("packages", ()):
        fit = [one for one in package.get("wheels", ()) if fits(one["url"].rpartition("/")[2], minor)]
        one = max(fit, key=lambda file: file["size"]) if fit else package["sdist"]
        found[one["url"]] = one["size"]
    return found


def fits(wheel: str, minor: int) -> bool:
    """Whether Python 3.`minor` takes a wheel of this name."""
    pythons, abi, _ = wheel.removesuffix(".whl").rsplit("-", 3)[1:]
    if abi == "abi3":
        return any(int(one.removeprefix("cp3")) <= minor for one in pythons.split("."))
    return abi == f"cp3{minor}" or (
        abi == "none" and bool({"py3", f"py3{minor}", f"cp3{minor}"} & {*pythons.split(".")})
    )


def added(parts: Iterable[tuple[str, Mapping[str, int]]]) -> dict[str, int]:
    """What each part adds to those before it, in bytes."""
    known: set[str] = set()
    found = {}
    for name, sizes in parts:
        found[name] = sum(size for url, size in sizes.items() if url not in known)
        known |= sizes.keys()
    return found


def measure(run: str, folder: Path) -> dict[str, int]:
    """What a run downloads, part by part."""
    groups, runtimes = PARTS[run]
    own, esco = folder / "own.txt", folder / "esco.txt"
    _uv(*EXPORT, *groups, "-o", str(own))
    _uv(*EXPORT, "--project", str(ROOT / "examples" / "esco"), "-o", str(esco))
    sources = [("own", own), *((name, LOCKS / f"{name}.lock") for name in runtimes)]
    sources += [("roster", esco)] if run == "demo" else []
    return added((name, files(_resolved(name, source, folder))) for name, source in sources)


def _resolved(name: str, source: Path, folder: Path) -> Mapping[str, Any]:
    target = folder / f"pylock.{name}.toml"
    _uv("pip", "compile", "--quiet", "--no-deps", "--format", "pylock.toml", "-o", str(target), str(source))
    return tomllib.loads(target.read_text())


def _uv(*arguments: str) -> None:
    subprocess.run([uv.find_uv_bin(), *arguments], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def main() -> int:
    """Print what a first run downloads."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.downloads", description=main.__doc__)
    parser.add_argument("run", nargs="?", choices=sorted(PARTS), default="demo")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(parser.parse_args().run, Path(folder))
    for name, size in found.items():
        print(f"{name:<12} {size / 1e6:8.1f} MB")
    print(f"{'all':<12} {sum(found.values()) / 1e6:8.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
