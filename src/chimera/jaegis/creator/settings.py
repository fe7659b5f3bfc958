"""Settings of the Agent Creator."""

from dataclasses import dataclass

from chimera.kernel.settings import setting


@dataclass(frozen=True, kw_only=True, slots=True)
class CreatorSettings:
    """What definitions may name without a person's look, beside what live agents use already."""

    mcp_servers: tuple[str, ...] = setting(
        (),
        "MCP servers that new agents may use: their addresses or commands, or the beginning of one and `*`. A server "
        "that neither stands here nor is used by a live agent is for a person to judge.",
    )
    event_types: tuple[str, ...] = setting(
        (),
        "Types of events that others send here, or the beginning of one and `*`. A subscription to one that neither "
        "stands here nor starts a live agent is for a person to judge: it may be misspelt.",
    )
