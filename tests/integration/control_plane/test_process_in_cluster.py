"""Control planes as processes, told what an installation tells them, on a cluster in memory."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yaml

from chimera.adapters.substrates.knative import places
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.installation import CONFIG, Installation
from chimera.adapters.substrates.knative.installer import install
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.bootstrap.startup import free_port
from chimera.testing.cluster import FakeCluster

KEY = "k" * 44
CHOSEN = Installation(
    knative=KnativeSettings(),
    database="postgresql://chimera@db.example/chimera",
    database_secret=None,
    settings={"audit": {"checkpoint_seconds": 1.0}},
    sync={"hosts": ["git.example.com"]},
)
PATIENCE = 60.0


class Pod:
    """A control plane with the folders that its pod has."""

    def __init__(self, cluster: FakeCluster, folder: Path, database: str) -> None:
        self.folder, self.port = folder, free_port()
        self.process: asyncio.subprocess.Process | None = None
        told: dict[str, Any] = cluster.object("configmaps", CHOSEN.namespace, CONFIG) or {}
        config = msgspec.json.decode(told["data"]["control-plane.json"])
        for name in ("control-plane.key", "provenance.key", "audit.key"):
            (folder / name).write_text(KEY)
        for name in ("repositories", "secrets", "scanning"):
            (folder / name).mkdir()
            config["places"][name] = str(folder / name)
        for name in ("key_file", "provenance_key_file", "audit_key_file"):
            config[name] = str(folder / Path(config[name]).name)
        config |= {"database": database, "host": "127.0.0.1", "port": self.port, "admission": None}
        config |= {"kubeconfig": str(folder / "kubeconfig")}
        kubeconfig = {
            "clusters": [{"name": "c", "cluster": {"server": cluster.url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        (folder / "config.json").write_bytes(msgspec.json.encode(config))

    async def start(self) -> None:
        words = ("-m", "chimera.bootstrap.control_plane", "--config", str(self.folder / "config.json"))
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *words, env={**os.environ}, stdout=-3, stderr=-3
        )

    async def ask(self, path: str) -> Any:
        url, headers = f"http://127.0.0.1:{self.port}{path}", {"Authorization": f"Bearer {KEY}"}
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            assert await self.process.wait() == 0


async def test_two_control_planes_have_what_delivery_needs_and_one_signs(tmp_path: Path, database_name: str) -> None:
    async with FakeCluster() as cluster:
        api = Kubernetes(ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default"))
        await install(api, CHOSEN, lambda _: None)
        folders = [tmp_path / "one", tmp_path / "other"]
        for folder in folders:
            folder.mkdir()
        pods = [Pod(cluster, folder, database_name) for folder in folders]

        def lines(key: str) -> list[str]:
            found = cluster.object("configmaps", CHOSEN.namespace, places.LEDGER) or {}
            return str(found.get("data", {}).get(key, "")).splitlines()

        try:
            for pod in pods:
                await pod.start()
            async with asyncio.timeout(PATIENCE):
                while not (lines(places.CHECKPOINTS) and lines(places.PROVENANCE_KEYS)):
                    assert all(pod.process is not None and pod.process.returncode is None for pod in pods)
                    await asyncio.sleep(0.05)
            assert len(lines(places.AUDIT_KEYS)) == len(lines(places.PROVENANCE_KEYS)) == 1
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        told = [await pod.ask("/v1/provenance/keys") for pod in pods]
                        break
                    except aiohttp.ClientConnectionError:
                        await asyncio.sleep(0.1)
            assert [one["keys"] for one in told] == [lines(places.PROVENANCE_KEYS)] * 2
            # Installed again, as by an upgrade: what was written into the ledger stays.
            before = lines(places.AUDIT_KEYS)
            await install(api, CHOSEN, lambda _: None)
            assert lines(places.AUDIT_KEYS) == before and lines(places.CHECKPOINTS)
        finally:
            for pod in pods:
                await pod.stop()
            await api.aclose()
