"""The operator as a process on a cluster in memory, and the installer's word on what goes with it."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import yaml

from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.installation import Installation
from chimera.adapters.substrates.knative.installer import install
from chimera.adapters.substrates.knative.resources.kinds import AGENTS
from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.adapters.substrates.knative.uninstaller import uninstall
from chimera.bootstrap.operator import EXIT_SETTINGS, OperatorConfig
from chimera.bootstrap.startup import free_port
from chimera.kernel.settings import SettingsError
from chimera.testing.cluster import FakeCluster
from chimera.testing.definitions import definition


def manifest(name: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": "team"}
    return {"apiVersion": AGENTS.api_version, "kind": "Agent", "metadata": meta, "spec": definition(name)}


async def started(folder: Path, config: OperatorConfig) -> asyncio.subprocess.Process:
    file = folder / "operator.json"
    file.write_bytes(msgspec.json.encode(config))
    words = ("-m", "chimera.bootstrap.operator", "--config", str(file))
    return await asyncio.create_subprocess_exec(sys.executable, *words, env={**os.environ}, stdout=-3, stderr=-3)


async def test_the_process_works_tells_its_health_and_ends_when_it_is_told_to(
    tmp_path: Path, database_name: str
) -> None:
    async with FakeCluster() as cluster:
        kubeconfig = {
            "clusters": [{"name": "c", "cluster": {"server": cluster.url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        port = free_port()
        config = OperatorConfig(
            database=database_name,
            cells="cells",
            kubeconfig=str(tmp_path / "kubeconfig"),
            port=port,
            operator={"tenants": ["team=bank"]},
        )
        await cluster.put("agents", manifest("one"))
        process = await started(tmp_path, config)
        try:
            async with asyncio.timeout(60.0):
                while (cluster.object("agents", "team", "one") or {}).get("status", {}).get("phase") != "Live":
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
            told = (cluster.object("agents", "team", "one") or {})["status"]
            assert told["tenant"] == "bank"
            async with aiohttp.ClientSession() as session:
                for path in ("livez", "readyz"):
                    async with session.get(f"http://127.0.0.1:{port}/{path}") as answer:
                        assert answer.status == 200
                async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                    page = await answer.text()
            assert "chimera_operator_leading 1.0" in page and 'chimera_operator_agents{phase="Live"} 1.0' in page
        finally:
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


async def test_settings_that_can_not_be_end_the_process_with_their_faults(tmp_path: Path) -> None:
    config = OperatorConfig(database=str(tmp_path / "none.db"), cells="cells", operator={"tenants": ["billing"]})
    assert await (await started(tmp_path, config)).wait() == EXIT_SETTINGS


def test_tenants_are_names_and_namespaces_without_one_go_where_the_setting_says() -> None:
    settings = OperatorSettings(tenant="main", tenants=("billing=finance", " shop = retail "))
    settings.check()
    found = [settings.tenant_of(name) for name in ("billing", "shop", "other")]
    assert found == ["finance", "retail", "main"]
    assert OperatorSettings(tenant="").tenant_of("other") is None
    for wrong in (
        OperatorSettings(tenants=("billing",)),
        OperatorSettings(tenants=("a=b=c",)),
        OperatorSettings(tenant="No"),
    ):
        with pytest.raises(SettingsError):
            wrong.check()


async def test_an_uninstallation_says_what_goes_with_the_kinds_and_removes_them_last() -> None:
    async with FakeCluster() as cluster:
        access = ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default")
        api = Kubernetes(access)
        chosen = Installation(knative=KnativeSettings(), database="postgresql://db.example/chimera")
        await install(api, chosen, lambda _: None)
        for name in ("one", "two"):
            await cluster.put("agents", manifest(name))
        told: list[str] = []
        await uninstall(api, chosen, told.append, seconds=0.0)
        await api.aclose()
    assert "2 agents in 1 namespaces, which go with their CustomResourceDefinition" in told
    kinds = [line.split()[0] for line in told]
    last = len(kinds) - 1 - kinds[::-1].index("Namespace")
    assert all(kinds.index("CustomResourceDefinition") > place for place in (last, kinds.index("Deployment")))
