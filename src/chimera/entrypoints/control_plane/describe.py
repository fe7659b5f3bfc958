"""An agent in full for people: its definition, its cell, and which of its limits this home enforces."""

from collections.abc import Sequence
from typing import Any

from chimera.agents.api import AgentInFull, AgentSide, Limit
from chimera.agents.catalogue import Pin
from chimera.agents.compile import CanonicalDefinition


def describe(
    row: dict[str, Any],
    value: CanonicalDefinition,
    unservable: str | None = None,
    sides: Sequence[AgentSide] = (),
    pin: Pin | None = None,
) -> AgentInFull:
    """The agent's row, its canonical definition, its other sides, its limits and what to know about it."""
    told = notes(value, unservable)
    if row["owner"] is not None:
        namespace, _, name = row["owner"].partition("/")
        told.append(f"It belongs to the resource Agent {name} in the namespace {namespace}, which alone changes it.")
    return AgentInFull(**row, definition=value, limits=limits(value), notes=told, sides=list(sides), pin=pin)


def limits(value: CanonicalDefinition) -> list[Limit]:
    """Each limit of the definition, and who enforces it on one machine."""
    resources = value.agent.resources
    shared = value.isolation == "shared"
    return [
        Limit(limit="concurrency", value=value.agent.concurrency, enforced_by="gateway and host"),
        Limit(limit="calls per minute", value=value.calls_per_minute, enforced_by="gateway"),
        Limit(limit="tokens per day", value=value.tokens_per_day, enforced_by="model gateway"),
        Limit(limit="US dollars per day", value=value.usd_per_day, enforced_by="model gateway"),
        Limit(
            limit="storage (bytes)",
            value=resources.storage_bytes,
            enforced_by="host, for its own folder",
        ),
        Limit(
            limit="memory (bytes)",
            value=resources.memory_bytes,
            enforced_by="chooses the cell's resource class; the host as a whole is limited"
            if shared
            else "the cell's hosts",
        ),
        Limit(
            limit="CPU (millicores)",
            value=resources.cpu_millicores,
            enforced_by="chooses the cell's resource class; a share, not a cap" if shared else "the cell's share",
        ),
    ]


def notes(value: CanonicalDefinition, unservable: str | None = None) -> list[str]:
    """What a person should know before relying on the agent."""
    found = []
    if value.agent.source is not None:
        found.append(
            "It brings code, which runs as the user who runs Chimera: one machine is no sandbox. "
            "What its code connects to is not filtered."
        )
    if unservable is not None:
        found.append(unservable)
    if value.retirement is not None:
        found.append(f"It retires after {value.retirement.after}.")
    return found
