"""Images in files: an OCI layout (a folder, or a tar of one), or the archive that `docker save` writes.

`podman save --format oci-archive`, `skopeo copy … oci:FOLDER`, `buildah push … docker-archive:FILE` write them too.
Nothing is unpacked: blobs are read where they lie.
"""

import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from chimera.adapters.scanners.blobs import LARGEST_DOCUMENT, bounded, chosen, parsed, parts, unreadable
from chimera.delivery.scanning.images import ImageParts

MOST_MEMBERS = 10_000
MOST_IMAGES = 100
_DIGEST = re.compile(r"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})")


class LayoutFolder:
    """An OCI layout that lies unpacked."""

    def __init__(self, folder: Path) -> None:
        """In this folder."""
        self._folder = folder

    @contextmanager
    def open(self, digest: str) -> Iterator[IO[bytes]]:
        """A blob by its digest."""
        if _DIGEST.fullmatch(digest) is None:
            raise unreadable(f"{digest[:80]!r} is no digest")
        algorithm, _, value = digest.partition(":")
        with self.file(f"blobs/{algorithm}/{value}") as blob:
            yield blob

    @contextmanager
    def file(self, name: str) -> Iterator[IO[bytes]]:
        """A file by its name."""
        path = self._folder / name
        if path.is_symlink() or not path.is_file():
            raise unreadable(f"{name[:100]} is missing")
        with path.open("rb") as file:
            yield file


class LayoutArchive:
    """A tar of a layout, or of `docker save`, read where its parts lie."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        """Over an open tar."""
        self._archive = archive
        self._members: dict[str, tarfile.TarInfo] = {}
        for count, member in enumerate(archive):
            if count >= MOST_MEMBERS:
                raise unreadable(f"it has more than {MOST_MEMBERS:,} files")
            self._members[member.name.removeprefix("./")] = member

    def __contains__(self, name: object) -> bool:
        """Whether a file is there."""
        return name in self._members

    @contextmanager
    def open(self, digest: str) -> Iterator[IO[bytes]]:
        """A blob by its digest, or, in docker's older archives, a file by its name."""
        algorithm, _, value = digest.partition(":")
        with self.file(f"blobs/{algorithm}/{value}") as blob:
            yield blob

    @contextmanager
    def file(self, name: str) -> Iterator[IO[bytes]]:
        """A file by its name; links are followed within the archive, as docker's archives have them."""
        member = self._members.get(name)
        for _ in range(3):
            if member is None or not (member.issym() or member.islnk()):
                break
            target = member.linkname if member.islnk() else f"{name.rpartition('/')[0]}/{member.linkname}"
            member = self._members.get(_plain(target))
        if member is None or not member.isreg() or member.issparse():
            raise unreadable(f"{name[:100]} is missing")
        file = self._archive.extractfile(member)
        if file is None:
            raise unreadable(f"{name[:100]} is missing")
        with file:
            yield file


def _plain(path: str) -> str:
    done: list[str] = []
    for part in path.split("/"):
        if part == "..":
            done[-1:] = []
        elif part not in ("", "."):
            done.append(part)
    return "/".join(done)


@contextmanager
def image_files(path: Path, *, name: str = "", architecture: str = "amd64") -> Iterator[list[ImageParts]]:
    """The images in a file or folder, called `name`; raises `ImageUnreadable` where there are none."""
    name = name or str(path)
    if path.is_dir():
        yield _layout(LayoutFolder(path), name, architecture)
        return
    try:
        with tarfile.open(path, mode="r:") as archive:
            layout = LayoutArchive(archive)
            if "index.json" in layout:
                yield _layout(layout, name, architecture)
            elif "manifest.json" in layout:
                yield [_saved(layout, name, one) for one in _manifests(layout)]
            else:
                raise unreadable(f"{path} is neither an OCI layout nor what `docker save` writes")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise unreadable(f"{path}: {str(error)[:200]}") from error


def _layout(layout: LayoutFolder | LayoutArchive, name: str, architecture: str) -> list[ImageParts]:
    with layout.file("index.json") as file:
        index = parsed(file.read(LARGEST_DOCUMENT), "index.json")
    if not index.get("manifests"):
        raise unreadable(f"{name} lists no image")
    return [parts(layout, name, chosen(layout, index, architecture), architecture)]


def _manifests(layout: LayoutArchive) -> list[dict[str, Any]]:
    with layout.file("manifest.json") as file:
        data = file.read(LARGEST_DOCUMENT)
    try:
        found = msgspec.json.decode(data, type=list[dict[str, Any]])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise unreadable(f"manifest.json: {str(error)[:200]}") from error
    if not 1 <= len(found) <= MOST_IMAGES:
        raise unreadable(f"it lists {len(found):,} images" if found else "it lists no image")
    return found


def _saved(layout: LayoutArchive, name: str, manifest: dict[str, Any]) -> ImageParts:
    """Docker's own form: the configuration and the layers are files; the layers are held to what it says of them."""
    config, layers = manifest.get("Config"), manifest.get("Layers")
    if not isinstance(config, str) or not isinstance(layers, list):
        raise unreadable("manifest.json names no configuration or no layers")
    with layout.file(config) as file:
        said = parsed(file.read(LARGEST_DOCUMENT), config[:100])
    tags = manifest.get("RepoTags")
    told = f"{name} ({tags[0]})" if isinstance(tags, list) and tags else name
    return ImageParts(name=told, config=said, layers=_files(layout, bounded([str(one) for one in layers])))


def _files(layout: LayoutArchive, names: list[str]) -> Iterator[tuple[str, IO[bytes]]]:
    for name in names:
        with layout.file(name) as file:
            yield name, file
