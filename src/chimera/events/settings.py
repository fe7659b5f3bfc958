"""Settings of events and their delivery."""

from dataclasses import dataclass
from ipaddress import ip_network

from chimera.kernel.settings import SettingsError, setting


@dataclass(frozen=True, kw_only=True, slots=True)
class EventSettings:
    """How events are followed, streamed, delivered, tried again and given up."""

    source: str = setting(
        "",
        "What stands before the tenant's path in the attribute `source` of events, such as https://chimera.example.com.",
    )
    key: str = setting(
        "",
        "File of the key that signs deliveries; empty: `webhooks.key` in the home, made at the first start. Homes that "
        "share a database and deliver for each other have the same.",
    )
    allow: tuple[str, ...] = setting(
        (),
        "Networks that deliveries may reach beside public addresses, such as 10.0.0.0/8; those also by http.",
    )
    broker: str = setting(
        "",
        "Address of a Knative Broker's ingress, by which events go to agents; empty: within the gateway. In a cluster "
        "the installation sets it.",
    )
    deliver: bool = setting(True, "Whether this gateway may deliver; one of those that may does.")
    lease: float = setting(
        10.0, "A gateway that delivers and was silent this long is replaced by another.", unit="s", minimum=1
    )
    poll: float = setting(
        0.2,
        "How often the journal is looked at for new events, and subscriptions for changes.",
        unit="s",
        minimum=0.01,
    )
    batch: int = setting(500, "Events read at once.", minimum=1, maximum=10_000)
    save: float = setting(
        0.1,
        "How often progress is written down: what was delivered since is delivered again after a kill.",
        unit="s",
        minimum=0.01,
    )
    concurrency: int = setting(64, "Requests to receivers at once.", minimum=1, maximum=1_000)
    per_receiver: int = setting(8, "Requests to one receiver at once; it is asked less while it fails.", minimum=1)
    connect_timeout: float = setting(5.0, "How long a connection to a receiver may take.", unit="s", minimum=0.1)
    timeout: float = setting(15.0, "How long a receiver may take for one event.", unit="s", minimum=0.1)
    attempts: int = setting(20, "Attempts of an event, after which it is a dead letter.", minimum=1, maximum=1_000)
    give_up: float = setting(86_400.0, "An event is a dead letter when its first attempt is this old.", unit="s")
    backoff: float = setting(
        1.0, "Most that the second attempt waits; doubles each time, with jitter.", unit="s", minimum=0.01
    )
    backoff_cap: float = setting(3_600.0, "Most that any attempt waits.", unit="s", minimum=0.01)
    outstanding: int = setting(
        500, "Events of one subscription that are on their way or wait; the journal keeps the others.", minimum=1
    )
    subscriptions: int = setting(100, "Most subscriptions of a tenant.", minimum=1, maximum=10_000)
    letters: int = setting(1_000, "A subscription with this many dead letters is paused.", minimum=1)
    letter_keep: float = setting(2_592_000.0, "Dead letters are kept this long.", unit="s", minimum=60)
    paused_hold: float = setting(
        604_800.0, "The journal keeps what a paused subscription has not had for this long.", unit="s", minimum=0
    )
    secret_overlap: float = setting(
        86_400.0, "How long the old secret goes on signing after a rotation, unless it says less.", unit="s", minimum=0
    )
    hops: int = setting(
        8,
        "How many agents events may start, one by what the other did: then the event is a dead letter, for events go "
        "round.",
        minimum=1,
        maximum=100,
    )
    message_bytes: int = setting(
        65_536, "Largest message of an agent to another; a longer reply is cut.", unit="bytes", minimum=1_024
    )
    streams: int = setting(1_000, "Streams of events at one gateway.", minimum=1)
    stream_life: float = setting(
        600.0, "A stream of events ends after this long; the reader resumes, and is asked again who it is.", unit="s"
    )

    def check(self) -> None:
        """Raise `SettingsError` for a network that is none, and where a delivery could outlive its lease."""
        problems = [f"events.allow: {fault}" for text in self.allow if (fault := network_fault(text)) is not None]
        if self.poll * 3 > self.lease:
            problems.append(f"events: lease ({self.lease:g} s) must be three times poll ({self.poll:g} s) at least")
        if problems:
            raise SettingsError(problems)


def network_fault(text: str) -> str | None:
    """What is wrong with a network as it is written; None where nothing is."""
    try:
        ip_network(text)
    except ValueError as error:
        return str(error)
    return None
