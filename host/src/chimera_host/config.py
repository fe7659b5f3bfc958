"""What a host is told at its start: one structure, from environment variables or from the zygote that forks it.

On Knative the platform sets environment variables (`$PORT` by the container contract); on one machine a zygote gets
the same structure as JSON and a listening socket with it. Sizes are bytes, times seconds.
"""

from typing import Annotated

from msgspec import Meta, Struct

from chimera_host.contract.agent import FrameworkName

Seconds = Annotated[float, Meta(gt=0)]


class HostConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Settings of one host process.

    `platform_url` is the gateway's internal API, `platform_token` what the host shows there, `host_key` what a caller
    must show the host. `work_dir` holds one folder for each loaded agent; `black_box` is the file that outlives a
    crash and says which agents were running. `grace` is how long calls may finish after SIGTERM, and how long a
    cancelled thread may take to come back before the host gives itself up.
    """

    host: str
    cell: str
    framework: FrameworkName
    platform_url: str
    platform_token: str
    host_key: str
    work_dir: str
    black_box: str | None = None
    port: int = 8080
    memory_bytes: int = 2 * 1024**3
    concurrency: int = 100
    threads: Annotated[int, Meta(ge=1, le=100)] = 64
    idle_unload: Seconds = 300.0
    request_timeout: Seconds = 590.0
    stream_idle: Seconds = 120.0
    grace: Seconds = 10.0
    contract: int = 1
