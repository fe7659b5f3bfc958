"""Settings of cells on Knative: where they live, from which images, and what their pods may use."""

from dataclasses import dataclass

from chimera.kernel.settings import setting


@dataclass(frozen=True, kw_only=True, slots=True)
class KnativeSettings:
    """Cells as Knative Services."""

    namespace: str = setting("chimera-cells", "The namespace of cells; nothing else should live there.")
    image: str = setting(
        "chimera-host-{framework}:0.1.0",
        "The image of hosts in Python; `{framework}` stands for autogen, crewai, langgraph or function. A digest "
        "(`…@sha256:…`) keeps what runs from changing under a tag.",
    )
    node_image: str = setting("chimera-host-node:0.1.0", "The image of hosts for `node:18-alpine`.")
    pull_secrets: tuple[str, ...] = setting((), "Secrets in the namespace with which images are pulled.")
    platform_url: str = setting(
        "http://chimera-internal.chimera.svc.cluster.local:8081", "The gateway's internal API, as pods reach it."
    )
    service_account: str = setting("chimera-host", "The service account of hosts; it needs no permission at all.")
    audience: str = setting("chimera", "Whom the token that a pod shows the gateway is for.")
    most_cells: int = setting(
        200,
        "Most cells at once. A Knative Service costs a cluster three Services and more; Knative is known to hold about "
        "3,000. Beyond it no cell is made, and the cell's condition says so.",
        minimum=1,
        maximum=3_000,
    )
    max_hosts: int = setting(1_000, "Most pods of one cell, whatever its agents say.", minimum=1, maximum=1_000)
    warm_pool: int = setting(
        100,
        "Pods that are kept warm for each agent type: of each cell that types share, which then share its pool. They "
        "cost what they request, all the time: `chimera install` says what before it applies. 0 keeps none.",
        minimum=0,
        maximum=1_000,
    )
    most_kept: int = setting(
        1_000,
        "Most pods that are kept though nobody calls, of all cells together: `min_instances` first, then warm pools.",
        minimum=0,
        maximum=100_000,
    )
    most_pods: int = setting(
        2_500,
        "Most pods in the namespace of cells, whatever definitions ask for, held by its ResourceQuota; 0 sets none.",
        minimum=0,
    )
    warm_in_template: bool = setting(
        False,
        "Keep warm pools by the template of revisions, as Knative before 1.21 needs it: a revision is then ready only "
        "when all of its pool is, and a change of the pool is a new one.",
    )
    utilisation: float = setting(
        70.0, "Share of a cell's target at which Knative adds a pod.", unit="percent", minimum=1, maximum=100
    )
    window: float = setting(
        60.0, "Knative's stable window; what is left of a cell's idle time-out is pod retention.", unit="s", minimum=6
    )
    initial_scale: int = setting(
        1,
        "Pods that a new revision of a cell must have ready before calls go to it; 0 needs `allow-zero-initial-scale` "
        "in Knative's config-autoscaler, and moves calls to what was never started.",
        minimum=0,
    )
    start_timeout: float = setting(
        300.0,
        "A new revision of a cell that isn't ready after this has failed, with the reason; a large image on a new node "
        "takes minutes.",
        unit="s",
        minimum=30,
        maximum=3_600,
    )
    start_retry: float = setting(
        60.0,
        "A cell that never came up, and that Knative has given up, is tried anew after this, twice as long each time, "
        "an hour at most.",
        unit="s",
        minimum=10,
    )
    rollout_steps: tuple[int, ...] = setting(
        (100,),
        "The shares of its calls that a cell's new revision gets one after the other, once it is ready at the scale of "
        "what serves; 100 is always the last. Several, as 10, 50, 100, let a bad one show itself to few.",
        unit="percent",
        minimum=1,
        maximum=100,
    )
    rollout_pause: float = setting(15.0, "Time between two of these steps.", unit="s", minimum=0)
    rollout_hold: float = setting(
        60.0,
        "How long what served before is kept at hand, and the new revision's pods at their number, once it has all "
        "calls: until the autoscaler has seen them for a stable window.",
        unit="s",
        minimum=0,
    )
    rollout_retry: float = setting(
        600.0, "A revision that was given up is tried anew after this, twice as long each time.", unit="s", minimum=30
    )
    rollouts: int = setting(
        8, "Most cells that change over at once; each has its pods twice meanwhile.", minimum=1, maximum=1_000
    )
    burst_capacity: int = setting(
        0,
        "Knative's target burst capacity. The gateway chooses pods itself and bounds their calls, so the activator is "
        "in the way of a sleeping cell alone (0); -1 keeps it always.",
        minimum=-1,
    )
    request_share: float = setting(
        0.5,
        "Share of a shared cell's memory and CPU that a pod requests of its node; a dedicated one requests all.",
        minimum=0.05,
        maximum=1,
    )
    scratch_bytes: int = setting(
        1024**3, "Room for agents' folders in a pod; a pod above it is evicted.", unit="bytes", minimum=64 * 1024**2
    )
    threads: int = setting(64, "Threads of a host for blocking frameworks and tools.", minimum=1, maximum=100)
    user: int = setting(65_532, "User and group that hosts run as.", minimum=1)
    runtime_class: str = setting(
        "",
        "The RuntimeClass of pods, such as gvisor; empty: the cluster's own. Needs "
        "`kubernetes.podspec-runtimeclassname` in Knative's config-features.",
    )
    priority_class: str = setting(
        "", "The PriorityClass of pods; empty: none. Needs `kubernetes.podspec-priorityclassname` in config-features."
    )
    spread: bool = setting(
        False,
        "Spread a cell's pods over zones and nodes. Needs `kubernetes.podspec-topologyspreadconstraints` in "
        "config-features; `chimera install` looks.",
    )
    resync: float = setting(
        300.0, "Cells are compared with the catalogue at least this often, whatever was told.", unit="s", minimum=1
    )
    poll: float = setting(
        1.0, "How often the catalogue is asked whether it changed; one read of one number.", unit="s", minimum=0.05
    )
    clock_leeway: float = setting(
        30.0,
        "By how much this machine's clock and the API server's may differ before the home's condition says so.",
        unit="s",
        minimum=2,
    )
    unused_grace: float = setting(
        3_600.0, "A cell that no live agent belongs to is deleted this long after.", unit="s", minimum=0
    )
    writes_per_second: float = setting(
        20.0, "Most changes a second that are sent to the API server.", minimum=0.1, maximum=1_000
    )
