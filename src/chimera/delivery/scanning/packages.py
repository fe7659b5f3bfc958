"""Which packages are in a source folder, a lock or an image, read from what their installers have written.

Everything here is text or JSON that somebody else wrote, so nothing is believed: sizes are bounded, and what names a
package without a version that can be judged is reported as such by whoever asks (`PackageFault`).
"""

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from chimera.agents.errors import InvalidDefinition
from chimera.agents.requirements import FILE_NAME, read_lock
from chimera.delivery.scanning.model import Place

MOST = 100_000
LARGEST = 64 * 1024**2
_DIST_INFO = re.compile(r"(?:^|/)[^/]+\.(?:dist-info/METADATA|egg-info/PKG-INFO|egg-info)$")
_NODE_PACKAGE = re.compile(r"(?:^|/)node_modules/(?:@[^/]+/)?[^/]+/package\.json$")
_NODE_LOCKS = ("package-lock.json", "npm-shrinkwrap.json")
_OTHER_LOCKS = ("yarn.lock", "pnpm-lock.yaml", "bun.lockb", "bun.lock")
_LINE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;]+)")


class Package(Struct, frozen=True, kw_only=True):
    """A package of an ecosystem as OSV names it, and where it is said to be."""

    ecosystem: str
    name: str
    version: str
    place: Place = Place()


class PackageFault(Struct, frozen=True, kw_only=True):
    """Something that speaks of packages and can't be read as such."""

    message: str
    next_step: str
    place: Place = Place()


Listed = Package | PackageFault


def of_lock(text: str, *, file: str) -> Iterator[Listed]:
    """The packages of a locked requirements file."""
    try:
        read_lock(text, file=file)
    except InvalidDefinition as error:
        place = Place(file=file, line=error.faults[0].line)
        yield PackageFault(
            message=str(error.faults[0]), next_step="lock it with `uv pip compile --generate-hashes`", place=place
        )
        return
    for number, line in enumerate(text.splitlines(), 1):
        if match := _LINE.match(line.strip()):
            yield Package(
                ecosystem="PyPI", name=match[1], version=match[2].rstrip("\\"), place=Place(file=file, line=number)
            )


def of_files(files: Mapping[str, bytes]) -> Iterator[Listed]:
    """The packages of a source folder: its lock, what lies in it installed, and npm's locks."""
    node_locked = {posixpath.dirname(path) for path in files if posixpath.basename(path) in _NODE_LOCKS}
    for path, data in files.items():
        name = posixpath.basename(path)
        if path == FILE_NAME:
            yield from of_lock(data.decode("utf-8-sig", "replace"), file=path)
        elif name in _NODE_LOCKS:
            yield from of_npm_lock(data, file=path)
        elif _NODE_PACKAGE.search(path):
            yield from of_node_package(data, file=path)
        elif _DIST_INFO.search(path):
            yield from of_metadata(data, file=path)
        elif name in _OTHER_LOCKS and posixpath.dirname(path) not in node_locked:
            yield PackageFault(
                message=f"{name} isn't read", next_step="bring npm's package-lock.json too", place=Place(file=path)
            )
        elif name == "package.json" and posixpath.dirname(path) not in node_locked:
            yield from _unlocked(data, path, files)


def _unlocked(data: bytes, path: str, files: Mapping[str, bytes]) -> Iterator[Listed]:
    """A project's own package.json without a lock: what it depends on must lie in its node_modules."""
    content = _json(data)
    if not isinstance(content, dict):
        yield PackageFault(message="it is no JSON object", next_step="mend or remove it", place=Place(file=path))
        return
    wanted = content.get("dependencies")
    folder = posixpath.dirname(path)
    for name in wanted if isinstance(wanted, dict) else ():
        if posixpath.join(folder, "node_modules", str(name), "package.json") not in files:
            yield PackageFault(
                message=f"{str(name)[:100]} is wanted and not locked, so nobody knows which version it is",
                next_step="bring package-lock.json",
                place=Place(file=path, field=f"dependencies.{str(name)[:100]}"),
            )


def of_npm_lock(data: bytes, *, file: str) -> Iterator[Listed]:
    """The packages of npm's lock, versions 1 to 3."""
    content = _json(data)
    place = Place(file=file)
    if not isinstance(content, dict):
        yield PackageFault(message="it is no lock of npm's", next_step="make it anew with `npm install`", place=place)
        return
    packages = content.get("packages")
    if isinstance(packages, dict):
        for path, one in packages.items():
            if path and isinstance(one, dict) and not one.get("link") and "node_modules/" in path:
                name = one.get("name") or path.rpartition("node_modules/")[2]
                yield _node(name, one.get("version"), Place(file=file, field=path))
        return
    yield from _npm_first(content.get("dependencies"), file, 0)


def _npm_first(dependencies: Any, file: str, depth: int) -> Iterator[Listed]:
    place = Place(file=file)
    if not isinstance(dependencies, dict) or depth > 50:
        yield PackageFault(
            message="it lists no packages that can be read", next_step="make it anew with `npm install`", place=place
        )
        return
    for name, one in dependencies.items():
        if isinstance(one, dict):
            yield _node(name, one.get("version"), Place(file=file, field=str(name)[:200]))
            if "dependencies" in one:
                yield from _npm_first(one["dependencies"], file, depth + 1)


def of_node_package(data: bytes, *, file: str) -> Iterator[Listed]:
    """A package that lies in `node_modules`; a folder's marker without name and version is none."""
    content = _json(data)
    if not isinstance(content, dict):
        yield PackageFault(message="it is no JSON object", next_step="install it anew", place=Place(file=file))
    elif "name" in content or "version" in content:
        yield _node(content.get("name"), content.get("version"), Place(file=file))


def _node(name: Any, version: Any, place: Place) -> Listed:
    if isinstance(name, str) and isinstance(version, str) and name and version:
        return Package(ecosystem="npm", name=name, version=version, place=place)
    return PackageFault(
        message=f"{str(name)[:100]} has no version that can be judged ({str(version)[:100]})",
        next_step="depend on a released version",
        place=place,
    )


def of_metadata(data: bytes, *, file: str) -> Iterator[Listed]:
    """An installed Python distribution, by its metadata."""
    fields: dict[str, str] = {}
    for line in data[:LARGEST].decode("utf-8", "replace").splitlines():
        if not line.strip():
            break
        key, separator, value = line.partition(":")
        if separator and not key.startswith((" ", "\t")):
            fields.setdefault(key.strip().lower(), value.strip())
    if fields.get("name") and fields.get("version"):
        yield Package(ecosystem="PyPI", name=fields["name"], version=fields["version"], place=Place(file=file))
    else:
        yield PackageFault(
            message="it names no package and version", next_step="install it anew", place=Place(file=file)
        )


def _json(data: bytes) -> Any:
    if len(data) > LARGEST:
        return None
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
