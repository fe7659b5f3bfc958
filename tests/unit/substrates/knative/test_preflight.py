"""What is said before an installation: the cost of warm pools, and what the cluster lacks."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.preflight import (
    FLAGS,
    Room,
    Seen,
    findings,
    look,
    quantity,
    release,
    told,
    warmth,
)
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.platform.cells import MIB
from chimera.testing.cluster import FakeCluster, refusal

GIB = 1024 * MIB
BIG = Room(cpu_millicores=7_910, memory_bytes=28 * GIB, pods=110)
FINE = Seen(version=(1, 21), features={}, autoscaler={}, nodes=[BIG] * 10)
EVERYTHING = KnativeSettings(runtime_class="gvisor", priority_class="agents", spread=True, initial_scale=0)


def test_a_cluster_that_has_all_is_left_alone() -> None:
    assert findings(KnativeSettings(), FINE) == []
    assert findings(KnativeSettings(), Seen()) == [], "what may not be read is not held against it"


@pytest.mark.parametrize("setting", FLAGS)
def test_a_setting_that_needs_a_flag_names_it_while_it_is_off(setting: str) -> None:
    wanted = KnativeSettings(**{setting: getattr(EVERYTHING, setting)})
    (found,) = findings(wanted, FINE)
    assert setting in found.what and FLAGS[setting] in found.what and "config-features" in found.next_step
    for on in ("enabled", "Enabled", "allowed"):
        assert findings(wanted, replace(FINE, features={FLAGS[setting]: on})) == []
    assert findings(wanted, replace(FINE, features={FLAGS[setting]: "disabled"})) == [found]


def test_every_setting_that_renders_something_behind_a_flag_is_looked_at() -> None:
    assert len(findings(EVERYTHING, FINE)) == len(FLAGS) + 1
    on = replace(
        FINE, features=dict.fromkeys(FLAGS.values(), "enabled"), autoscaler={"allow-zero-initial-scale": "true"}
    )
    assert findings(EVERYTHING, on) == []
    off = replace(FINE, features={"kubernetes.podspec-volumes-emptydir": "disabled"})
    assert "podspec-volumes-emptydir" in findings(KnativeSettings(), off)[0].what


def test_a_warm_pool_that_does_not_fit_says_so_with_numbers() -> None:
    small = replace(FINE, nodes=[Room(cpu_millicores=2_000, memory_bytes=8 * GIB, pods=110)])
    (found,) = findings(KnativeSettings(), small)
    assert "100 pods" in found.what and "room for 3 such pods" in found.what and "--warm-pool 0" in found.next_step
    assert findings(KnativeSettings(warm_pool=3), small) == findings(KnativeSettings(warm_pool=0), small) == []


def test_what_it_costs_is_told_before() -> None:
    one = warmth(KnativeSettings(), FINE)
    assert (one.one.pods, one.most.pods, one.fit) == (100, 1_000, 150)
    assert one.one.cpu_millicores == 100 * 525 and one.one.memory_bytes == 100 * GIB
    assert 9.9 < one.most.usd_per_month / one.one.usd_per_month < 10.1
    lines = "\n".join(told(KnativeSettings(), FINE))
    for words in ("100 pods request 52.5 cores and 100.0 GiB", "1,000 pods", "$", "a month", "room for 150 such pods"):
        assert words in lines
    assert "a month" not in "\n".join(told(KnativeSettings(warm_pool=0), FINE))


@pytest.mark.parametrize(
    ("version", "settings", "words"),
    [
        ((1, 20), KnativeSettings(), "templates alone"),
        ((1, 20), KnativeSettings(warm_in_template=True), None),
        ((1, 20), KnativeSettings(warm_pool=0), None),
        ((1, 10), KnativeSettings(warm_pool=0), "1.11 is the oldest"),
        ((2, 0), KnativeSettings(), None),
    ],
)
def test_the_release_of_knative_counts(version: tuple[int, int], settings: KnativeSettings, words: str | None) -> None:
    found = findings(settings, replace(FINE, version=version))
    assert [words in one.what for one in found] == ([True] if words else [])  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("250m", 0.25),
        ("4", 4),
        ("16393236Ki", 16_393_236 * 1024),
        ("7.5Gi", 7.5 * 2**30),
        ("1e3", 1_000),
        ("2k", 2_000),
    ],
)
def test_quantities(text: str, number: float) -> None:
    assert quantity(text) == number


def test_releases() -> None:
    assert [release(text) for text in ("1.21.0", "v1.9", "devel")] == [(1, 21), (1, 9), None]


# -- what is read of a cluster -----------------------------------------------------------------------------------------


@pytest.fixture
async def cluster() -> AsyncIterator[tuple[FakeCluster, Kubernetes]]:
    async with FakeCluster() as made:
        api = Kubernetes(ClusterAccess(server=made.url, tls=None, credentials=NoToken(), namespace="default"))
        yield made, api
        await api.aclose()


async def test_a_cluster_is_read(cluster: tuple[FakeCluster, Kubernetes]) -> None:
    made, api = cluster
    assert not (await look(api)).serving
    for name, data in (("config-features", {"flag": "enabled"}), ("config-autoscaler", {"key": "value"})):
        meta = {"name": name, "namespace": "knative-serving", "labels": {"app.kubernetes.io/version": "1.21.3"}}
        await made.put("configmaps", {"metadata": meta, "data": data})
    for name, ready, cordoned in (("a", "True", False), ("b", "False", False), ("c", "True", True)):
        node = {
            "metadata": {"name": name},
            "spec": {"unschedulable": cordoned},
            "status": {
                "allocatable": {"cpu": "7910m", "memory": "28Gi", "pods": "110", "hugepages-1Gi": "0"},
                "conditions": [{"type": "Ready", "status": ready}],
            },
        }
        await made.put("nodes", node)
    seen = await look(api)
    assert seen == Seen(version=(1, 21), features={"flag": "enabled"}, autoscaler={"key": "value"}, nodes=[BIG])


async def test_who_may_not_look_installs_all_the_same(cluster: tuple[FakeCluster, Kubernetes]) -> None:
    made, api = cluster
    made.faults.append(refusal(403, "Forbidden", "nodes is forbidden: User cannot list"))
    assert await look(api) == Seen()


def test_without_knative_nothing_else_matters() -> None:
    (found,) = findings(EVERYTHING, Seen(serving=False))
    assert "not in the cluster" in found.what and found.next_step
