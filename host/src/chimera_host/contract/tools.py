"""What an agent may reach: tools as functions of its source folder, MCP servers, or other agents, called or written to.

Every kind runs through the one broker in the host, which checks the allow-list, the arguments, the deadline, the size
of the answer and where the tool may connect to. Credentials are named, never written here.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from chimera_host.contract.behaviour import CredentialReference, Identifier, ShortText, Text

HostPattern = Annotated[
    str,
    Meta(
        pattern=r"^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?$",
        description="A host name, `*.` and a domain, or an address; with `:port` where only one port is meant.",
    ),
]


class ToolLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Bounds of one call of a tool."""

    deadline_seconds: Annotated[float, Meta(gt=0, le=540)] = 30.0
    max_output_bytes: Annotated[int, Meta(ge=1, le=10_485_760)] = 262_144
    egress: Annotated[tuple[HostPattern, ...], Meta(max_length=100)] = ()


class FunctionTool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag="function"):
    """A Python function of the source folder; parameters and description come from it where not given here."""

    name: Identifier
    function: Annotated[str, Meta(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", max_length=200)]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    credentials: dict[str, CredentialReference] = {}
    limits: ToolLimits = ToolLimits()


class McpTool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag="mcp"):
    """An MCP server: `command` starts one over stdio, `url` reaches one over streamable HTTP; exactly one of the two.

    A server offers several tools; `allow` names those the agent may use, and an agent sees each as `name_tool`.
    Credentials become environment variables of a command, headers of a URL.
    """

    name: Identifier
    allow: Annotated[tuple[ShortText, ...], Meta(min_length=1, max_length=100)]
    command: Annotated[tuple[str, ...], Meta(min_length=1, max_length=50)] | None = None
    url: Annotated[str, Meta(pattern=r"^https?://", max_length=2_000)] | None = None
    credentials: dict[str, CredentialReference] = {}
    limits: ToolLimits = ToolLimits()


class AgentTool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag="agent"):
    """Another agent of the same tenant, called with one text argument, `message`."""

    name: Identifier
    agent: Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", max_length=63)]
    description: Text | None = None
    limits: ToolLimits = ToolLimits()


class MessageTool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag="message"):
    """Another agent of the same tenant, sent one text and not waited for; its reply comes later, in this session."""

    name: Identifier
    agent: Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", max_length=63)]
    reply: bool = True
    description: Text | None = None
    limits: ToolLimits = ToolLimits()


Tool = FunctionTool | McpTool | AgentTool | MessageTool


def full_name(server: str, tool: str) -> str:
    """The name under which an agent sees a tool of an MCP server; what models don't take in a name becomes `_`."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in f"{server}_{tool}")
