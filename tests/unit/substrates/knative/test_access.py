"""Ways to reach a cluster: kubeconfigs with certificates, tokens and plugins, and what is mounted into a pod."""

import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from chimera.adapters.substrates.knative.access import from_kubeconfig, in_cluster
from chimera.adapters.substrates.knative.errors import AccessFault
from chimera.kernel.clock import SystemClock
from chimera.testing.clock import ManualClock


def kubeconfig(folder: Path, user: dict[str, Any], cluster: dict[str, Any] | None = None) -> Path:
    file = folder / "config"
    value = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "mine"}}],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
    }
    file.write_text(yaml.safe_dump(value))
    return file


def plugin(folder: Path, body: str) -> dict[str, Any]:
    file = folder / "plugin"
    file.write_text(f"#!/bin/sh\necho run >> {folder}/runs\n{body}\n")
    file.chmod(stat.S_IRWXU)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(file), "args": ["get"]}}


async def test_a_token_of_a_kubeconfig(tmp_path: Path) -> None:
    access = from_kubeconfig(kubeconfig(tmp_path, {"token": "abc"}), SystemClock())
    assert (access.server, access.namespace) == ("http://127.0.0.1:1", "mine")
    assert await access.credentials.header() == "Bearer abc"


async def test_a_token_file_is_read_again_after_a_minute(tmp_path: Path) -> None:
    clock = ManualClock()
    (tmp_path / "token").write_text("one\n")
    access = from_kubeconfig(kubeconfig(tmp_path, {"tokenFile": "token"}), clock)
    assert await access.credentials.header() == "Bearer one"
    (tmp_path / "token").write_text("two\n")
    assert await access.credentials.header() == "Bearer one"
    clock.advance(61)
    assert await access.credentials.header() == "Bearer two"


async def test_a_plugin_is_run_once_until_what_it_gave_is_about_to_end(tmp_path: Path) -> None:
    clock = ManualClock(now=1_000_000.0)
    ends = datetime.fromtimestamp(1_000_600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    answer = f'{{"status": {{"token": "from-plugin", "expirationTimestamp": "{ends}"}}}}'
    said = plugin(tmp_path, f"echo '{answer}'")
    access = from_kubeconfig(kubeconfig(tmp_path, said), clock)
    for advance, runs in ((0, 1), (500, 1), (60, 2)):
        clock.advance(advance)
        assert await access.credentials.header() == "Bearer from-plugin"
        assert (tmp_path / "runs").read_text().count("run") == runs


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo no luck >&2; exit 3", "exit code 3: no luck"),
        ("echo nonsense", "no credential"),
        ("echo '{}'", "no credential"),
    ],
)
async def test_a_plugin_that_fails_says_what_it_said(tmp_path: Path, body: str, words: str) -> None:
    access = from_kubeconfig(kubeconfig(tmp_path, plugin(tmp_path, body)), SystemClock())
    with pytest.raises(AccessFault, match=words):
        await access.credentials.header()


async def test_a_plugin_that_is_not_installed_is_named(tmp_path: Path) -> None:
    user = {"exec": {"command": str(tmp_path / "gke-gcloud-auth-plugin")}}
    access = from_kubeconfig(kubeconfig(tmp_path, user), SystemClock())
    with pytest.raises(AccessFault, match="gke-gcloud-auth-plugin"):
        await access.credentials.header()


@pytest.mark.parametrize(
    ("user", "cluster", "words"),
    [
        ({"auth-provider": {"name": "gcp"}}, {}, "auth-provider"),
        ({"token": "a", "as": "somebody"}, {}, "as is not used"),
        ({"token": "a"}, {"proxy-url": "http://proxy.example"}, "proxy-url"),
        (
            {"client-certificate-data": "%%%", "client-key-data": "%%%"},
            {"server": "https://127.0.0.1:1"},
            "not a kubeconfig",
        ),
    ],
)
def test_what_is_not_used_is_refused_by_name(
    tmp_path: Path, user: dict[str, Any], cluster: dict[str, Any], words: str
) -> None:
    with pytest.raises(AccessFault, match=words):
        from_kubeconfig(kubeconfig(tmp_path, user, cluster), SystemClock())


def test_a_context_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AccessFault, match="no context elsewhere"):
        from_kubeconfig(kubeconfig(tmp_path, {"token": "a"}), SystemClock(), context="elsewhere")
    with pytest.raises(AccessFault, match="can't be read"):
        from_kubeconfig(tmp_path / "none", SystemClock())


def test_outside_a_cluster_there_is_none(tmp_path: Path) -> None:
    assert in_cluster({}, SystemClock(), mounted=tmp_path) is None
    assert in_cluster({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, SystemClock(), mounted=tmp_path) is None
