"""Settings of following branches."""

from dataclasses import dataclass

from chimera.kernel.settings import setting


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncSettings:
    """Where repositories may be, and how much of the machine following them may take."""

    hosts: tuple[str, ...] = setting(
        (), "Hosts whose repositories may be followed, such as github.com, or git.example.com:8443; no others."
    )
    insecure_hosts: tuple[str, ...] = setting((), "Those of them that may be reached by http.")
    folders: tuple[str, ...] = setting(
        (), "Folders on this machine whose repositories may be followed (file:///…); by default none."
    )
    poll: float = setting(
        2.0, "How often it is looked which sources are due; a webhook is heard within that.", unit="s", minimum=0.05
    )
    at_once: int = setting(
        2, "Sources that are looked at at once, each by a process of its own.", minimum=1, maximum=64
    )
    look_timeout: float = setting(30.0, "Longest time of asking a repository for its branch.", unit="s", minimum=1)
    fetch_timeout: float = setting(600.0, "Longest time of fetching, and of reading a commit.", unit="s", minimum=1)
    repository_bytes: int = setting(
        1024 * 1024**2, "Largest repository, history included.", unit="bytes", minimum=1024**2
    )
    copies_bytes: int = setting(
        4096 * 1024**2,
        "Room for the copies of all repositories. Those that were used longest ago go first, and are fetched anew when "
        "they are needed.",
        unit="bytes",
        minimum=1024**2,
    )
    memory_bytes: int = setting(
        2048 * 1024**2,
        "Most memory of a process that reads a repository, and never more than its part of what the machine or the pod "
        "has.",
        unit="bytes",
        minimum=256 * 1024**2,
    )
    history_commits: int = setting(
        100_000,
        "Most new commits that are read to know who made them. Where more are new, as at the first look at a long "
        "history, a tenant that takes no direct changes takes none of them.",
        minimum=1,
    )
    longest_wait: float = setting(
        3600.0, "A source that fails is looked at less and less often, and at least this often.", unit="s", minimum=1
    )
