"""One machine's settings: a TOML file in the home folder, overridden by `CHIMERA_*` variables and the command line.

    [node]                    groups of dataclass settings: node, deadlines, admission, http, models, routes
    max_hosts = 2
    [model.default]           models that agents may name (see `ModelConfig`)
    provider = "openai"
    base_url = "https://models.example/v1"
    api_key = "env:MODEL_KEY"

A variable `CHIMERA_NODE__MAX_HOSTS=4` sets `max_hosts` of the group `node`. The environment is
read here and nowhere below.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from chimera.bootstrap.gateway_config import ModelConfig
from chimera.kernel.settings import SettingsError, load_group
from chimera.platform.settings import NodeSettings

GATEWAY_GROUPS = ("deadlines", "admission", "http", "models", "routes")
FILE_NAME = "settings.toml"
NOT_SETTINGS = ("CHIMERA_SECRET_", "CHIMERA_RUNTIME_")


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineSettings:
    """Everything that is set on one machine. `gateway` holds the gateway's groups as they were written."""

    node: NodeSettings
    gateway: dict[str, dict[str, Any]]
    models: dict[str, ModelConfig]


def load(home: Path, environ: Mapping[str, str] | None = None) -> MachineSettings:
    """Read the settings of a home; raises `SettingsError` with every problem."""
    environ = os.environ if environ is None else environ
    file = home / FILE_NAME
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"{file}: {error}"]) from None
    for name, value in environ.items():
        group, separator, field = name.removeprefix("CHIMERA_").lower().partition("__")
        # Credentials and interpreters are named by variables too, with names of their owners' choosing.
        if name.startswith("CHIMERA_") and separator and not name.startswith(NOT_SETTINGS):
            data.setdefault(group, {})[field] = value
    known = {"node", "model", *GATEWAY_GROUPS}
    if unknown := sorted(set(data) - known):
        raise SettingsError([f"{file}: unknown group {name!r}; known: {', '.join(sorted(known))}" for name in unknown])
    if broken := sorted(name for name, values in data.items() if not isinstance(values, dict)):
        raise SettingsError([f"{file}: {name}: a group is a table, such as [{name}]" for name in broken])
    try:
        models = msgspec.convert(data.get("model", {}), dict[str, ModelConfig])
    except msgspec.ValidationError as error:
        raise SettingsError([f"{file}: model: {error}"]) from None
    here = {"max_hosts": os.cpu_count() or 2}
    return MachineSettings(
        node=load_group(NodeSettings, {**here, **data.get("node", {})}, where=f"{file}: node"),
        gateway={name: data[name] for name in GATEWAY_GROUPS if name in data},
        models=models,
    )
