"""Images of registries, by the OCI distribution API: bounded, authenticated, and nothing believed but digests.

An image is fetched into a folder that is thrown away afterwards, each blob held to its digest on the way. Credentials
are those of a file as `docker login` writes it; they are shown to the registry that they are for and to the token
service that it names over https. Without encryption only registries of this machine are asked.
"""

import asyncio
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from chimera.adapters.scanners.blobs import (
    DEEPEST_INDEX,
    INDEXES,
    LARGEST_DOCUMENT,
    MANIFESTS,
    MOST_LAYERS,
    Checked,
    chosen,
    digest_of,
    parsed,
    unreadable,
)
from chimera.adapters.scanners.image_files import LayoutFolder
from chimera.agents.images import parse_image
from chimera.delivery.scanning.errors import ImageUnreadable

LONGEST_PULL = 600.0
DOCKER_HUB = "registry-1.docker.io"
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


class Reference(Struct, frozen=True, kw_only=True):
    """An image's name, taken apart: the registry's host with its port, the repository, and a tag or digest."""

    registry: str
    repository: str
    version: str

    @property
    def base(self) -> str:
        """The API's address for the repository."""
        local = self.registry.rpartition(":")[0] in _LOCAL or self.registry in _LOCAL
        return f"{'http' if local else 'https'}://{self.registry}/v2/{self.repository}"


def parse_reference(text: str) -> Reference:
    """`python:3` is Docker Hub's `library/python`; a name with a dot or port before its first slash says where."""
    found = parse_image(text)
    if found is None:
        raise ImageUnreadable(f"{text[:200]!r} is no name of an image", next_step="write registry/name:tag")
    registry, repository = found.host or DOCKER_HUB, found.path
    if registry in ("docker.io", "index.docker.io"):
        registry = DOCKER_HUB
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(registry=registry, repository=repository, version=found.digest or found.tag or "latest")


def read_credentials(file: Path) -> dict[str, str]:
    """What to show which registry, by host: `user:password` in base64, as `docker login` keeps it."""
    try:
        data = msgspec.json.decode(file.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise ImageUnreadable(f"{file} can't be read: {error}", next_step="check `scanning.registry_config`") from error
    auths = data.get("auths") if isinstance(data, dict) else None
    found: dict[str, str] = {}
    for address, one in auths.items() if isinstance(auths, dict) else ():
        if isinstance(one, dict) and isinstance(one.get("auth"), str):
            host = urlsplit(address).netloc if "://" in address else address.partition("/")[0]
            found[DOCKER_HUB if host in ("index.docker.io", "docker.io") else host] = one["auth"]
    return found


class Registry:
    """Fetches images of `largest` bytes at most. `only` are the hosts that may be asked; None: any."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        largest: int,
        only: Sequence[str] | None = None,
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        """By this session."""
        self._session = session
        self._only = only
        self._credentials = dict(credentials or {})
        self._largest = largest
        self._tokens: dict[str, str] = {}

    async def fetch(self, name: str, folder: Path, *, architecture: str = "amd64") -> None:
        """Make an OCI layout of an image in `folder`; raises `ImageUnreadable` with the reason."""
        reference = parse_reference(name)
        if self._only is not None and reference.registry not in self._only:
            raise ImageUnreadable(
                f"{name[:200]}: the registry {reference.registry} isn't one that may be asked",
                next_step="name it in `scanning.registries`, or give the image as a file (`--image`)",
            )
        try:
            async with asyncio.timeout(LONGEST_PULL):
                await self._fetch(reference, folder, architecture)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ImageUnreadable(
                f"{name[:200]} can't be had: {error or type(error).__name__}",
                next_step="check the registry, and try again",
            ) from error

    async def _fetch(self, reference: Reference, folder: Path, architecture: str) -> None:
        blobs = folder / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        layout, wanted = LayoutFolder(folder), reference.version
        manifest: dict[str, Any] = {}
        for _ in range(DEEPEST_INDEX + 1):
            manifest = await self._manifest(reference, wanted)
            if isinstance(manifest.get("layers"), list):
                break
            wanted = _next(manifest, architecture)
        image = chosen(layout, manifest, architecture)
        descriptors = [image.get("config"), *image["layers"]]
        if len(descriptors) > MOST_LAYERS + 1:
            raise unreadable(f"it has {len(descriptors):,} layers")
        if _declared(descriptors) > self._largest:
            raise self._too_large()
        left = self._largest
        for descriptor in descriptors:
            digest = digest_of(descriptor)
            target = blobs / digest.partition(":")[2]
            if not target.exists():
                left -= await self._blob(reference, digest, target, left)
        data = msgspec.json.encode(image)
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        index = {"schemaVersion": 2, "manifests": [{"digest": f"sha256:{name}", "size": len(data)}]}
        (folder / "index.json").write_bytes(msgspec.json.encode(index))

    async def _manifest(self, reference: Reference, version: str) -> dict[str, Any]:
        accept = {"Accept": ", ".join((*INDEXES, *MANIFESTS))}
        async with await self._get(reference, f"/manifests/{version}", accept) as response:
            data = await response.content.read(LARGEST_DOCUMENT + 1)
            while len(data) <= LARGEST_DOCUMENT and (more := await response.content.read(LARGEST_DOCUMENT)):
                data += more
        if len(data) > LARGEST_DOCUMENT:
            raise unreadable("its manifest is too large")
        if version.startswith("sha256:"):
            stream = Checked(io.BytesIO(data), version)
            stream.check()
        return parsed(data, "its manifest")

    async def _blob(self, reference: Reference, digest: str, target: Path, most: int) -> int:
        async with await self._get(reference, f"/blobs/{digest}", {}) as response:
            size = 0
            with target.open("wb") as file:
                async for piece in response.content.iter_chunked(1024 * 1024):
                    size += len(piece)
                    if size > most:
                        raise self._too_large()
                    file.write(piece)
        with target.open("rb") as file:
            await asyncio.to_thread(Checked(file, digest).check)
        return size

    def _too_large(self) -> ImageUnreadable:
        return ImageUnreadable(
            f"the image isn't fetched: it is larger than {self._largest:,} bytes",
            next_step="make it smaller, or raise `scanning.image_bytes`; in a cluster `--scans-size` with it",
        )

    async def _get(self, reference: Reference, path: str, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """A good answer, with a token fetched where the registry asks for one."""
        for attempt in range(2):
            said = self._tokens.get(reference.base)
            shown = {**headers, **({"Authorization": said} if said else {})}
            response = await self._session.get(reference.base + path, headers=shown)
            if response.status == 200:
                return response
            challenge, status = response.headers.get("WWW-Authenticate", ""), response.status
            response.release()
            if status == 401 and attempt == 0:
                self._tokens[reference.base] = await self._authorisation(reference, challenge)
                continue
            raise unreadable(f"{reference.registry} answers {status} for {reference.repository}{path[:40]}")
        raise AssertionError("a loop of two attempts ended without an answer")

    async def _authorisation(self, reference: Reference, challenge: str) -> str:
        kind, _, rest = challenge.partition(" ")
        own = self._credentials.get(reference.registry)
        if kind.lower() == "basic" and own:
            return f"Basic {own}"
        said = dict(_CHALLENGE.findall(rest))
        realm = urlsplit(said.get("realm", ""))
        here = realm.scheme == "http" and realm.hostname in ("localhost", "127.0.0.1")
        secure = realm.scheme == "https" or here
        if kind.lower() != "bearer" or not secure:
            raise unreadable(f"{reference.registry} wants credentials (`scanning.registry_config`)")
        asked = {"scope": f"repository:{reference.repository}:pull"}
        if "service" in said:
            asked["service"] = said["service"]
        headers = {"Authorization": f"Basic {own}"} if own else {}
        address = realm.geturl() + ("&" if realm.query else "?") + urlencode(asked)
        async with self._session.get(address, headers=headers, allow_redirects=False) as response:
            data = await response.content.read(LARGEST_DOCUMENT)
            if response.status != 200:
                raise unreadable(f"{realm.hostname} gives no token for {reference.repository}: {response.status}")
        answer = parsed(data, "the token")
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str):
            raise unreadable(f"{realm.hostname} gives no token for {reference.repository}")
        return f"Bearer {token}"


def _declared(descriptors: Sequence[Any]) -> int:
    """The bytes that a manifest says its blobs have; nothing is believed of it but that they are too many."""
    sizes = {digest_of(one): one.get("size") for one in descriptors}
    return sum(size for size in sizes.values() if isinstance(size, int) and size > 0)


def _next(manifest: dict[str, Any], architecture: str) -> str:
    """The digest in an index to go on with."""
    offered = [one for one in manifest.get("manifests") or () if isinstance(one, dict)]
    for one in offered:
        platform = one.get("platform")
        if isinstance(platform, dict) and (platform.get("os"), platform.get("architecture")) == ("linux", architecture):
            return digest_of(one)
    if len(offered) == 1:
        return digest_of(offered[0])
    raise unreadable(f"it holds no image for linux/{architecture}")
