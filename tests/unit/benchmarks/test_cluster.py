"""What is read from an API server's metrics, and what is fitted to a part of a measurement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cluster.api import read_counters
from benchmarks.cluster.one_each import fit

BEFORE = """\
# HELP apiserver_request_total Counter of apiserver requests
apiserver_request_total{code="200",dry_run="",group="chimera.ecosystem",resource="agents",verb="APPLY"} 3
apiserver_request_total{code="201",dry_run="",group="chimera.ecosystem",resource="agents",verb="APPLY"} 4
apiserver_request_total{code="200",dry_run="",group="",resource="pods",verb="LIST"} 10
apiserver_resource_objects{group="chimera.ecosystem",resource="agents"} 7
apiserver_resource_objects{group="",resource="pods"} 5
apiserver_resource_objects{group="",resource="broken"} -1
apiserver_resource_size_estimate_bytes{group="chimera.ecosystem",resource="agents"} 2.1e+06
apiserver_storage_size_bytes{storage_cluster_id="etcd-0"} 1.048576e+07
apiserver_request_duration_seconds_bucket{verb="APPLY",le="0.05"} 12
"""
AFTER = BEFORE.replace('verb="APPLY"} 4', 'verb="APPLY"} 9').replace("1.048576e+07", "2.097152e+07")


def test_counters_are_read_and_subtracted() -> None:
    before, after = read_counters(BEFORE), read_counters(AFTER)
    assert before.calls("chimera.ecosystem") == 7 and before.calls("", "LIST") == 10
    assert before.objects == {"agents.chimera.ecosystem": 7, "pods": 5, "broken": 0}
    assert before.sizes == {"agents.chimera.ecosystem": 2_100_000}
    cost = after.since(before)
    assert cost.calls("chimera.ecosystem", "APPLY") == 5 and cost.calls("") == 0
    assert cost.database == 10 * 2**20 and not cost.objects


@given(st.floats(0, 10), st.floats(0, 0.01))
def test_a_fit_finds_what_was_there(a: float, b: float) -> None:
    samples = [(float(n), a * n + b * n**2) for n in range(10, 400, 10)]
    slope, curve = fit(samples)
    assert slope * 10_000 + curve * 10_000**2 == pytest.approx(a * 10_000 + b * 10_000**2, rel=1e-3, abs=1e-3)


@given(st.lists(st.tuples(st.floats(1, 1000), st.floats(0, 1000)), min_size=1, max_size=20))
def test_a_fit_never_goes_down(samples: list[tuple[float, float]]) -> None:
    slope, curve = fit(samples)
    assert slope >= 0 and curve >= 0


def test_nothing_measured_is_no_number() -> None:
    slope, _ = fit([])
    assert slope != slope
