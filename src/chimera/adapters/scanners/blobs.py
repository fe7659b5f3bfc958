"""Images by their parts: manifests, configurations and layers, each held to its digest.

Both ways in (a file, a registry) give the same: a `Source` of blobs. What an index offers for several platforms is
chosen here, and bytes that aren't those of their digest are refused.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import IO, Any, Protocol

import msgspec

from chimera.delivery.scanning.errors import ImageUnreadable
from chimera.delivery.scanning.images import ImageParts

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
LARGEST_DOCUMENT = 8 * 1024**2
MOST_LAYERS = 500
DEEPEST_INDEX = 3


class Source(Protocol):
    """Where an image's blobs come from."""

    def open(self, digest: str) -> AbstractContextManager[IO[bytes]]:
        """A blob, to be read once; raises `ImageUnreadable` where it isn't there or isn't that of its digest."""


class Checked:
    """A stream that counts and hashes what is read, and says at the end whether it was what its digest says."""

    def __init__(self, raw: IO[bytes], digest: str) -> None:
        """Read from `raw`, which must be the blob of `digest`."""
        self._raw, self._digest = raw, digest
        algorithm = digest.partition(":")[0]
        if algorithm not in ("sha256", "sha512"):
            raise unreadable(f"a digest is of a kind that isn't known ({digest[:20]})")
        self._hash = hashlib.new(algorithm)

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self._raw.read(size)
        self._hash.update(data)
        return data

    def check(self) -> None:
        """Read what is left, and refuse what isn't the blob."""
        while self.read(1024 * 1024):
            pass
        if self._hash.hexdigest() != self._digest.partition(":")[2]:
            raise unreadable(f"the bytes of {self._digest[:19]} are others than its digest says")


def document(source: Source, digest: str) -> dict[str, Any]:
    """A manifest, index or configuration."""
    with source.open(digest) as blob:
        stream = Checked(blob, digest)
        data = stream.read(LARGEST_DOCUMENT + 1)
        if len(data) > LARGEST_DOCUMENT:
            raise unreadable(f"{digest[:19]} is larger than a manifest may be")
        stream.check()
    return parsed(data, digest[:19])


def parsed(data: bytes, name: str) -> dict[str, Any]:
    """JSON of an object."""
    try:
        content = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise unreadable(f"{name} is no JSON: {str(error)[:200]}") from error
    if not isinstance(content, dict):
        raise unreadable(f"{name} is no JSON object")
    return content


def chosen(source: Source, manifest: dict[str, Any], architecture: str, depth: int = 0) -> dict[str, Any]:
    """The manifest of one image: itself, or the one of an index for Linux and `architecture`."""
    if isinstance(manifest.get("layers"), list):
        return manifest
    offered = [one for one in manifest.get("manifests") or () if isinstance(one, dict)]
    fitting = [one for one in offered if _platform(one) in (("linux", architecture), None)]
    if len(offered) == 1 and not fitting and _platform(offered[0]) != ("unknown", "unknown"):
        fitting = offered
    if not fitting or depth >= DEEPEST_INDEX:
        raise unreadable(f"it holds no image for linux/{architecture}")
    return chosen(source, document(source, digest_of(fitting[0])), architecture, depth + 1)


def _platform(one: Mapping[str, Any]) -> tuple[str, str] | None:
    platform = one.get("platform")
    if not isinstance(platform, dict):
        return None
    return str(platform.get("os")), str(platform.get("architecture"))


def digest_of(descriptor: Any) -> str:
    """The digest that a descriptor names."""
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or len(digest) > 200 or "/" in digest:
        raise unreadable("a part of it has no digest")
    return digest


def parts(source: Source, name: str, manifest: dict[str, Any], architecture: str) -> ImageParts:
    """An image, its layers opened one after the other as they are read."""
    image = chosen(source, manifest, architecture)
    layers = bounded([digest_of(one) for one in image["layers"]])
    return ImageParts(
        name=name, config=document(source, digest_of(image.get("config"))), layers=_opened(source, layers)
    )


def bounded(layers: list[str]) -> list[str]:
    """The layers of an image, unless there are too many."""
    if len(layers) > MOST_LAYERS:
        raise unreadable(f"it has {len(layers):,} layers")
    return layers


def _opened(source: Source, layers: list[str]) -> Iterator[tuple[str, IO[bytes]]]:
    for digest in layers:
        with source.open(digest) as blob:
            stream = Checked(blob, digest)
            yield digest, stream  # type: ignore[misc]
            stream.check()


def unreadable(reason: str) -> ImageUnreadable:
    """The error for an image that can't be read."""
    return ImageUnreadable(f"the image can't be read: {reason}", next_step="build and push it anew")
