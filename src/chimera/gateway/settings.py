"""Settings of the gateway, in groups, and the one rule across them: deadlines end from the inside out.

Whoever waits must wait longer than whom it waits for, or the caller sees a broken connection where an error with a
name was on its way: model < tool < host < gateway < Knative's request time-out < the grace of a terminating pod.
"""

import itertools
from dataclasses import dataclass, field
from typing import get_type_hints

from chimera.events.settings import EventSettings, network_fault
from chimera.gateway.tasks.settings import TaskSettings
from chimera.immune.audit.settings import AuditSettings
from chimera.kernel.settings import SettingsError, setting


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadlineSettings:
    """The chain of deadlines. Each must be longer than the one before."""

    model: float = setting(120.0, "Longest model call, all attempts together.", unit="s", minimum=0.1)
    tool: float = setting(150.0, "Longest tool call, unless the tool's definition says less.", unit="s", minimum=0.1)
    host: float = setting(590.0, "Longest call in a host.", unit="s", minimum=0.1)
    gateway: float = setting(595.0, "Longest call at the gateway.", unit="s", minimum=0.1)
    platform: float = setting(600.0, "The request time-out of Knative.", unit="s", minimum=0.1, maximum=600.0)
    termination_grace: float = setting(630.0, "How long a terminating host may drain.", unit="s", minimum=0.1)

    def check(self) -> None:
        """Raise `SettingsError` where one isn't longer than the one before."""
        chain = ("model", "tool", "host", "gateway", "platform", "termination_grace")
        problems = [
            f"deadlines: {outer} ({getattr(self, outer):g} s) must be longer than {inner} ({getattr(self, inner):g} s)"
            for inner, outer in itertools.pairwise(chain)
            if getattr(self, outer) <= getattr(self, inner)
        ]
        if problems:
            raise SettingsError(problems)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdmissionSettings:
    """How many calls at once."""

    total: int = setting(2_000, "Calls at once, all agents together; more are answered 503.", minimum=1)
    held: int = setting(1_000, "Calls that may wait for a host, all cells together; more are answered 503.", minimum=0)
    hold: float = setting(60.0, "Longest wait for a host, waking its cell included.", unit="s", minimum=0.1)
    host_concurrency: int = setting(100, "Calls at once that one host takes; the same as the host's own.", minimum=1)
    depth: int = setting(8, "How deep agents may call agents.", minimum=1, maximum=64)
    family: int = setting(200, "Most calls of agents that one call from outside may lead to.", minimum=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpSettings:
    """Limits of the listeners and of streams."""

    body_bytes: int = setting(8 * 1024**2, "Largest body of a call.", unit="bytes", minimum=1024)
    proxied_body_bytes: int = setting(256 * 1024**2, "Largest body for the catalogue.", unit="bytes", minimum=1024)
    body_timeout: float = setting(30.0, "How long a body may take to arrive.", unit="s", minimum=0.1)
    header_timeout: float = setting(20.0, "How long a new connection may take to send a request.", unit="s", minimum=1)
    connections: int = setting(4_096, "Connections at once; the next waits to be accepted.", minimum=1)
    keepalive: float = setting(75.0, "How long an idle connection stays open.", unit="s", minimum=1)
    stream_comment: float = setting(15.0, "A stream without news sends a comment this often.", unit="s", minimum=0.05)
    stream_idle: float = setting(120.0, "A stream ends when its agent is silent this long.", unit="s", minimum=0.1)
    session_bytes: int = setting(4 * 1024**2, "Largest state of a session.", unit="bytes", minimum=1024)
    drain_pause: float = setting(
        0.0,
        "How long a gateway that is told to end isn't ready and still takes calls, until whoever balances connections "
        "knows; `chimera install` and the chart say 8.",
        unit="s",
        minimum=0,
        maximum=300,
    )
    drain: float = setting(
        20.0,
        "How long calls may then finish, all together; those that are still under way are cut off. `chimera install` "
        "and the chart say 180.",
        unit="s",
        minimum=0,
        maximum=3_600,
    )
    page: int = setting(1_000, "Models in one page of /v1/models by default.", minimum=1, maximum=100_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelGatewaySettings:
    """Retries and the circuit breaker in front of each model."""

    attempts: int = setting(3, "Attempts of a model call, the first included.", minimum=1, maximum=10)
    backoff: float = setting(0.2, "Wait before the second attempt; doubles, with full jitter.", unit="s", minimum=0)
    backoff_cap: float = setting(10.0, "Longest wait between two attempts.", unit="s", minimum=0)
    breaker_failures: int = setting(8, "Failures in a row that open the circuit.", minimum=1)
    breaker_open: float = setting(10.0, "How long an open circuit refuses before it tries one call.", unit="s")
    breaker_patience: float = setting(
        10.0,
        "A time-out counts as the provider's failure from here on; sooner it says that a caller was in a hurry.",
        unit="s",
        minimum=0,
    )
    queue: int = setting(1_000, "Model calls that may wait for a model; more are answered 503.", minimum=0)
    flush: float = setting(1.0, "How often metered use is written down.", unit="s", minimum=0.01)


@dataclass(frozen=True, kw_only=True, slots=True)
class QuotaSettings:
    """How budgets, calls at once and calls a minute are shared by several gateways."""

    answer_tokens: int = setting(
        1_024, "Reserved for a model's answer where the call names no `max_tokens`.", unit="tokens", minimum=1
    )
    idle: float = setting(30.0, "A slice of a budget is given back when unused this long.", unit="s", minimum=0.1)
    burst: float = setting(
        10.0, "Calls a minute may come at once as far as they fit into this time.", unit="s", minimum=1, maximum=60
    )
    beat: float = setting(3.0, "How often a gateway says that it lives.", unit="s", minimum=0.05)
    expiry: float = setting(
        10.0,
        "A gateway that was silent this long is counted no more; the others take its share.",
        unit="s",
        minimum=1,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentitySettings:
    """Who may ask for what: how keys, roles and policies are followed, kept and bounded."""

    poll: float = setting(
        0.5,
        "How often keys, roles, policies and tenants are looked at for changes made through other gateways: a key "
        "revoked there is refused here this much later at most.",
        unit="s",
        minimum=0.01,
    )
    decisions: int = setting(65_536, "Decisions kept in memory, about 1 KB each.", minimum=1)
    failures: float = setting(20.0, "Wrong credentials that an address may show at once.", minimum=1)
    failures_per_second: float = setting(
        0.5, "Wrong credentials a second that an address may show after that; more are answered 429.", minimum=0.001
    )
    key_overlap: float = setting(
        86_400.0,
        "How long the old secret of a rotated key goes on, unless the rotation says less.",
        unit="s",
        minimum=0,
    )
    policies: int = setting(500, "Most policy texts of a tenant.", minimum=1, maximum=10_000)
    policy_bytes: int = setting(32 * 1024, "Largest policy text.", unit="bytes", minimum=256)
    secret_mounts: tuple[str, ...] = setting(
        (),
        "Folders with one file for each `secret:NAME`, as Kubernetes mounts a Secret; looked into after the home's "
        "folder `secrets`. Who may read them is for who mounts them to say.",
    )
    token_life: float = setting(
        3_600.0, "How long a host's token lives; hosts change it at a third of that.", unit="s", minimum=300
    )
    clock_leeway: float = setting(
        60.0,
        "By how much the clocks of gateways may differ: a host's token that another gateway made holds so much longer.",
        unit="s",
        minimum=0,
        maximum=300,
    )
    jwks_pause: float = setting(
        10.0, "Least time between two fetches of an issuer's keys, whatever tokens arrive.", unit="s", minimum=0.1
    )
    jwks_fresh: float = setting(3_600.0, "An issuer's keys are fetched again when older.", unit="s", minimum=1)
    jwks_kept: float = setting(
        86_400.0, "An issuer's keys count this long while it can't be reached; then its tokens are refused.", unit="s"
    )
    resource: str = setting(
        "", "This API's own address as its issuers know it, for clients that look for them; empty: the address called."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StateSettings:
    """What is kept of conversations, unfinished work and shared spaces: how long, and how much."""

    session_ttl: float = setting(
        2_592_000.0,
        "A session ends this long after its last save, unless it has a time to live of its own; 0: never.",
        unit="s",
        minimum=0,
    )
    answer_ttl: float = setting(
        86_400.0, "An answer is given again to the same Idempotency-Key this long.", unit="s", minimum=60
    )
    open_ttl: float = setting(
        604_800.0, "Unfinished work can be gone on with this long after its last step.", unit="s", minimum=60
    )
    model_answer_ttl: float = setting(
        86_400.0, "Model answers of unfinished work are kept this long, at most.", unit="s", minimum=60
    )
    model_answer_bytes: int = setting(
        1024**2, "Largest model answer that is kept; a larger one is asked for again.", unit="bytes", minimum=1024
    )
    run_bytes: int = setting(
        64 * 1024**2, "Most that one piece of unfinished work may hold.", unit="bytes", minimum=64 * 1024
    )
    run_steps: int = setting(10_000, "Most steps of one piece of work.", minimum=1)
    step_bytes: int = setting(8 * 1024**2, "Largest step, checkpoint or shared write.", unit="bytes", minimum=1024)
    checkpoints: int = setting(
        10, "Checkpoints of each graph thread that a session keeps once its work is finished.", minimum=1
    )
    deaths: int = setting(2, "Hosts that may die under one call that can go on elsewhere.", minimum=0, maximum=10)
    holder_life: float = setting(
        15.0,
        "A gateway that was silent this long works on nothing any more; others may go on with its calls.",
        unit="s",
        minimum=1,
    )
    space_bytes: int = setting(16 * 1024**2, "Most that a shared space may hold.", unit="bytes", minimum=1024)
    space_keys: int = setting(100_000, "Most keys of a shared space.", minimum=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionSettings:
    """Functions that agents stand for: where they may be, and how many are called at once."""

    allow: tuple[str, ...] = setting(
        (),
        "Networks that functions may be in beside public addresses, such as 10.0.0.0/8 for those of a cluster; those "
        "also by http.",
    )
    connections: int = setting(256, "Requests to functions at once; the next waits.", minimum=1, maximum=10_000)
    connect_timeout: float = setting(5.0, "How long a connection to a function may take.", unit="s", minimum=0.1)

    def check(self) -> None:
        """Raise `SettingsError` for a network that is none."""
        problems = [f"functions.allow: {fault}" for text in self.allow if (fault := network_fault(text)) is not None]
        if problems:
            raise SettingsError(problems)


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteSettings:
    """How the gateway follows the catalogue."""

    poll: float = setting(
        0.25,
        "How often routes are looked at for changes made elsewhere: a revision taken back there gets no call here this "
        "much later at most.",
        unit="s",
        minimum=0.01,
    )
    page: int = setting(2_000, "Routes read at once.", minimum=1)
    sample: float = setting(1.0, "How often calls in flight are reported for autoscaling.", unit="s", minimum=0.01)
    observe: float = setting(
        1.0,
        "How often is written down what was seen of agents in a rollout; a gateway that is killed loses so much.",
        unit="s",
        minimum=0.01,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewaySettings:
    """All groups."""

    deadlines: DeadlineSettings = DeadlineSettings()
    admission: AdmissionSettings = AdmissionSettings()
    http: HttpSettings = HttpSettings()
    models: ModelGatewaySettings = ModelGatewaySettings()
    quota: QuotaSettings = QuotaSettings()
    routes: RouteSettings = RouteSettings()
    identity: IdentitySettings = IdentitySettings()
    audit: AuditSettings = field(default_factory=AuditSettings)
    state: StateSettings = StateSettings()
    tasks: TaskSettings = field(default_factory=TaskSettings)
    events: EventSettings = field(default_factory=EventSettings)
    functions: FunctionSettings = field(default_factory=FunctionSettings)


def gateway_groups() -> dict[str, type]:
    """Every group of the gateway's settings by its name in the file."""
    return get_type_hints(GatewaySettings)
