"""What a kubeconfig says of the way to a cluster, on a cluster that looks at it."""

import asyncio
import base64
import ssl
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from chimera.adapters.substrates.knative.access import ClusterAccess, from_kubeconfig
from chimera.adapters.substrates.knative.admission.certificates import make_certificate
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.errors import ClusterAway, CredentialsRefused
from chimera.adapters.substrates.knative.forwarding import Forwarding
from chimera.adapters.substrates.knative.pods import SEEN_PODS
from chimera.kernel.clock import SystemClock
from chimera.testing.cluster import FakeCluster, refusal

NAMED = "api.cluster.example"
UNAUTHORIZED = refusal(401, "Unauthorized", "Unauthorized")


def kubeconfig(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    file = folder / "config"
    value = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    file.write_text(yaml.safe_dump(value))
    return file


async def forwarded(cluster: FakeCluster, access: ClusterAccess) -> bytes:
    """What a pod says to whoever reaches its port through the cluster."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        await writer.drain()
        writer.close()

    async def choose() -> str:
        return "pod-a"

    await cluster.put("pods", {"metadata": {"name": "pod-a", "namespace": "cells"}})
    served = await asyncio.start_server(greet, "127.0.0.1", 0)
    cluster.ports["pod-a", 8080] = served.sockets[0].getsockname()[1]
    async with served, Forwarding(access, "cells", choose, 8080) as way, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
        said = await reader.readline()
        writer.close()
        await writer.wait_closed()
    return said


class Behind:
    """A cluster whose certificate is of another name than its address, as behind a tunnel."""

    def __init__(self, cluster: FakeCluster, authority: str, folder: Path) -> None:
        self.cluster = cluster
        self._authority = base64.b64encode(authority.encode()).decode()
        self._folder = folder

    def file(self, **said: Any) -> Path:
        """Its kubeconfig, with what else it says of the cluster."""
        found = {"server": self.cluster.url, "certificate-authority-data": self._authority, **said}
        return kubeconfig(self._folder, found, {"token": "a"})


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[Behind]:
    shown = make_certificate((NAMED,), time.time())
    (tmp_path / "pair.pem").write_text(shown.certificate + shown.key)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "pair.pem")
    async with FakeCluster(tls) as cluster:
        yield Behind(cluster, shown.authority, tmp_path)


async def test_the_certificate_is_of_the_name_that_the_kubeconfig_says(behind: Behind) -> None:
    access = from_kubeconfig(behind.file(**{"tls-server-name": NAMED}), SystemClock())
    api = Kubernetes(access)
    await behind.cluster.put("pods", {"metadata": {"name": "pod-a", "namespace": "cells"}})
    await behind.cluster.log("cells", "pod-a", "host", "hello")
    try:
        listing = await api.list(SEEN_PODS, "cells")
        assert [one.metadata.name for one in listing.items] == ["pod-a"]
        async for change in api.watch(SEEN_PODS, "cells", "", listing.version):
            assert change.version == listing.version
            break
        assert [line async for line in api.log("cells", "pod-a", {"container": "host"})] == [b"hello\n"]
    finally:
        await api.aclose()


async def test_a_port_is_forwarded_by_that_name_too(behind: Behind) -> None:
    access = from_kubeconfig(behind.file(**{"tls-server-name": NAMED}), SystemClock())
    assert await forwarded(behind.cluster, access) == b"hello\n"


@pytest.mark.parametrize("said", [{}, {"tls-server-name": "another.example"}])
async def test_a_certificate_of_any_other_name_is_refused(behind: Behind, said: dict[str, str]) -> None:
    api = Kubernetes(from_kubeconfig(behind.file(**said), SystemClock()))
    with pytest.raises(ClusterAway, match="CERTIFICATE_VERIFY_FAILED"):
        await api.list(SEEN_PODS, "cells")
    await api.aclose()


class Plugin:
    """A credential plugin that prints another token each time, with no word on when it ends."""

    def __init__(self, folder: Path) -> None:
        self._runs = folder / "runs"
        self._file = folder / "plugin"
        told = '{"status": {"token": "token-%s"}}'
        self._file.write_text(
            f"#!/bin/sh\necho run >> {self._runs}\nprintf '{told}' $(wc -l < {self._runs} | tr -d ' ')\n"
        )
        self._file.chmod(stat.S_IRWXU)

    @property
    def user(self) -> dict[str, Any]:
        return {"exec": {"command": str(self._file)}}

    @property
    def runs(self) -> int:
        return len(self._runs.read_text().splitlines())


def takes(cluster: FakeCluster, *tokens: str) -> None:
    """Let the cluster know these tokens alone."""
    shown = {f"Bearer {token}" for token in tokens}

    def look(request: web.BaseRequest) -> web.StreamResponse | None:
        return None if request.headers.get("Authorization") in shown else UNAUTHORIZED(request)

    cluster.faults[:] = [look]


async def test_a_plugin_is_asked_once_more_for_a_token_that_is_refused(tmp_path: Path) -> None:
    plugin = Plugin(tmp_path)
    async with FakeCluster() as cluster:
        api = Kubernetes(from_kubeconfig(kubeconfig(tmp_path, {"server": cluster.url}, plugin.user), SystemClock()))
        try:
            takes(cluster, "token-1")
            await asyncio.gather(*(api.list(SEEN_PODS, "cells") for _ in range(3)))
            assert plugin.runs == 1
            takes(cluster, "token-2")
            await asyncio.gather(*(api.list(SEEN_PODS, "cells") for _ in range(3)))
            assert plugin.runs == 2, "once for all that were refused with the same token"
            takes(cluster)
            with pytest.raises(CredentialsRefused):
                await api.list(SEEN_PODS, "cells")
            assert plugin.runs == 3, "who is refused again is told so"
        finally:
            await api.aclose()


async def test_a_watch_and_a_log_that_are_refused_get_a_new_token_when_asked_again(tmp_path: Path) -> None:
    plugin = Plugin(tmp_path)
    async with FakeCluster() as cluster:
        api = Kubernetes(from_kubeconfig(kubeconfig(tmp_path, {"server": cluster.url}, plugin.user), SystemClock()))
        await cluster.put("pods", {"metadata": {"name": "pod-a", "namespace": "cells"}})
        await cluster.log("cells", "pod-a", "host", "hello")

        async def watched() -> str:
            async for change in api.watch(SEEN_PODS, "cells", "", str(cluster.version)):
                return change.version
            return ""

        async def read() -> list[bytes]:
            return [line async for line in api.log("cells", "pod-a", {"container": "host"})]

        try:
            takes(cluster, "token-2")
            with pytest.raises(CredentialsRefused):
                await watched()
            assert await watched() == str(cluster.version)
            takes(cluster, "token-3")
            with pytest.raises(CredentialsRefused):
                await read()
            assert await read() == [b"hello\n"]
        finally:
            await api.aclose()


async def test_a_connection_is_forwarded_with_a_new_token_in_place_of_one_that_is_refused(tmp_path: Path) -> None:
    plugin = Plugin(tmp_path)
    async with FakeCluster() as cluster:
        takes(cluster, "token-2")
        access = from_kubeconfig(kubeconfig(tmp_path, {"server": cluster.url}, plugin.user), SystemClock())
        assert await forwarded(cluster, access) == b"hello\n"
    assert plugin.runs == 2


async def test_a_token_that_nobody_can_renew_is_shown_once(tmp_path: Path) -> None:
    async with FakeCluster() as cluster:
        api = Kubernetes(from_kubeconfig(kubeconfig(tmp_path, {"server": cluster.url}, {"token": "a"}), SystemClock()))
        takes(cluster)
        with pytest.raises(CredentialsRefused):
            await api.list(SEEN_PODS, "cells")
        assert cluster.calls["GET", "pods"] == 1
        await api.aclose()
