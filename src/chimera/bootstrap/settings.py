"""One machine's settings: a TOML file in the home folder, overridden by `CHIMERA_*` variables and the command line.

    [node]                    groups of dataclass settings: node, knative, operator, retention, deadlines, admission, …
    max_hosts = 2
    [model.default]           models that agents may name (see `ModelConfig`)
    provider = "openai"
    base_url = "https://models.example/v1"
    api_key = "env:MODEL_KEY"
    [issuer.login]            who signs users' tokens (see `IssuerConfig`)
    issuer = "https://login.example.com"
    audience = "chimera"
    jwks = "https://login.example.com/keys"
    tenant = "default"

A variable `CHIMERA_NODE__MAX_HOSTS=4` sets `max_hosts` of the group `node` (`chimera.kernel.settings`). The environment
is read here and nowhere below.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.bootstrap.gateway_config import ModelConfig
from chimera.delivery.git.settings import SyncSettings
from chimera.delivery.scanning.settings import ScanningSettings
from chimera.delivery.settings import DeliverySettings
from chimera.delivery.trials.settings import TrialSettings
from chimera.gateway.identity.claims import IssuerConfig, all_faults
from chimera.gateway.settings import gateway_groups
from chimera.jaegis.settings import jaegis_groups, load_jaegis
from chimera.kernel.settings import FILE_NAME, SettingsError, load_group, read_groups
from chimera.platform.settings import NodeSettings
from chimera.platform.upkeep.settings import RetentionSettings, UpkeepSettings


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineSettings:
    """Everything that is set in a home. `gateway` and `jaegis` hold their groups as they were written."""

    node: NodeSettings
    retention: RetentionSettings
    upkeep: UpkeepSettings
    delivery: DeliverySettings
    trials: TrialSettings
    knative: KnativeSettings
    operator: OperatorSettings
    scanning: ScanningSettings
    sync: SyncSettings
    gateway: dict[str, dict[str, Any]]
    jaegis: dict[str, dict[str, Any]]
    models: dict[str, ModelConfig]
    issuers: dict[str, IssuerConfig]


def load(home: Path, environ: Mapping[str, str] | None = None) -> MachineSettings:
    """Read the settings of a home; raises `SettingsError` with every problem."""
    environ = os.environ if environ is None else environ
    file = home / FILE_NAME
    data = read_groups(file, environ)
    plain = {"node", "knative", "operator", "retention", "upkeep", "scanning", "delivery", "sync", "trials"}
    plain |= {"model", "issuer"}
    known = plain | gateway_groups().keys() | jaegis_groups().keys()
    if unknown := sorted(set(data) - known):
        raise SettingsError([f"{file}: unknown group {name!r}; known: {', '.join(sorted(known))}" for name in unknown])
    try:
        models = msgspec.convert(data.get("model", {}), dict[str, ModelConfig])
    except msgspec.ValidationError as error:
        raise SettingsError([f"{file}: model: {error}"]) from None
    try:
        issuers = msgspec.convert(data.get("issuer", {}), dict[str, IssuerConfig])
    except msgspec.ValidationError as error:
        raise SettingsError([f"{file}: issuer: {error}"]) from None
    if wrong := all_faults(issuers):
        raise SettingsError([f"{file}: {fault}" for fault in wrong])
    operator = load_group(OperatorSettings, data.get("operator", {}), where=f"{file}: operator")
    operator.check()
    jaegis = {name: data[name] for name in jaegis_groups() if name in data}
    load_jaegis(jaegis, where=f"{file}: ")
    here = {"max_hosts": os.cpu_count() or 2}
    return MachineSettings(
        node=load_group(NodeSettings, {**here, **data.get("node", {})}, where=f"{file}: node"),
        retention=load_group(RetentionSettings, data.get("retention", {}), where=f"{file}: retention"),
        upkeep=load_group(UpkeepSettings, data.get("upkeep", {}), where=f"{file}: upkeep"),
        delivery=load_group(DeliverySettings, data.get("delivery", {}), where=f"{file}: delivery"),
        trials=load_group(TrialSettings, data.get("trials", {}), where=f"{file}: trials"),
        knative=load_group(KnativeSettings, data.get("knative", {}), where=f"{file}: knative"),
        operator=operator,
        scanning=load_group(ScanningSettings, data.get("scanning", {}), where=f"{file}: scanning"),
        sync=load_group(SyncSettings, data.get("sync", {}), where=f"{file}: sync"),
        gateway={name: data[name] for name in gateway_groups() if name in data},
        jaegis=jaegis,
        models=models,
        issuers=issuers,
    )
