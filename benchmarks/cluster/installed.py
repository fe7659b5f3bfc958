"""Chimera in a cluster, installed for a measurement and taken out after it, and called as a client calls it."""

import asyncio
import base64
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from msgspec import Struct

from benchmarks.cluster.api import Cluster
from benchmarks.platform import Broken
from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.forwarding import Forwarding, any_ready
from chimera.adapters.substrates.knative.objects import Meta, Resource
from chimera.agents.bundle import pack_folder
from chimera.agents.catalogue import source_digest

NAMESPACE = "chimera-bench"
TENANT = "/v1/tenants/default"
CODE = """
def make(context):
    async def answer(prompt, call):
        return prompt
    return answer
"""
DEFINITION = """
schema_version: ADaC v2.0
metadata: {{name: {name}, version: 1.0.0, description: Says what it is told.}}
specification: {{framework: function, runtime: "python:3.11-slim", resources: {{cpu: 100m, memory: 128Mi}}{source}}}
capabilities: {{primary_functions: [say what it is told]}}
isolation: {isolation}
scaling: {{idle_timeout: 7s, concurrency_target: {target}, max_instances: 1}}
"""
SETTINGS = """
[node]
database = "{database}"
[knative]
namespace = "{cells}"
image = "{image}"
window = 6
request_share = 0.05
threads = 8
warm_pool = 0
[model.default]
provider = "scripted"
"""


class _Secret(Struct, frozen=True, kw_only=True):
    metadata: Meta = Meta()
    data: dict[str, str] = {}


class _PodAddress(Struct, frozen=True, kw_only=True, rename={"address": "podIP"}):
    address: str = ""
    phase: str = ""


class _Pod(Struct, frozen=True, kw_only=True):
    metadata: Meta = Meta()
    status: _PodAddress = _PodAddress()


SECRETS = Resource("", "v1", "secrets", "Secret", _Secret)
ADDRESSES = Resource("", "v1", "pods", "Pod", _Pod)


class Installed:
    """Use as an asynchronous context manager."""

    session: aiohttp.ClientSession

    def __init__(self, cluster: Cluster, folder: Path, images: str, database: str) -> None:
        """Nothing is installed yet."""
        self.cluster = cluster
        self.cells = f"{NAMESPACE}-cells"
        self.key = ""
        self._folder, self._images, self._database = folder, images, database
        self._way: Forwarding | None = None
        self._digest = ""
        self._code = b""

    async def __aenter__(self) -> Self:
        """Install, and reach the gateway."""
        image = self._images.replace("{name}", "chimera-host-{framework}")
        text = SETTINGS.format(database=self._database, cells=self.cells, image=image)
        (self._folder / "settings.toml").write_text(text)
        platform = self._images.replace("{name}", "chimera-platform")
        await self._chimera("install", "--image", platform, "--replicas", "1", "--database-secret", "")
        kept = await self.cluster.api.get(SECRETS, NAMESPACE, "chimera-keys")
        self.key = base64.b64decode(kept.data["chimera.key"]).decode()
        gateway = any_ready(
            self.cluster.api, NAMESPACE, "app.kubernetes.io/name=chimera,app.kubernetes.io/component=gateway"
        )
        self._way = await Forwarding(self.cluster.access, NAMESPACE, gateway, 8080).__aenter__()
        code = self._folder / "code"
        code.mkdir(exist_ok=True)
        (code / "told.py").write_text(CODE)
        packed = pack_folder(code)
        self._digest, self._code = packed.digest, packed.data
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Take it out."""
        if self._way is not None:
            await self._way.__aexit__(kind, error, at)
        await self._chimera("uninstall")

    async def apply(self, name: str, *, own: bool, target: int = 10) -> None:
        """Put an agent into service: with the code and a cell of its own, or declared and in the shared one."""
        source = ', source: ./code, entrypoint: "told:make"' if own else ""
        isolation = "dedicated" if own else "shared"
        text = DEFINITION.format(name=name, source=source, isolation=isolation, target=target)
        bundle = {"bundle": self._digest} if own else {}
        if own:
            await self._ask("PUT", f"{TENANT}/bundles/{self._digest}", data=self._code)
        batch = (await self._ask("POST", f"{TENANT}/batches", json={}))["batch"]
        digest = source_digest(text.encode(), bundle.get("bundle"))
        item = {"source": digest, "file": f"{name}.yaml", "text": text, **bundle}
        where = f"{TENANT}/batches/{batch}"
        sent = await self._ask("POST", f"{where}/definitions", json={"first": 0, "items": [item]})
        if faults := [one for one in sent["results"] if one.get("faults")]:
            raise Broken(f"not valid: {faults}")
        await self._ask("POST", f"{where}/commit", json={})

    async def call(self, name: str) -> bool:
        """One call; whether it was answered."""
        return not await self._wrong(name)

    async def answers(self, name: str) -> None:
        """Call; the platform itself waits for the cell."""
        if wrong := await self._wrong(name):
            raise Broken(f"{name} did not answer: {wrong}")

    async def _wrong(self, name: str) -> str:
        """One call, and what is wrong with its answer; empty if nothing is."""
        assert self._way is not None
        url = f"http://127.0.0.1:{self._way.port}{TENANT}/agents/{name}/invoke"
        async with self.session.post(url, json={"input": "hello"}, headers=self._headers()) as answer:
            said = await answer.text()
            good = answer.status == 200 and "hello" in msgspec.json.decode(said)["output"]
            return "" if good else f"{answer.status} {said}"

    def inside(self, name: str) -> str:
        """Where a pod calls the agent."""
        return f"http://chimera.{NAMESPACE}.svc.cluster.local:8080{TENANT}/agents/{name}/invoke"

    async def service(self, name: str) -> str:
        """The Knative Service of an agent's cell."""
        found = await self._ask("GET", f"{TENANT}/agents/{name}")
        return names.service_name(str(found["cell"]), "function")

    async def address_of(self, namespace: str, selector: str) -> str:
        """The address of the first pod that runs."""
        found = (await self.cluster.api.list(ADDRESSES, namespace, selector)).items
        return next(
            one.status.address
            for one in found
            if one.status.phase == "Running" and one.metadata.deletion_timestamp is None
        )

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    async def _ask(self, method: str, path: str, **body: Any) -> Any:
        assert self._way is not None
        url = f"http://127.0.0.1:{self._way.port}{path}"
        async with self.session.request(method, url, headers=self._headers(), **body) as answer:
            if answer.status >= 300:
                raise Broken(f"{method} {path}: {answer.status} {(await answer.text())[:500]}")
            return await answer.json() if answer.status != 204 and answer.content_length != 0 else None

    async def _chimera(self, command: str, *options: str) -> None:
        """One command of the command line."""
        place = ["--substrate", "knative", "--kubeconfig", str(self.cluster.kubeconfig), "--namespace", NAMESPACE]
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("chimera")),
            *("--home", str(self._folder), command, *place, "--wait", "240", *options),
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        if process.returncode != 0:
            raise Broken(f"chimera {command} failed: {output.decode()[-1000:]}")
