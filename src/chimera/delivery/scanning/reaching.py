"""What a tool can reach, and what that makes of it: a source of private data, of untrusted text, or a way out.

All of it follows from what the definition says, so it is the same whatever a model does. A host is inside if the
operator trusts it (`scanning.trusted_hosts`), or if only a private network can hold it; every other host is outside.
What comes from outside is untrusted text, and whatever reaches outside is a way out: a request to read carries its
address.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from enum import Flag, auto
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from msgspec import Struct

from chimera_host.contract.tools import AgentTool, FunctionTool, McpTool, MessageTool, Tool

PRIVATE_ENDINGS = (".localhost", ".internal", ".local", ".home.arpa", ".svc")


class Label(Flag):
    """What flows through a tool."""

    NONE = 0
    PRIVATE = auto()
    UNTRUSTED = auto()
    OUT = auto()


TOXIC = Label.PRIVATE | Label.UNTRUSTED | Label.OUT


class Reach(Struct, frozen=True, kw_only=True):
    """A tool: its labels, the hosts outside and inside that it may connect to, and the agent that it calls."""

    name: str
    index: int
    labels: Label
    outside: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    agent: str | None = None


def reach_of(tool: Tool, index: int, trusted: Iterable[str]) -> Reach:
    """What a tool reaches by its definition."""
    if isinstance(tool, (AgentTool, MessageTool)):
        return Reach(name=tool.name, index=index, labels=Label.NONE, agent=tool.agent)
    hosts = hosts_of(tool)
    trusted = tuple(trusted)
    outside = tuple(host for host in hosts if not is_inside(host, trusted))
    inside = tuple(host for host in hosts if is_inside(host, trusted))
    labels = Label.NONE
    if outside:
        labels |= Label.UNTRUSTED | Label.OUT
    # Something inside, or credentials that are used for nothing outside: data of one's own.
    if inside or (tool.credentials and not outside):
        labels |= Label.PRIVATE
    return Reach(name=tool.name, index=index, labels=labels, outside=outside, inside=inside)


def hosts_of(tool: FunctionTool | McpTool) -> tuple[str, ...]:
    """Hosts that a tool may connect to, as its definition writes them, without ports."""
    hosts = [host_name(pattern) for pattern in tool.limits.egress]
    if isinstance(tool, McpTool) and tool.url is not None:
        hosts.append((urlsplit(tool.url).hostname or "").lower())
    return tuple(dict.fromkeys(host for host in hosts if host))


def host_name(pattern: str) -> str:
    """A pattern of `egress` without its port."""
    host, colon, port = pattern.rpartition(":")
    return (host if colon and port.isdigit() else pattern).lower().rstrip(".")


def is_inside(host: str, trusted: Sequence[str]) -> bool:
    """Whether a host is one's own: trusted by name, or one that a private network alone can hold."""
    bare = host.removeprefix("*.")
    if any(fnmatchcase(host, one.lower()) or fnmatchcase(bare, one.lower()) for one in trusted):
        return True
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return not host.startswith("*.") and ("." not in bare or bare.endswith(PRIVATE_ENDINGS))
    return not address.is_global
