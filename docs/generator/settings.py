"""The settings page: every group of settings with unit, default and bounds, models, and environment variables.

What a group's fields say comes from `setting(...)`; the fields of a model's and a host's configuration are plain types,
so their texts stand here, and a test holds them complete.
"""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Struct

from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.bootstrap.gateway_config import ModelConfig
from chimera.delivery.git.settings import SyncSettings
from chimera.delivery.scanning.settings import ScanningSettings
from chimera.delivery.settings import DeliverySettings
from chimera.delivery.trials.settings import TrialSettings
from chimera.gateway.identity.claims import IssuerConfig
from chimera.gateway.settings import gateway_groups
from chimera.jaegis.settings import jaegis_groups
from chimera.kernel.settings import FILE_NAME
from chimera.platform.settings import NodeSettings
from chimera.platform.upkeep.settings import RetentionSettings, UpkeepSettings
from chimera_host.config import HostConfig
from docs.generator.tables import code, head, table

MODEL_TEXTS = {
    "provider": "Who answers: `openai` is any OpenAI-compatible endpoint, `local` the bundled model, `scripted` a file "
    "of rules for tests.",
    "base_url": "The endpoint's address up to and with `/v1`; needed by `openai`.",
    "api_key": "A reference to the key: `env:NAME` or `file:PATH` (mode 0600). Never the key itself.",
    "model": "The model's name at the provider; by default the name in the settings.",
    "usd_per_million_prompt_tokens": "Price of a million prompt tokens in US dollars, for budgets in dollars.",
    "usd_per_million_completion_tokens": "Price of a million completion tokens in US dollars.",
    "timeout": "Longest call, all attempts together, in seconds; at most `deadlines.model`, which is the default.",
    "max_concurrency": "Calls at once; the rest wait in a queue of `models.queue` places.",
    "attempts": "Attempts of a call, the first included; by default `models.attempts`.",
    "script": "The scripted provider's file.",
}

ISSUER_TEXTS = {
    "issuer": "The claim `iss` of its tokens.",
    "audience": "What the claim `aud` must hold: the name of this API at the issuer.",
    "jwks": "Where its public keys are: an https address, or `file:PATH`.",
    "algorithms": "Signature algorithms that are taken; asymmetric ones alone.",
    "tenant": "The tenant of all its users; `*`: they belong to the platform.",
    "tenant_claim": "The claim that names a user's tenant, in place of `tenant`.",
    "roles_claim": "The claim that holds groups; dots go into objects.",
    "roles": "Which group gives which role; others give nothing.",
    "scope_claim": "The claim whose scopes narrow a user; by default none does.",
    "types": "Values that the header `typ` may have.",
    "leeway": "Seconds by which clocks may differ.",
}

HOST_TEXTS = {
    "host": "The host's id; by default `$HOSTNAME`.",
    "cell": "The cell it is an instance of.",
    "framework": "The one framework it runs.",
    "platform_url": "The gateway's internal API, as an address or `unix:/path`.",
    "work_dir": "Holds one folder for each loaded agent.",
    "platform_token": "What it shows there. `CHIMERA_PLATFORM_TOKEN_FILE` names a file instead.",
    "host_key": "What a caller must show the host. `CHIMERA_HOST_KEY_FILE` names a file instead.",
    "identity_file": "A file with a token of the platform's, changed for the host's token and key at its start.",
    "black_box": "The file that outlives a crash and says which agents were running.",
    "port": "Where it listens; `$PORT` by the container contract.",
    "memory_bytes": "The most it may use; loaded agents are given up before it is reached.",
    "concurrency": "Calls at once; one more is refused.",
    "threads": "Threads for blocking frameworks and tools.",
    "idle_unload": "Seconds after its last call at which an agent is given up.",
    "request_timeout": "Seconds that a call may take.",
    "stream_idle": "Seconds that a stream may be silent.",
    "grace": "Seconds that a cancelled call has to come back before the host gives itself up.",
    "drain": "Seconds that calls have to finish after SIGTERM.",
    "open_files": "Most file descriptors of the process.",
    "max_body_bytes": "Largest body of a request.",
    "contract": "The version of the wire contract.",
}

ENVIRONMENT = {
    "CHIMERA_HOME": "The home folder: keys, data, logs, settings. By default `.chimera` in the current folder if it is "
    "there, else `chimera` in the user's data folder (`$XDG_DATA_HOME`, or `~/.local/share`).",
    "CHIMERA_RUNTIMES": "Where frameworks' environments are; by default `runtimes` in the user's data folder, shared "
    "by all homes.",
    "CHIMERA_RUNTIME_<NAME>_PYTHON": "An interpreter to use as the runtime NAME (`AUTOGEN`, `CREWAI`, `LANGGRAPH`, "
    "`FUNCTION`, `LOCAL_MODEL`, `NODE`), as it is.",
    "CHIMERA_URL": "The command line's `--url`: the API's address.",
    "CHIMERA_KEY": "The command line's `--key`: the API's key.",
    "CHIMERA_TENANT": "The command line's `--tenant`.",
    "CHIMERA_<COMMAND>_<OPTION>": "An option of a command, below the command line: `CHIMERA_UP_PORT=9000`.",
    "CHIMERA_<GROUP>__<SETTING>": "A setting, above the file's: `CHIMERA_NODE__MAX_HOSTS=4` sets `max_hosts` of "
    "`node`.",
    "CHIMERA_MODEL_URL": "Of an exported function: the OpenAI-compatible endpoint of its model, such as `…/v1`.",
    "CHIMERA_MODEL_KEY": "Of an exported function: what is shown there.",
    "CHIMERA_MODEL": "Of an exported function: the endpoint's name for the model.",
    "CHIMERA_SECRET_<NAME>": "The value of `secret:NAME`, where the home's folder `secrets` has no file NAME.",
}


def groups() -> dict[str, type]:
    """Every group of settings by its name in the file."""
    return {
        "node": NodeSettings,
        "knative": KnativeSettings,
        "operator": OperatorSettings,
        "scanning": ScanningSettings,
        "retention": RetentionSettings,
        "upkeep": UpkeepSettings,
        "delivery": DeliverySettings,
        "sync": SyncSettings,
        "trials": TrialSettings,
        **gateway_groups(),
        **jaegis_groups(),
    }


def page() -> str:
    """The whole page."""
    parts = [head("Settings"), _INTRODUCTION]
    for name, group in groups().items():
        parts.append(f"## {name}\n\n{_summary(group)}\n")
        parts.append(table(("setting", "type", "unit", "default", "bounds", "meaning"), _rows(group)))
    parts.append(f"## model\n\n{_MODELS}")
    parts.append(table(("setting", "type", "default", "meaning"), _fields(ModelConfig, MODEL_TEXTS)))
    parts.append(f"## issuer\n\n{_ISSUERS}")
    parts.append(table(("setting", "type", "default", "meaning"), _fields(IssuerConfig, ISSUER_TEXTS)))
    parts.append("## Environment variables\n")
    parts.append(table(("variable", "meaning"), ((code(name), text) for name, text in ENVIRONMENT.items())))
    parts.append(f"## A host's configuration\n\n{_HOSTS}")
    parts.append(table(("field", "type", "default", "meaning"), _fields(HostConfig, HOST_TEXTS)))
    return "\n".join(parts)


def _summary(group: type) -> str:
    return (group.__doc__ or "").partition("\n\n")[0]


def _rows(group: type) -> Iterator[tuple[str, ...]]:
    hints = typing.get_type_hints(group)
    for field in dataclasses.fields(group):
        meta = field.metadata
        low, high = meta["minimum"], meta["maximum"]
        bounds = " to ".join(f"{one:,}" for one in (low, high) if one is not None)
        if high is None and bounds:
            bounds = f"at least {bounds}"
        elif low is None and bounds:
            bounds = f"at most {bounds}"
        default = "the number of cores" if field.name == "max_hosts" else code(_plain(field.default))
        yield (code(field.name), _kind(hints[field.name]), meta["unit"], default, bounds, meta["doc"])


def _fields(kind: type[Struct], texts: dict[str, str]) -> Iterator[tuple[str, ...]]:
    hints = typing.get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        required = field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
        default = "**required**" if required else code(_plain(field.default))
        yield (code(field.name), _kind(hints[field.name]), default, texts[field.name])


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _kind(hint: Any) -> str:
    if get_origin(hint) is typing.Literal:
        return " or ".join(code(option) for option in get_args(hint))
    options = [option for option in get_args(hint) if option is not type(None)]
    if options:
        return _kind(options[0])
    names = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


_INTRODUCTION = f"""\
Settings stand in `{FILE_NAME}` in the home folder. Each group is a table of TOML; each setting can also be given as an
environment variable. `chimera up` reads them when it starts; an unknown name or a value out of bounds is refused with
all that is wrong. [How to change settings](../guides/settings.md) has examples.
"""

_ISSUERS = """\
`[issuer.NAME]` is an identity provider whose tokens are taken. [Users of your identity
provider](../guides/identity.md#users-of-your-identity-provider) has an example.
"""

_MODELS = """\
`[model.NAME]` is a model that agents may name in `model.name` of their definitions; without one they use `default`.
Where the settings name no `default`, it is the bundled model. [Models](../guides/models.md) has examples.
"""

_HOSTS = """\
On one machine the node agent gives each host its configuration. A host that is started on its own, as on Knative, reads
it from variables `CHIMERA_` and the field's name in capitals.
"""
