"""The page of conditions: their types, and every reason with its cause and what to do."""

from chimera.platform.reasons import ASPECTS, MEANINGS, Reason
from docs.generator.tables import code, head, table


def page() -> str:
    """The whole page."""
    parts = [head("Conditions"), _INTRODUCTION]
    parts.append(
        table(("type", "what it means where it is True"), ((code(one.value), ASPECTS[one]) for one in ASPECTS))
    )
    parts.append("## Reasons\n\n" + _REASONS)
    rows = []
    for reason in Reason:
        meaning = MEANINGS[reason]
        if reason in (Reason.AS_WANTED, Reason.IN_PROGRESS):
            rows.append((code(reason.value), "any", meaning.text, "", ""))
            continue
        waits = f"{meaning.patience:g} s" if meaning.patience else "at once"
        hears = f"{waits}; again after {meaning.retry_after:g} s"
        rows.append((code(reason.value), code(meaning.aspect.value), meaning.text, meaning.next_step, hears))
    parts.append(table(("reason", "type", "cause", "what to do", "a caller who waits hears it"), rows))
    return "\n".join(parts)


_INTRODUCTION = """\
What is known of a cell, as `chimera get conditions` and `GET /v1/conditions` show it, in both homes. A condition is
`True` where all is well, `False` where there is trouble now, and `Unknown` before anything was seen, or after trouble
at the last try that nobody has repeated since. [The guide](../guides/kubernetes.md#when-something-is-wrong) says how to
go about it.
"""
_REASONS = """\
Of several reasons for one type the first of this list is told. `Connected`, the home's own, takes whatever keeps the
control plane from seeing it. A caller hears of `Ready` alone, and only while no host takes calls.
"""
