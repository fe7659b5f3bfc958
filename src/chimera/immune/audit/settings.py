"""Settings of the audit log."""

from dataclasses import dataclass

from chimera.kernel.settings import setting


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditSettings:
    """The audit log: how often its checkpoints are signed, by which key, and how long entries stay."""

    key: str = setting(
        "",
        "The file of the key that signs checkpoints, mode 0600; empty: `audit.key` in the home, made at the first "
        "start. `elsewhere`: no key on this machine; `chimera audit checkpoint --sign` signs on another.",
    )
    checkpoint_entries: int = setting(
        10_000,
        "A checkpoint is signed after so many entries. Entries since the last one are vouched for by the chain alone.",
        unit="entries",
        minimum=1,
    )
    checkpoint_seconds: float = setting(
        60.0, "A checkpoint is signed after so long, if there is any entry since the last.", unit="s", minimum=1
    )
    copy: str = setting(
        "",
        "A second file to which checkpoints are appended, on another disk or machine: who can alter this machine's "
        "files can't alter that one, and a verification against it shows it.",
    )
    calls: bool = setting(
        True,
        "Whether the decision on each call and what came of it are recorded. Refused calls always are. Without, "
        "nothing tells afterwards who called which agent.",
    )
    reads: bool = setting(
        True,
        "Whether operations that only look (lists, exports, metrics) are recorded when they are allowed. Refused ones "
        "always are.",
    )
    strict: bool = setting(
        False,
        "Whether a call is refused (503) when its decision can't be written, as on a full disk. Else calls go on, "
        "and up to 100,000 entries wait in memory.",
    )
    flush: float = setting(
        0.5, "What came of calls is written in batches, after so long.", unit="s", minimum=0.01, maximum=1.0
    )
    keep_days: float = setting(
        0.0,
        "Entries older than this are written to the archive and may then be removed; 0 keeps them all.",
        unit="days",
        minimum=0,
    )
    archive: str = setting(
        "", "The folder of the archive; empty: `audit/archive` in the home. Nothing is ever removed from it."
    )
