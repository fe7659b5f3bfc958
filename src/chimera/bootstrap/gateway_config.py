"""What the gateway process is told at its start: one JSON document from the supervisor.

Paths are absolute. Secrets come as files of mode 0600 or, for models, as references: `env:NAME` or `file:PATH`.
`settings` holds groups by name (`chimera.gateway.settings.gateway_groups`), each a mapping; what isn't given has its
default.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from chimera.gateway.guard import LOOPBACK_NAMES, check_listen
from chimera.gateway.identity.claims import IssuerConfig, all_faults
from chimera.gateway.settings import GatewaySettings, gateway_groups
from chimera.kernel.settings import SettingsError, load_group

Port = Annotated[int, Meta(ge=0, le=65535)]


class ModelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One model that agents may name. `model` is its name at the provider; prices are US dollars a million tokens.

    `script` is a scripted provider's file. `timeout` is for all attempts of a call together, at most the deadline
    chain's `model`.
    """

    provider: Literal["openai", "local", "scripted"]
    base_url: str | None = None
    api_key: str | None = None
    model: str | None = None
    usd_per_million_prompt_tokens: Annotated[float, Meta(ge=0)] | None = None
    usd_per_million_completion_tokens: Annotated[float, Meta(ge=0)] | None = None
    timeout: Annotated[float, Meta(gt=0)] | None = None
    max_concurrency: Annotated[int, Meta(ge=1)] = 64
    attempts: Annotated[int, Meta(ge=1, le=10)] | None = None
    script: str | None = None


class GatewayConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The gateway's start.

    `key_file` holds the key that callers show, `token_secret_file` the secret that signs hosts' tokens
    (`chimera.gateway.tokens.mint`), `webhook_key_file` the key that signs deliveries, unless the settings name another;
    without either it is the home's. Hosts reach the internal API at `internal_socket` (a Unix socket's path) or,
    without it, at `internal_port` of `internal_host`. `lifeline_fd` is a pipe whose end of file ends the process; on
    `ready_fd` one line of JSON says where it listens (`{"public": url, "internal": url}`), once it does.
    `database` is a SQLite file or a server's URL, `database_password` where its password is (`env:NAME`, `file:PATH`).
    `public_fd` and `internal_fd` are listening sockets made by the parent instead: while the gateway is started again,
    connections wait in them.

    In a cluster `knative` is the group of that name, and there is no node agent; `kubeconfig` names the cluster, by
    default the one that this process is a pod of. Hosts reach the internal API at any gateway at their start
    (`internal_names` are what that address says in a Host header), and at `platform_url`, this one, for its calls. The
    control plane is at an http URL instead of a socket's path, and shown `control_plane_key_file`. `mounted_secrets`
    says that who may read the secrets' files was decided where they were mounted. `drain_pause` and `drain` are in
    place of those settings' own defaults (`http`). `broker` is the ingress of the Broker that events go to agents by,
    unless the settings name another; it delivers to `broker_port`. `audit_keys_file` has the public keys of the audit
    log, in place of the home's.
    """

    home: str
    key_file: str
    token_secret_file: str
    webhook_key_file: str | None = None
    database: str
    control_plane_socket: str
    node_socket: str = ""
    host: str = "127.0.0.1"
    port: Port = 8080
    hosts: tuple[str, ...] = ()
    tls_certificate: str | None = None
    tls_key: str | None = None
    behind_proxy: bool = False
    internal_socket: str | None = None
    internal_host: str = "127.0.0.1"
    internal_port: Port = 0
    internal_names: tuple[str, ...] = ()
    metrics_port: Port = 0
    broker: str = ""
    broker_port: Port = 0
    platform_url: str | None = None
    control_plane_key_file: str | None = None
    audit_keys_file: str | None = None
    knative: dict[str, Any] | None = None
    kubeconfig: str | None = None
    mounted_secrets: bool = False
    models: dict[str, ModelConfig] = {}
    issuers: dict[str, IssuerConfig] = {}
    settings: dict[str, dict[str, Any]] = {}
    database_password: str | None = None
    drain_pause: Annotated[float, Meta(ge=0)] | None = None
    drain: Annotated[float, Meta(ge=0)] | None = None
    lifeline_fd: int | None = None
    ready_fd: int | None = None
    public_fd: int | None = None
    internal_fd: int | None = None


def read_config(source: str) -> GatewayConfig:
    """The configuration from a file, from standard input (`-`) or from an open descriptor (a number)."""
    if source == "-" or source.isdecimal():
        with os.fdopen(0 if source == "-" else int(source), "rb") as file:
            data = file.read()
    else:
        data = Path(source).read_bytes()
    try:
        return msgspec.json.decode(data, type=GatewayConfig)
    except msgspec.MsgspecError as error:
        raise SettingsError([f"the gateway's configuration is not valid: {error}"]) from error


def load_settings(config: GatewayConfig) -> GatewaySettings:
    """The settings, checked one by one and against each other."""
    known = gateway_groups()
    if unknown := sorted(set(config.settings) - set(known)):
        raise SettingsError([f"settings: unknown group {name!r}; known: {', '.join(known)}" for name in unknown])
    ending = {"drain_pause": config.drain_pause, "drain": config.drain}
    there = {"http": {name: value for name, value in ending.items() if value is not None}}
    read: dict[str, Any] = {
        name: load_group(kind, {**there.get(name, {}), **config.settings.get(name, {})}, where=f"settings.{name}")
        for name, kind in known.items()
    }
    if config.broker and not read["events"].broker:
        read["events"] = dataclasses.replace(read["events"], broker=config.broker)
    settings = GatewaySettings(**read)
    settings.deadlines.check()
    settings.tasks.check()
    settings.events.check()
    settings.functions.check()
    for name, model in config.models.items():
        most = settings.deadlines.model
        if model.timeout is not None and model.timeout > most:
            raise SettingsError([f"models.{name}.timeout ({model.timeout:g} s) is above deadlines.model ({most:g} s)"])
    if wrong := all_faults(config.issuers):
        raise SettingsError(wrong)
    if (config.tls_certificate is None) != (config.tls_key is None):
        raise SettingsError(["tls_certificate and tls_key belong together"])
    check_listen(config.host, tls=config.tls_certificate is not None, behind_proxy=config.behind_proxy)
    return settings


def allowed_hosts(config: GatewayConfig) -> frozenset[str]:
    """Names that a Host header may say."""
    listening = f"[{config.host}]" if ":" in config.host else config.host
    return LOOPBACK_NAMES | {listening.lower()} | {name.lower() for name in config.hosts}


def read_secret(path: str, what: str, *, mounted: bool = False) -> bytes:
    """A secret from a file that nobody else may read, unless it is `mounted`."""
    file = Path(path)
    try:
        if not mounted and file.stat().st_mode & 0o077:
            raise SettingsError([f"{what}: others may read {path}; chmod 600 {path}"])
        secret = file.read_bytes().strip()
    except OSError as error:
        raise SettingsError([f"{what}: {error}"]) from error
    if len(secret) < 16:
        raise SettingsError([f"{what}: {path} holds fewer than 16 bytes; make a longer one"])
    return secret


def resolve_key(reference: str | None, environ: Mapping[str, str], where: str) -> str | None:
    """A model's key from its reference."""
    if reference is None:
        return None
    kind, _, name = reference.partition(":")
    if kind == "env" and name:
        if name not in environ:
            raise SettingsError([f"{where}: the environment has no {name}"])
        return environ[name]
    if kind == "file" and name:
        return read_secret(name, where).decode()
    raise SettingsError([f"{where}: a key is given as env:NAME or file:PATH, never as itself"])
