"""What a process that reads repositories is asked, and what it answers.

The control plane imports this for what it sends; what reads Git objects is imported by the process alone (`worker`).
"""

from msgspec import Struct

from chimera.delivery.git.ports import CommitTold, ReadFile, Remote, Touched


class AskTip(Struct, frozen=True, tag="tip"):
    """Where is the branch?"""

    remote: Remote


class AskFetch(Struct, frozen=True, tag="fetch"):
    """Bring a commit here."""

    key: str
    remote: Remote
    commit: str
    before: str | None


class AskCompare(Struct, frozen=True, tag="compare"):
    """Which files differ?"""

    key: str
    before: str | None
    commit: str
    path: str


class AskRead(Struct, frozen=True, tag="read"):
    """What do these files hold?"""

    key: str
    commit: str
    files: tuple[str, ...]


class Tip(Struct, frozen=True, tag="tip"):
    """It is there."""

    commit: str


class Fetched(Struct, frozen=True, tag="fetched"):
    """It is here."""

    told: CommitTold


class Compared(Struct, frozen=True, tag="compared"):
    """They differ so."""

    touched: Touched


class Files(Struct, frozen=True, tag="files"):
    """Some of the files."""

    files: list[ReadFile]


class Done(Struct, frozen=True, tag="done"):
    """That was all."""


class Failed(Struct, frozen=True, tag="failed"):
    """It can't be done; `kind` is the error's class."""

    kind: str
    detail: str
    next_step: str


Ask = AskTip | AskFetch | AskCompare | AskRead
Frame = Tip | Fetched | Compared | Files | Done | Failed
