"""Images for tests, made in memory as tar files, and a registry that serves them; no daemon, nothing pulled."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DEBIAN = b'ID=debian\nVERSION_ID="12"\n'
ALPINE = b'ID=alpine\nVERSION_ID=3.20.3\nPRETTY_NAME="Alpine Linux v3.20"\n'

Files = Mapping[str, bytes | tuple[bytes, int] | tarfile.TarInfo]


def layer(files: Files, *, packed: bool = True) -> bytes:
    """A layer: each file's bytes, bytes with a mode, or an entry of its own."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            data, mode = content if isinstance(content, tuple) else (content, 0o644)
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(target.getvalue(), mtime=0) if packed else target.getvalue()


@dataclass(kw_only=True)
class TestImage:
    """An image: its blobs by digest, and the digest of its manifest, which says `declared` of each layer's size."""

    __test__ = False

    layers: Sequence[bytes]
    config: dict[str, Any] = field(default_factory=lambda: {"config": {"User": "65532:65532"}})
    blobs: dict[str, bytes] = field(default_factory=dict)
    declared: int | None = None
    manifest: str = ""

    def __post_init__(self) -> None:
        """Put its parts together."""
        said = {} if self.declared is None else {"size": self.declared}
        config = self.keep(json.dumps(self.config).encode())
        layers = [self.keep(data) for data in self.layers]
        self.manifest = self.keep(
            json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": OCI_MANIFEST,
                    "config": {"digest": config},
                    "layers": [{"digest": digest, **said} for digest in layers],
                }
            ).encode()
        )

    def keep(self, data: bytes) -> str:
        """Keep a blob; its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def index(self, *platforms: str) -> str:
        """The digest of an index that offers it for each architecture, and something that is none beside it."""
        others = [{"digest": self.manifest, "platform": {"os": "unknown", "architecture": "unknown"}}]
        offered = [{"digest": self.manifest, "platform": {"os": "linux", "architecture": one}} for one in platforms]
        return self.keep(
            json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": others + offered}).encode()
        )

    def layout(self, folder: Path, *, top: str | None = None) -> Path:
        """Write an OCI layout."""
        blobs = folder / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for digest, data in self.blobs.items():
            (blobs / digest.partition(":")[2]).write_bytes(data)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (folder / "index.json").write_text(
            json.dumps({"schemaVersion": 2, "manifests": [{"digest": top or self.manifest}]})
        )
        return folder

    def archive(self, file: Path) -> Path:
        """Write a tar of an OCI layout."""
        folder = self.layout(file.with_suffix(".layout"))
        with tarfile.open(file, "w") as archive:
            for path in sorted(folder.rglob("*")):
                archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
        return file

    def saved(self, file: Path, *, tag: str = "agent:1") -> Path:
        """Write what `docker save` writes: layers unpacked, the second one of the same content as a link."""
        entries: dict[str, bytes | tuple[bytes, int] | tarfile.TarInfo] = {}
        names: list[str] = []
        for number, data in enumerate(self.layers):
            name = f"{number}/layer.tar"
            names.append(name)
            if number and data == self.layers[0]:
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, "../0/layer.tar"
                entries[name] = link
            else:
                entries[name] = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        entries["config.json"] = json.dumps(self.config).encode()
        entries["manifest.json"] = json.dumps([{"Config": "config.json", "RepoTags": [tag], "Layers": names}]).encode()
        file.write_bytes(layer(entries, packed=False))
        return file


@dataclass(kw_only=True)
class TestRegistry:
    """A registry of images by `repository:tag`; with `user` it wants a token, which it gives for those credentials."""

    __test__ = False

    images: dict[str, tuple[TestImage, str]] = field(default_factory=dict)
    user: str | None = None
    basic: bool = False
    asked: list[str] = field(default_factory=list)
    damage: bool = False

    def add(self, name: str, image: TestImage, *, top: str | None = None) -> None:
        """Serve an image under a name."""
        self.images[name] = (image, top or image.manifest)

    def app(self) -> web.Application:
        """What serves it."""
        app = web.Application()
        app.router.add_get("/v2/{name:.+}/manifests/{version}", self._manifest)
        app.router.add_get("/v2/{name:.+}/blobs/{digest}", self._blob)
        app.router.add_get("/token", self._token)
        return app

    def _allowed(self, request: web.Request) -> web.Response | None:
        self.asked.append(request.path)
        shown = request.headers.get("Authorization", "")
        if self.user is None or shown == ("Basic " + self._secret() if self.basic else "Bearer good"):
            return None
        challenge = "Basic" if self.basic else f'Bearer realm="http://{request.host}/token",service="test"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    def _secret(self) -> str:
        return base64.b64encode((self.user or "").encode()).decode()

    async def _token(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        if request.headers.get("Authorization") != "Basic " + self._secret():
            return web.Response(status=401)
        return web.json_response({"token": "good"})

    async def _manifest(self, request: web.Request) -> web.Response:
        if refused := self._allowed(request):
            return refused
        name, version = request.match_info["name"], request.match_info["version"]
        found = self.images.get(f"{name}:{version}")
        blobs = {digest: data for one, _ in self.images.values() for digest, data in one.blobs.items()}
        digest = found[1] if found else version
        return (
            web.Response(body=blobs[digest], content_type=OCI_MANIFEST) if digest in blobs else web.Response(status=404)
        )

    async def _blob(self, request: web.Request) -> web.Response:
        if refused := self._allowed(request):
            return refused
        blobs = {digest: data for one, _ in self.images.values() for digest, data in one.blobs.items()}
        data = blobs.get(request.match_info["digest"])
        if data is None:
            return web.Response(status=404)
        return web.Response(body=data + b"x" if self.damage else data)
