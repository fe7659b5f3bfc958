"""The operations on the audit log, as data; `operations.py` publishes them with the others.

A tenant in the path may be `*`: the entries of all tenants, and those of the platform itself.
"""

from typing import Any

from chimera.entrypoints.published.operation import TENANT, Operation
from chimera.entrypoints.published.parameters import DEFAULT_PAGE, LARGEST_PAGE, TIME, one_of, whole
from chimera.immune.audit import api
from chimera.immune.audit.checkpoint import Checkpoint

LARGEST_EXPORT = 1_000_000
DECISIONS = ("allow", "deny", "none")


def _operation(method: str, path: str, name: str, summary: str, answer: Any, **more: Any) -> Operation:
    return Operation(
        method=method,
        path=path,
        name=name,
        summary=summary,
        tag="audit",
        action=more.pop("action", "audit:read"),
        answer=answer,
        **more,
    )


AUDIT = (
    _operation(
        *("GET", TENANT + "/audit", "list_audit", "Entries of the audit log, newest first, in pages", api.EntryPage),
        query=(
            ("actor", "string", "only entries of this actor, as `key:0123abcd`"),
            ("action", "string", "only entries of this action, as `agent:invoke` or `agent.updated`"),
            ("resource", "string", "only entries about this and what is below it, as `agents/anna`"),
            ("decision", one_of(*DECISIONS), "only entries with this decision"),
            ("outcome", "string", "only entries with this outcome: `done`, `ok` or an error's code"),
            ("call", "string", "only entries of this call"),
            ("request", "string", "only entries of this request"),
            ("since", TIME, "only entries from then on, in seconds since the epoch"),
            ("until", TIME, "only entries before then, in seconds since the epoch"),
            ("before", whole(0), "the `next` of the page before"),
            ("limit", whole(1, LARGEST_PAGE, DEFAULT_PAGE), "most entries in the page"),
        ),
    ),
    _operation(
        *("GET", TENANT + "/audit/export", "export_audit", "Entries oldest first, one JSON object a line", None),
        media="application/x-ndjson",
        query=(
            ("after", whole(0), "only entries after this place, 0 by default"),
            ("limit", whole(1, LARGEST_EXPORT), "most entries; all by default"),
        ),
    ),
    _operation(
        *("GET", TENANT + "/audit/ends", "audit_ends", "Where the audit log begins and ends", api.LogEnds),
    ),
    _operation(
        *("GET", TENANT + "/audit/checkpoints", "list_audit_checkpoints", "Signed checkpoints, smallest first"),
        api.CheckpointPage,
        query=(
            ("after", whole(0), "only checkpoints of more entries than this"),
            ("limit", whole(1, LARGEST_PAGE, DEFAULT_PAGE), "most checkpoints in the page"),
        ),
    ),
    _operation(
        *("GET", TENANT + "/audit/entries/{entry}/proof", "prove_audit_entry"),
        *("The proof that an entry is in the log that a checkpoint signs", api.Proof),
    ),
    _operation(
        *("GET", "/v1/audit/proposal", "propose_audit_checkpoint"),
        *("The next checkpoint for another machine to sign, with a proof of consistency", api.Proposal | None),
        action="audit:write",
        query=(("since", whole(0), "the size of the last checkpoint that the signer has signed"),),
    ),
    _operation(
        *("POST", "/v1/audit/checkpoints", "add_audit_checkpoint", "Keep a checkpoint that another machine signed"),
        Checkpoint,
        action="audit:write",
        body=Checkpoint,
        status=201,
    ),
)
