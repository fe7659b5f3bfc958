"""How to reach a cluster: from a kubeconfig, or from what Kubernetes mounts into a pod.

Tokens are asked for before each request, because they change: a mounted token is read again every minute, and a
credential plugin (`exec`, as GKE, EKS and AKS use) is run again when what it gave is about to end, or isn't taken any
more: some plugins say no end. What a kubeconfig may say and this doesn't use (`auth-provider`, proxies, impersonation)
is refused by name, never passed over.
"""

import asyncio
import base64
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec
import yaml

from chimera.adapters.substrates.knative.errors import AccessFault
from chimera.kernel.clock import Clock

MOUNTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TOKEN_FRESH = 60.0
PLUGIN_TIMEOUT = 60.0
PLUGIN_MARGIN = 60.0
NOT_USED = ("auth-provider", "username", "as", "as-groups", "as-uid", "proxy-url")


class Credentials(Protocol):
    """What proves who asks."""

    async def header(self) -> str | None:
        """The Authorization header of the next request; None where the connection's certificate says it."""

    def refused(self, header: str) -> bool:
        """The API server didn't take `header`; whether another may be had by asking again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterAccess:
    """A cluster: its API server's URL, TLS, credentials, and the namespace that is meant where none is named.

    `server_name` is the one that its certificate must have, where that isn't the URL's.
    """

    server: str
    tls: ssl.SSLContext | None
    credentials: Credentials
    namespace: str
    server_name: str | None = None


class NoToken:
    """The client certificate, or nothing, says who asks."""

    async def header(self) -> str | None:
        """None."""
        return None

    def refused(self, header: str) -> bool:
        """There is no other."""
        return False


class FixedToken:
    """A token that never changes."""

    def __init__(self, token: str) -> None:
        """Show `token`."""
        self._header = f"Bearer {token}"

    async def header(self) -> str | None:
        """The token."""
        return self._header

    def refused(self, header: str) -> bool:
        """There is no other."""
        return False


class TokenFile:
    """A token in a file that somebody keeps fresh."""

    def __init__(self, file: Path, clock: Clock) -> None:
        """Read `file` when the last reading is a minute old."""
        self._file = file
        self._clock = clock
        self._read_at = float("-inf")
        self._header = ""

    async def header(self) -> str | None:
        """The newest token."""
        now = self._clock.monotonic()
        if now - self._read_at > TOKEN_FRESH:
            try:
                self._header = f"Bearer {self._file.read_text().strip()}"
            except OSError as error:
                raise AccessFault(f"the token can't be read: {error}", next_step="mount the token there") from error
            self._read_at = now
        return self._header

    def refused(self, header: str) -> bool:
        """It is read again every minute, which is soon enough."""
        return False


class PluginToken:
    """A token from a credential plugin, a program that prints an `ExecCredential`."""

    def __init__(self, plugin: Mapping[str, Any], clock: Clock) -> None:
        """Run what the kubeconfig's `exec` says."""
        self._command = (str(plugin["command"]), *map(str, plugin.get("args") or ()))
        self._environment = {str(pair["name"]): str(pair["value"]) for pair in plugin.get("env") or ()}
        self._version = str(plugin.get("apiVersion", "client.authentication.k8s.io/v1"))
        self._clock = clock
        self._lock = asyncio.Lock()
        self._header = ""
        self._until = float("-inf")

    async def header(self) -> str | None:
        """The newest token; the plugin runs once for all who ask meanwhile."""
        async with self._lock:
            if self._clock.wall() > self._until - PLUGIN_MARGIN:
                await self._run()
        return self._header

    def refused(self, header: str) -> bool:
        """The plugin is run once for all who were refused with the same token."""
        if header == self._header:
            self._until = float("-inf")
        return True

    async def _run(self) -> None:
        wanted = {"apiVersion": self._version, "kind": "ExecCredential", "spec": {"interactive": False}}
        told = {"KUBERNETES_EXEC_INFO": msgspec.json.encode(wanted).decode()}
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, **self._environment, **told},
            )
        except OSError as error:
            raise self._fault(str(error)) from error
        try:
            async with asyncio.timeout(PLUGIN_TIMEOUT):
                output, words = await process.communicate()
        except TimeoutError:
            process.kill()
            raise self._fault(f"it did not end within {PLUGIN_TIMEOUT:.0f} s") from None
        if process.returncode != 0:
            raise self._fault(f"exit code {process.returncode}: {words[-500:].decode(errors='replace').strip()}")
        try:
            status = msgspec.json.decode(output)["status"]
            self._header = f"Bearer {status['token']}"
            ends = status.get("expirationTimestamp")
            self._until = datetime.fromisoformat(ends).timestamp() if ends else float("inf")
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise self._fault("it printed no credential with a token") from error

    def _fault(self, what: str) -> AccessFault:
        return AccessFault(
            f"the credential plugin {self._command[0]} failed: {what}",
            next_step="run it by hand, and log in again if it says so",
        )


def in_cluster(environ: Mapping[str, str], clock: Clock, *, mounted: Path = MOUNTED) -> ClusterAccess | None:
    """The cluster that this process is a pod of; None outside one."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (mounted / "token").exists():
        return None
    shown = f"[{host}]" if ":" in host else host
    return ClusterAccess(
        server=f"https://{shown}:{port}",
        tls=ssl.create_default_context(cafile=str(mounted / "ca.crt")),
        credentials=TokenFile(mounted / "token", clock),
        namespace=(mounted / "namespace").read_text().strip(),
    )


def from_kubeconfig(file: Path, clock: Clock, *, context: str | None = None) -> ClusterAccess:
    """The cluster of a kubeconfig's `context`, or of its current one. Raises `AccessFault`."""
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
        name = context or value["current-context"]
        chosen = _named(value["contexts"], name, "context")
        cluster = _named(value["clusters"], chosen["cluster"], "cluster")
        user = _named(value["users"], chosen["user"], "user") if chosen.get("user") else {}
        if unused := [field for field in NOT_USED if user.get(field) or cluster.get(field)]:
            raise AccessFault(
                f"{file}: {', '.join(unused)} is not used here", next_step="use a token, a certificate or exec"
            )
        return ClusterAccess(
            server=str(cluster["server"]).rstrip("/"),
            tls=_tls(file.parent, cluster, user),
            credentials=_credentials(file.parent, user, clock),
            namespace=str(chosen.get("namespace") or "default"),
            server_name=cluster.get("tls-server-name") or None,
        )
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise AccessFault(f"{file} can't be read: {error}", next_step="give another --kubeconfig") from error
    except (KeyError, TypeError, ValueError) as error:
        raise AccessFault(
            f"{file} is not a kubeconfig with a usable context ({error})", next_step="see `kubectl config view`"
        ) from error


def _named(entries: Any, name: str, kind: str) -> dict[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            found: dict[str, Any] = entry[kind]
            return found
    raise KeyError(f"no {kind} {name}")


def _tls(folder: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext | None:
    if not str(cluster["server"]).startswith("https://"):
        return None
    authority = _content(folder, cluster, "certificate-authority")
    tls = ssl.create_default_context(cadata=authority.decode() if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    certificate, key = _content(folder, user, "client-certificate"), _content(folder, user, "client-key")
    if certificate and key:
        # OpenSSL takes a chain and its key from files alone; this one lives for a moment, for this user.
        descriptor, name = tempfile.mkstemp(prefix="chimera-")
        try:
            with os.fdopen(descriptor, "wb") as pair:
                pair.write(certificate + b"\n" + key)
            tls.load_cert_chain(name)
        finally:
            Path(name).unlink()
    return tls


def _credentials(folder: Path, user: Mapping[str, Any], clock: Clock) -> Credentials:
    if user.get("exec"):
        return PluginToken(user["exec"], clock)
    if user.get("tokenFile"):
        return TokenFile(folder / user["tokenFile"], clock)
    return FixedToken(str(user["token"])) if user.get("token") else NoToken()


def _content(folder: Path, entry: Mapping[str, Any], name: str) -> bytes | None:
    if entry.get(f"{name}-data"):
        return base64.b64decode(entry[f"{name}-data"], validate=True)
    return (folder / entry[name]).read_bytes() if entry.get(name) else None
