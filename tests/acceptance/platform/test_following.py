"""Following a branch from a cluster: a Git server in a pod, a credential in a Secret, a clone that goes with its pod.

Needs what `homes` says of a cluster, and the images of the platform and of functions. The server is the platform's own
image with dulwich's HTTP server, in a namespace that control planes reach by `--egress` alone. It takes two minutes.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from chimera.adapters.substrates.knative import places
from chimera.adapters.substrates.knative.access import from_kubeconfig
from chimera.adapters.substrates.knative.forwarding import Forwarding
from chimera.adapters.substrates.knative.installer import KINDS, NAMESPACES
from chimera.adapters.substrates.knative.objects import PODS
from chimera.adapters.substrates.knative.pods import READY, SEEN_PODS, phase
from chimera.kernel.clock import SystemClock

from .homes import NEEDED, PATIENCE, Cluster

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

PORT = 8080
PASSWORD = "a-password-of-the-test"
NAMED = "git_default_token"
AGENTS = 12
SERVER = '''
"""Serves one repository over HTTP to who shows the password; a POST of files to /commit is a commit."""
import base64, json, os
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIServer, make_server

from dulwich import porcelain
from dulwich.repo import Repo
from dulwich.server import DictBackend
from dulwich.web import make_wsgi_chain

folder = Path("/repository/catalogue")
folder.mkdir()
repo = Repo.init(str(folder))
repo.refs.set_symbolic_ref(b"HEAD", b"refs/heads/main")
serving = make_wsgi_chain(DictBackend({"/catalogue": repo}))
shown = "Basic " + base64.b64encode(("git:" + os.environ["PASSWORD"]).encode()).decode()


def answer(environ, start):
    if environ["PATH_INFO"] == "/commit":
        files = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        porcelain.add(repo, [str(folder / name) for name in files])
        who = b"Ann <ann@example.com>"
        made = porcelain.commit(repo, message=b"Change", author=who, committer=who)
        start("200 OK", [("Content-Type", "text/plain")])
        return [made]
    if environ.get("HTTP_AUTHORIZATION") != shown:
        start("401 Unauthorized", [("WWW-Authenticate", "Basic realm=git")])
        return [b""]
    return serving(environ, start)


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


make_server("0.0.0.0", 8080, answer, server_class=Server).serve_forever()
'''
GREETER = """\
schema_version: "ADaC v2.0"
metadata: {{name: {name}, version: "{version}", description: Greets who comes.}}
specification: {{framework: function}}
capabilities: {{primary_functions: [greet]}}
"""


class Followed(Cluster):
    """A cluster, with a Git server beside the platform."""

    way_to_git: Forwarding

    @property
    def elsewhere(self) -> str:
        return f"{self.namespace}-git"

    @property
    def git(self) -> str:
        return f"git.{self.elsewhere}.svc.cluster.local:{PORT}"

    async def prepare(self) -> None:
        for namespace in (self.namespace, self.elsewhere):
            await self.make("Namespace", None, namespace, {})
        await self.make("Secret", self.namespace, places.DELIVERY, {"stringData": {NAMED: PASSWORD}})
        await self.make("ConfigMap", self.elsewhere, "server", {"data": {"server.py": SERVER}})
        ports = [{"port": PORT, "targetPort": PORT, "protocol": "TCP"}]
        await self.make("Service", self.elsewhere, "git", {"spec": {"selector": {"app": "git"}, "ports": ports}})
        container = {
            "name": "git",
            "image": self.images.replace("{name}", "chimera-platform"),
            "command": ["/opt/chimera/bin/python", "/server/server.py"],
            "env": [{"name": "PASSWORD", "value": PASSWORD}, {"name": "HOME", "value": "/repository"}],
            "volumeMounts": [
                {"name": "server", "mountPath": "/server"},
                {"name": "repository", "mountPath": "/repository"},
            ],
        }
        volumes = [{"name": "server", "configMap": {"name": "server"}}, {"name": "repository", "emptyDir": {}}]
        user = {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532}
        pod = {"containers": [container], "volumes": volumes, "securityContext": user}
        meta = {"name": "git", "namespace": self.elsewhere, "labels": {"app": "git"}}
        await self.api.apply(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod}, manager="tests")
        sync = f'[sync]\nhosts = ["{self.git}"]\ninsecure_hosts = ["{self.git}"]\nlongest_wait = 2.0'
        await self.install(start_timeout=60, more=sync, options=["--egress", f"{self.elsewhere}:{PORT}"])
        await self.connect()
        async with asyncio.timeout(PATIENCE):
            while phase(await self.api.get(SEEN_PODS, self.elsewhere, "git")) != READY:  # noqa: ASYNC110
                await asyncio.sleep(0.5)

    async def make(self, kind: str, namespace: str | None, name: str, more: dict[str, Any]) -> None:
        meta = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
        made = {"apiVersion": KINDS[kind].api_version, "kind": kind, "metadata": meta, **more}
        await self.api.apply(KINDS[kind], made, manager="tests")

    async def commit(self, version: str, names: list[str]) -> str:
        """Commit these agents at a version."""
        files = {f"agents/{name}.yaml": GREETER.format(name=name, version=version) for name in names}
        async with self.session.post(f"http://127.0.0.1:{self.way_to_git.port}/commit", data=json.dumps(files)) as done:
            assert done.status == 200, await done.text()
            return await done.text()

    async def until(self, commit: str) -> dict[str, Any]:
        """The source once this commit is live; a control plane that is away is waited for."""
        state: Any = None
        async with asyncio.timeout(PATIENCE):
            while True:
                with suppress(aiohttp.ClientError, OSError):
                    url = f"{self.url}/v1/tenants/default/sources/catalogue"
                    headers = {"Authorization": f"Bearer {self.key}"}
                    async with self.session.get(url, headers=headers) as answer:
                        state = (await answer.json()).get("state") or state
                if state is not None and (state["phase"], state.get("commit")) == ("current", commit):
                    return dict(state)
                await asyncio.sleep(0.5)

    async def remove(self) -> None:
        if self.way is not None:
            await (await self.start("sync", "remove", "catalogue")).communicate()
        await self.api.delete(NAMESPACES, None, self.elsewhere)
        await super().remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def followed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Followed]:
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        pytest.skip(f"no cluster: {', '.join(missing)} not set")
    made = Followed(tmp_path_factory.mktemp("followed"), os.environ["CHIMERA_TEST_KUBECONFIG"])
    try:
        await made.prepare()

        async def choose() -> str:
            return "git"

        access = from_kubeconfig(Path(made.kubeconfig), SystemClock())
        timeout = aiohttp.ClientTimeout(total=30)
        async with (
            Forwarding(access, made.elsewhere, choose, PORT) as way,
            aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as session,
        ):
            made.way_to_git, made.session = way, session
            yield made
    finally:
        await made.remove()


async def test_a_branch_is_followed_by_whichever_control_plane_there_is(followed: Followed) -> None:
    names = [f"greeter-{number:02}" for number in range(AGENTS)]
    first = await followed.commit("1.0.0", names)
    refused = await followed.start("sync", "add", "other", "https://git.example.com/x")
    assert await refused.wait() != 0, "hosts are allowed by name"
    url = f"http://{followed.git}/catalogue"
    began = time.monotonic()
    await followed.run("sync", "add", "catalogue", url, "--credential", f"secret:{NAMED}", "--interval", "5")
    state = await followed.until(first)
    print(f"{AGENTS} agents are live {time.monotonic() - began:.1f} s after the branch was named")
    assert state["agents"] == AGENTS
    assert await followed.answer("greeter-03", "hello")

    await followed.kill_control_plane()  # and its clone with it
    second = await followed.commit("1.1.0", names[:3])
    began = time.monotonic()
    await followed.until(second)
    print(f"a commit is live {time.monotonic() - began:.1f} s after the pod that followed was taken away")
    rows = (await followed.get("/v1/tenants/default/agents?limit=100"))["agents"]
    found = {row["name"]: row["version"] for row in rows if row["name"].startswith("greeter-")}
    assert found == {name: "1.1.0" if name in names[:3] else "1.0.0" for name in names}
    assert (await followed.data("describe", "greeter-00"))["pin"]["commit"] == second
    assert (await followed.data("describe", "greeter-09"))["pin"]["commit"] == first
