"""Settings of the node agent: how it ticks, probes, starts and stops hosts."""

from dataclasses import dataclass

from chimera.kernel.settings import setting


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeSettings:
    """One machine's hosts."""

    max_hosts: int = setting(2, "Most hosts of one cell on this machine; the number of cores is right.", minimum=1)
    tick: float = setting(2.0, "Time between two passes of the autoscaler.", unit="s", minimum=0.1)
    stats_expire: float = setting(5.0, "A gateway's report older than this counts as no calls.", unit="s", minimum=1)
    start_timeout: float = setting(60.0, "A host that isn't ready after this is replaced.", unit="s", minimum=1)
    start_poll: float = setting(0.05, "Time between two looks at a starting host.", unit="s", minimum=0.001)
    probe_interval: float = setting(5.0, "Time between two liveness probes of a host.", unit="s", minimum=0.1)
    probe_failures: int = setting(3, "Failed liveness probes in a row that cost a host its life.", minimum=1)
    drain_grace: float = setting(
        600.0, "How long a draining host's calls may finish; above the longest call.", unit="s", minimum=1
    )
    kill_grace: float = setting(5.0, "How long an unhealthy host may drain before it is killed.", unit="s", minimum=0)
    longest_call: float = setting(590.0, "The host's own request time-out, for naming who overran.", unit="s")
    warm_parents: bool = setting(
        True, "Keep a warm parent of each installed runtime to fork from; off saves memory, costs seconds at a wake-up."
    )
    database: str = setting(
        "",
        "Where everything is kept: empty for a SQLite file in the home, or a PostgreSQL server's URL, "
        "`postgresql://user@host/name?sslmode=verify-full`, without a password.",
    )
    database_password: str = setting(
        "", "Where the database's password is: `env:NAME`, `file:PATH` or `secret:NAME`; never the password itself."
    )
    backup_before_upgrade: bool = setting(
        True,
        "Whether `chimera up` makes a backup in the home's `backups` before it brings an older database up to this "
        "release. If that fails it doesn't start. Off: a migration that goes wrong can only be undone from a backup of "
        "your own.",
    )
    log_bytes: int = setting(
        33_554_432,
        "A process's log that is longer is moved aside to `.jsonl.1`, in place of the one there.",
        unit="bytes",
        minimum=65_536,
    )
    node_program: str = setting(
        "",
        "The Node.js program, 20 or newer, that runs agents of `node:18-alpine`: a name on the path, or a file. Empty: "
        "that of the runtime `node` where it is installed, else `node` on the path. Node 18 is past its end of life, "
        "so that runtime's name means a supported release.",
    )
