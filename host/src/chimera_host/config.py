"""What a host is told at its start: one structure, from environment variables or from the zygote that forks it.

On Knative the platform sets environment variables (`$PORT` by the container contract); on one machine a zygote gets
the same structure as JSON and a listening socket with it. Sizes are bytes, times seconds.
"""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from chimera_host.contract.agent import FrameworkName
from chimera_host.contract.problem import ProblemError

Seconds = Annotated[float, Meta(gt=0)]


class HostConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Settings of one host process.

    `platform_url` is the gateway's internal API, `platform_token` what the host shows there, `host_key` what a caller
    must show the host. A host that has neither has an `identity_file` instead, a token of its platform (a pod's service
    account), which it changes for both at its start. `work_dir` holds one folder for each loaded agent; `black_box` is
    the file that outlives a crash and says which agents were running. `drain` is how long calls may finish after
    SIGTERM; `grace` is how long a cancelled call may take to come back before the host gives itself up, and how long
    the others then may finish. `open_files` is the most file descriptors the process may have.
    """

    host: str
    cell: str
    framework: FrameworkName
    platform_url: str
    work_dir: str
    platform_token: str = ""
    host_key: str = ""
    identity_file: str | None = None
    black_box: str | None = None
    port: int = 8080
    memory_bytes: int = 2 * 1024**3
    concurrency: int = 100
    threads: Annotated[int, Meta(ge=1, le=100)] = 64
    idle_unload: Seconds = 300.0
    request_timeout: Seconds = 590.0
    stream_idle: Seconds = 120.0
    grace: Seconds = 10.0
    drain: Seconds = 595.0
    open_files: Annotated[int, Meta(ge=64)] | None = None
    max_body_bytes: Annotated[int, Meta(ge=1024)] = 16 * 1024**2
    contract: int = 1


def from_environment(environ: MutableMapping[str, str]) -> HostConfig:
    """The configuration in `CHIMERA_<FIELD>` variables, `$PORT` for the port; defaults for what isn't set.

    `CHIMERA_PLATFORM_TOKEN_FILE` and `CHIMERA_HOST_KEY_FILE` may name a mounted file instead of holding the secret;
    either is taken out of the environment, so that what the host starts doesn't inherit it.
    """
    found: dict[str, str] = {}
    for field in HostConfig.__struct_fields__:
        name = f"CHIMERA_{field.upper()}"
        if name in environ:
            found[field] = environ[name]
        elif (path := environ.get(f"{name}_FILE")) is not None:
            found[field] = _read_secret(path, f"{name}_FILE")
    for secret in ("platform_token", "host_key"):
        environ.pop(f"CHIMERA_{secret.upper()}", None)
    if "PORT" in environ:
        found["port"] = environ["PORT"]
    found.setdefault("host", environ.get("HOSTNAME", "host"))
    try:
        return checked(msgspec.convert(found, HostConfig, strict=False))
    except msgspec.ValidationError as error:
        raise ProblemError(
            f"the environment holds no configuration of a host: {error}",
            next_step="set CHIMERA_ and the field's name in capitals; see chimera_host.config.HostConfig",
        ) from error


def checked(config: HostConfig) -> HostConfig:
    """`config`, if its host would be one that a caller must show a key; a host without a key would take any call."""
    missing = [name for name in ("platform_token", "host_key") if not getattr(config, name)]
    if missing and config.identity_file is None:
        raise ProblemError(
            f"the host has no {' and no '.join(missing)}, and no identity_file to change for them",
            next_step="set CHIMERA_PLATFORM_TOKEN and CHIMERA_HOST_KEY, or CHIMERA_IDENTITY_FILE in a pod",
        )
    return config


def _read_secret(path: str, name: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise ProblemError(f"{name}: {error}", next_step="mount the secret there") from error
