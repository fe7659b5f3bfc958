"""What a cell's scale means in both homes: the same targets and the same idle time, on one machine and on Knative."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.preflight import FLAGS
from chimera.adapters.substrates.knative.render import HostBounds, render
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.platform import autoscaler
from chimera.platform.autoscaler import Bounds, Observation, ScalerState
from chimera.testing.cells import cell

TICK = 2.0


def annotations(settings: KnativeSettings = KnativeSettings(), **changes: object) -> dict[str, str]:  # noqa: B008
    template = render(cell(**changes), settings, HostBounds())["spec"]["template"]
    return {
        name.removeprefix(names.AUTOSCALING): value
        for name, value in template["metadata"]["annotations"].items()
        if name.startswith(names.AUTOSCALING)
    }


def asleep_on_a_machine(idle_timeout: float, level: float) -> float:
    """Seconds from the last call until no host is wanted, by the node agent's rule."""
    bounds = Bounds(minimum=0, maximum=10, target=10.0, idle_timeout=idle_timeout)
    state, now, hosts = ScalerState(), 1_000.0, 1
    for _ in range(60):
        decided = autoscaler.decide(bounds, Observation(in_flight=level, waiting=0, ready=hosts), state, now)
        state, hosts = decided.state, max(1, decided.hosts)
        now += TICK
    last = now - TICK
    while hosts:
        decided = autoscaler.decide(bounds, Observation(in_flight=0.0, waiting=0, ready=hosts), state, now)
        state, hosts = decided.state, decided.hosts
        now += TICK
    return now - TICK - last


def asleep_on_knative(idle_timeout: float) -> float:
    """The same by Knative's settings: the stable window must be empty, then the last pod is retained."""
    found = annotations(idle_timeout=idle_timeout)
    return sum(float(found[name].removesuffix("s")) for name in ("window", "scale-to-zero-pod-retention-period"))


@given(st.integers(61, 3_600), st.floats(0.1, 6.0))
def test_a_cell_sleeps_as_late_after_its_last_call_in_both(idle_timeout: int, level: float) -> None:
    machine, knative = asleep_on_a_machine(float(idle_timeout), level), asleep_on_knative(float(idle_timeout))
    assert 0 <= machine - idle_timeout <= TICK and knative == idle_timeout


def test_five_minutes_unless_said_otherwise() -> None:
    assert asleep_on_knative(cell().idle_timeout) == 300.0
    assert 300.0 <= asleep_on_a_machine(cell().idle_timeout, 1.0) <= 300.0 + TICK
    found = annotations()
    assert (found["window"], found["scale-to-zero-pod-retention-period"]) == ("60s", "240s")


def test_the_same_target_at_the_same_share() -> None:
    found = annotations()
    assert (found["target"], found["target-utilization-percentage"]) == ("10", "70")
    assert float(found["target"]) == cell().target
    assert float(found["target-utilization-percentage"]) / 100 == autoscaler.UTILISATION
    assert float(found["window"].removesuffix("s")) == autoscaler.STABLE_WINDOW
    assert found["metric"] == "concurrency" and found["class"] == "kpa.autoscaling.knative.dev"
    assert (found["min-scale"], found["max-scale"], found["target-burst-capacity"]) == ("0", "1000", "0")


@pytest.mark.parametrize(
    ("setting", "value", "field"),
    [
        ("runtime_class", "gvisor", "runtimeClassName"),
        ("priority_class", "agents", "priorityClassName"),
        ("spread", True, "topologySpreadConstraints"),
    ],
)
def test_what_needs_a_feature_of_knative_is_left_out_unless_asked_for(setting: str, value: object, field: str) -> None:
    assert setting in FLAGS, "the installation looks whether it is on"

    def spec(settings: KnativeSettings) -> set[str]:
        return set(render(cell(), settings, HostBounds())["spec"]["template"]["spec"])

    with_it = spec(KnativeSettings(**{setting: value}))  # type: ignore[arg-type]
    assert with_it - spec(KnativeSettings()) == {field}


def test_nothing_else_is_rendered_than_knative_takes_without_a_feature() -> None:
    allowed = {
        "containerConcurrency",
        "timeoutSeconds",
        "serviceAccountName",
        "automountServiceAccountToken",
        "enableServiceLinks",
        "containers",
        "volumes",
        "imagePullSecrets",
    }
    spec = render(cell(), KnativeSettings(pull_secrets=("one",)), HostBounds())["spec"]["template"]["spec"]
    assert set(spec) == allowed and spec["containerConcurrency"] == 0
    assert {tuple(volume) for volume in spec["volumes"]} == {("name", "emptyDir"), ("name", "projected")}
