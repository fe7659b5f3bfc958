"""Sizing: nothing that is wanted more costs less, parts make the whole, and every unit is what it says."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.platform.cells import LARGE, MIB, STANDARD
from chimera.platform.model import ResourceClass
from chimera.platform.sizing import (
    AGENT_NODE,
    CONTROL_NODE,
    GIB,
    HOSTS,
    HOURS,
    LIST_PRICES,
    SYSTEM_PODS,
    Demand,
    Machine,
    Request,
    allocatable,
    host_request,
    pod_request,
    pods_on,
    size,
    standing,
)

requests = st.builds(Request, cpu_millicores=st.integers(1, 20_000), memory_bytes=st.integers(1, 64 * GIB))
held = st.lists(st.tuples(requests, st.integers(0, 500)), max_size=5)
mixes = st.dictionaries(st.sampled_from(sorted(HOSTS)), st.floats(0.01, 10), min_size=1)
demands = st.builds(
    Demand,
    agents=st.integers(1, 200_000),
    calls_per_second=st.floats(0, 5_000),
    call_seconds=st.floats(0.01, 60),
    mix=mixes,
    tenants=st.integers(1, 50),
    large=st.sampled_from([0.0, 0.25, 1.0]),
    code_owners=st.integers(0, 50),
    dedicated=st.integers(0, 50),
    awake=st.floats(0, 1),
    peak=st.floats(1, 10),
    warm=st.integers(0, 100),
    most_kept=st.integers(0, 2_000),
    spare=st.floats(0, 1),
)
GROWING: list[tuple[str, Any]] = [
    ("agents", st.integers(0, 100_000)),
    ("calls_per_second", st.floats(0, 1_000)),
    ("call_seconds", st.floats(0, 60)),
    ("tenants", st.integers(0, 20)),
    ("code_owners", st.integers(0, 20)),
    ("dedicated", st.integers(0, 20)),
    ("peak", st.floats(0, 5)),
    ("warm", st.integers(0, 50)),
    ("most_kept", st.integers(0, 500)),
    ("spare", st.floats(0, 1)),
]


@pytest.mark.parametrize("name", [name for name, _ in GROWING])
@given(demand=demands, data=st.data())
def test_who_wants_more_never_pays_less(demand: Demand, name: str, data: st.DataObject) -> None:
    more = data.draw(dict(GROWING)[name])
    before, after = size(demand), size(replace(demand, **{name: getattr(demand, name) + more}))
    assert after.cells >= before.cells
    assert after.host_pods >= before.host_pods
    assert after.gateways >= before.gateways
    assert after.nodes_needed >= before.nodes_needed
    assert after.usd_per_month >= before.usd_per_month


@given(demands)
def test_the_pool_keeps_its_bounds_and_says_where_they_are_too_tight(demand: Demand) -> None:
    found = size(demand)
    assert demand.least_nodes <= found.agent_nodes <= demand.most_nodes
    assert any("nodes are needed" in note for note in found.notes) == (found.nodes_needed > demand.most_nodes)
    assert found.usd_per_month == pytest.approx(sum(found.parts.values()))
    assert found.host_pods == sum(one.pods for one in found.pods)
    assert found.cells == sum(one.cells for one in found.pods)


@given(demands)
def test_agents_alone_make_no_cells(demand: Demand) -> None:
    """Cells follow tenants, frameworks, classes, owners and dedicated agents."""
    declared = size(replace(demand, code_owners=0, dedicated=0))
    classes = 2 if 0 < demand.large < 1 else 1
    assert declared.cells <= demand.tenants * len(demand.mix) * classes


@given(demands)
def test_pods_hold_the_calls_in_flight_their_cpu_and_the_loaded_agents(demand: Demand) -> None:
    found = size(demand)
    peak = demand.calls_per_second * demand.peak
    by_framework = {name: 0 for name in demand.mix}
    for one in found.pods:
        if one.framework in by_framework:
            by_framework[one.framework] += one.pods
    for name, share in demand.mix.items():
        part = share / sum(demand.mix.values())
        pods = by_framework[name]
        assert pods * demand.target * demand.utilisation >= peak * part * demand.call_seconds * (1 - 1e-9)
        # A large pod requests a core, a standard one half of one.
        assert pods >= peak * part * HOSTS[name].cpu_seconds * (1 - 1e-9)
        loaded = demand.agents * part * demand.awake * HOSTS[name].agent_bytes
        assert pods * LARGE.memory_bytes >= loaded * (1 - 1e-9)


@given(demands)
def test_warm_pools_are_kept_within_their_bound(demand: Demand) -> None:
    found, without = size(demand), size(replace(demand, warm=0))
    kept = min(found.cells * demand.warm, demand.most_kept)
    assert found.host_pods == max(without.host_pods, kept)


def test_defaults_are_those_of_settings() -> None:
    settings, wanted = KnativeSettings(), Demand(agents=1, calls_per_second=0)
    assert (wanted.warm, wanted.most_kept) == (settings.warm_pool, settings.most_kept)
    assert (wanted.most_cells, wanted.max_hosts) == (settings.most_cells, settings.max_hosts)
    assert wanted.most_pods == settings.most_pods
    assert wanted.request_share == settings.request_share and wanted.utilisation * 100 == settings.utilisation


@given(held, held)
def test_what_stands_adds_up(one: list[tuple[Request, int]], other: list[tuple[Request, int]]) -> None:
    first, second, both = standing(one), standing(other), standing([*one, *other])
    assert both.pods == first.pods + second.pods
    assert both.cpu_millicores == first.cpu_millicores + second.cpu_millicores
    assert both.memory_bytes == first.memory_bytes + second.memory_bytes
    assert both.nodes == pytest.approx(first.nodes + second.nodes)
    assert both.usd_per_month == pytest.approx(first.usd_per_month + second.usd_per_month)


@given(requests, st.sampled_from([AGENT_NODE, CONTROL_NODE]))
def test_what_is_said_to_fit_on_a_node_does_and_one_more_does_not(request_: Request, machine: Machine) -> None:
    fit, room = pods_on(request_, machine), allocatable(machine)

    def fits(count: int) -> bool:
        return (
            count * request_.cpu_millicores + SYSTEM_PODS.cpu_millicores <= room.cpu_millicores
            and count * request_.memory_bytes + SYSTEM_PODS.memory_bytes <= room.memory_bytes
            and count <= machine.pods - 10
        )

    assert fit == 0 or fits(fit)
    assert not fits(fit + 1)


def test_a_node_gives_what_its_documentation_says() -> None:
    """The example there: 4 cores and 16 GiB leave 3920m and 13,498,416 KiB; here never more, and little less."""
    found = allocatable(CONTROL_NODE)
    assert found.cpu_millicores == 3920
    assert 0.95 * 13_498_416 * 1024 < found.memory_bytes <= 13_498_416 * 1024


def test_a_hundred_pods_for_each_of_three_frameworks_are_seen_in_money_before_they_run() -> None:
    share = KnativeSettings().request_share
    found = standing([(pod_request(STANDARD, share), 300)])
    assert (found.pods, found.cpu_millicores, found.memory_bytes) == (300, 300 * 525, 300 * 1024 * MIB)
    assert found.nodes == pytest.approx(300 / pods_on(pod_request(STANDARD, share), AGENT_NODE))
    node = LIST_PRICES.agent_node_hour * HOURS + 200 * LIST_PRICES.disk_gb_month
    assert found.usd_per_month == pytest.approx(found.nodes * node)


def test_a_dedicated_agent_gets_what_it_asked_for() -> None:
    asked = ResourceClass(name="dedicated", cpu_millicores=700, memory_bytes=900 * MIB)
    assert host_request(asked, 0.5) == Request(cpu_millicores=700, memory_bytes=900 * MIB)
