"""Whose fault it is that a call failed: the agent's, the platform's, or whoever called it. Pure.

The agent answers for what its revision decides: what it raises, how long it takes, what it does to its host. A host
that died counts as the agent's doing: a revision that breaks hosts must not look well, and where it was another's
doing, it strikes both sides alike.
"""

from typing import Literal

Fault = Literal["none", "agent", "platform", "caller"]

AGENT = frozenset(
    {
        "agent-failed",
        "agent-load-failed",
        "agent-over-share",
        "agent-storage-full",
        "bundle-refused",
        "call-loop",
        "credential-not-found",
        "credential-refused",
        "deadline-exceeded",
        "function-failed",
        "function-refused",
        "function-timeout",
        "host-failed",
        "model-rejected",
        "tool-failed",
        "tool-refused",
    }
)
CALLER = frozenset({"cancelled", "call-cancelled", "revision-withdrawn"})
"""Codes that say nothing of either: somebody took the call back."""


def fault_of(code: str, status: int) -> Fault:
    """Whose fault an outcome is: `ok`, `cancelled`, or a problem's code and status."""
    if code == "ok":
        return "none"
    if code in AGENT:
        return "agent"
    if code in CALLER or status < 500:
        return "caller"
    return "platform"
