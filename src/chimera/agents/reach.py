"""What an agent may name as an integration point or a protocol: a closed list, so that a misspelling is an error.

An integration point is `jaegis:<component>`, `service:<name>`, `tool:<name>` (a tool of the same definition) or
`event:<type>`; a bare name is looked up in the four in that order. A protocol is one that the API serves.
"""

import difflib
import re
from collections.abc import Iterable

from chimera.events.catalogue import FACTS

JAEGIS_COMPONENTS = (
    "e-jaegis-system",
    "agent-creator",
    "configuration-manager",
    "system-coherence-monitor",
    "quality-assurance",
    "safety-protocols",
    "security-protocols",
    "research",
    "temporal-intelligence",
    "intelligent-routing",
)
SERVICES = ("agents", "models", "sessions", "metrics", "logs")
EVENTS = (*FACTS, "agent.applied", "host.failed")
"""Types of the platform's events; what they start is said by `subscriptions`, and nothing follows from them here."""
PROTOCOLS = ("http", "sse", "openai", "events")
LATER_PROTOCOLS = ("a2a", "mcp")
_WORD = re.compile(r"[a-z0-9]+")
KINDS = ("jaegis", "service", "tool", "event")


def resolve_point(text: str, tools: Iterable[str]) -> str | None:
    """The full name (`service:models`) that `text` means, or None where nothing has this name."""
    known = {"jaegis": JAEGIS_COMPONENTS, "service": SERVICES, "tool": tuple(tools), "event": EVENTS}
    kind, separator, name = text.partition(":")
    if separator:
        wanted = _plain(name) if kind in ("jaegis", "service") else name
        return f"{kind}:{wanted}" if kind in known and wanted in known[kind] else None
    for kind in KINDS:
        wanted = _plain(text) if kind in ("jaegis", "service") else text
        if wanted in known[kind]:
            return f"{kind}:{wanted}"
    return None


def suggest_point(text: str, tools: Iterable[str]) -> tuple[str, str | None]:
    """What is allowed, in words, and the nearest known name."""
    names = [
        *(f"jaegis:{name}" for name in JAEGIS_COMPONENTS),
        *(f"service:{name}" for name in SERVICES),
        *(f"tool:{name}" for name in tools),
        *(f"event:{name}" for name in EVENTS),
    ]
    bare = {name.partition(":")[2]: name for name in names}
    near = difflib.get_close_matches(text, names, n=1) or [
        bare[one] for one in difflib.get_close_matches(_plain(text), bare, n=1)
    ]
    return ", ".join(names), near[0] if near else None


def _plain(text: str) -> str:
    """`E.JAEGIS. System` as `e-jaegis-system`: the words in small letters, joined by hyphens."""
    return "-".join(_WORD.findall(text.lower()))
