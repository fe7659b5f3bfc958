"""What the node agent and a zygote say to each other; `chimera_host.zygote` tells how."""

from typing import Literal

from msgspec import Struct

from chimera_host.config import HostConfig
from chimera_host.contract.agent import FrameworkName


class ForkRequest(Struct, frozen=True, kw_only=True):
    """Fork a host."""

    op: Literal["fork"]
    id: str
    config: HostConfig


class Reply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the zygote says."""

    op: Literal["ready", "forked", "exited", "failed"]
    id: str | None = None
    pid: int | None = None
    status: int | None = None
    error: str | None = None
    framework: FrameworkName | None = None
    seconds: float | None = None
