"""What a cell becomes as a Knative Service, whatever the cell: valid names, bounds that hold, nothing privileged."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.render import HostBounds, NotRunnable, digest, render
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.gateway.settings import AdmissionSettings, DeadlineSettings
from chimera.platform.cells import LARGE, STANDARD, cell_id
from chimera.platform.model import CellSpec, ResourceClass, RuntimeClass
from chimera_host.config import from_environment

LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
ANY_SETTINGS = st.sampled_from(
    [
        KnativeSettings(),
        KnativeSettings(max_hosts=3, initial_scale=5, request_share=0.1, window=30.0, utilisation=55.5),
        KnativeSettings(runtime_class="gvisor", priority_class="agents", spread=True, pull_secrets=("pull",)),
    ]
)
tenants = st.from_regex(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@st.composite
def cells(draw: st.DrawFn) -> CellSpec:
    dedicated = ResourceClass(
        name="dedicated",
        cpu_millicores=draw(st.integers(1, 64_000)),
        memory_bytes=draw(st.integers(64, 65_536)) * 1024**2,
    )
    kind = draw(st.sampled_from(["python", "node", "image"]))
    tenant = draw(tenants)
    runtime = RuntimeClass(
        tenant=tenant,
        framework=draw(st.sampled_from(["autogen", "crewai", "langgraph", "function"])),
        runtime=kind,
        isolation=f"agent:{tenant}/a",
        resources=draw(st.sampled_from([STANDARD, LARGE, dedicated])),
        requirements=draw(st.sampled_from([None, None, f"sha256:{'a' * 64}"])),
        image="registry.example/team/agent:1" if kind == "image" else None,
    )
    least = draw(st.integers(0, 1_000))
    return CellSpec(
        cell=cell_id(runtime),
        runtime_class=runtime,
        min_hosts=least,
        max_hosts=draw(st.integers(1, 1_000)),
        target=float(draw(st.integers(1, 1_000))),
        idle_timeout=float(draw(st.integers(1, 86_400))),
    )


def runnable(cell: CellSpec) -> bool:
    return cell.runtime_class.requirements is None or cell.runtime_class.image is not None


@given(cells(), ANY_SETTINGS)
def test_names_and_labels_are_what_kubernetes_takes(cell: CellSpec, settings: KnativeSettings) -> None:
    assume(runnable(cell))
    manifest = render(cell, settings, HostBounds())
    name = manifest["metadata"]["name"]
    assert LABEL.fullmatch(name) and len(name) <= names.MOST
    assert len(f"{name}-00001-deployment-0123456789-abcde") <= 63, "a pod's name is its host's id"
    for meta in (manifest["metadata"], manifest["spec"]["template"]["metadata"]):
        for key, value in meta["labels"].items():
            assert KEY.fullmatch(key) and len(key.rpartition("/")[2]) <= 63
            assert LABEL_VALUE.fullmatch(value) and len(value) <= 63
        assert all(KEY.fullmatch(key) and isinstance(value, str) for key, value in meta["annotations"].items())
        assert meta["annotations"][names.CELL] == cell.cell


@given(cells(), cells())
def test_two_cells_never_share_a_name(one: CellSpec, other: CellSpec) -> None:
    names_of = [names.service_name(cell.cell, cell.runtime_class.framework) for cell in (one, other)]
    assert (names_of[0] == names_of[1]) == (one.cell == other.cell)


@given(cells(), ANY_SETTINGS)
def test_it_is_the_same_each_time_and_its_digest_covers_all_of_it(cell: CellSpec, settings: KnativeSettings) -> None:
    assume(runnable(cell))
    manifest = render(cell, settings, HostBounds())
    assert manifest == render(cell, settings, HostBounds())
    said = manifest["metadata"]["annotations"].pop(names.DIGEST)
    assert said == digest(manifest)
    manifest["spec"]["template"]["spec"]["timeoutSeconds"] += 1
    assert said != digest(manifest)


@given(cells(), ANY_SETTINGS)
def test_scale_stays_in_its_bounds(cell: CellSpec, settings: KnativeSettings) -> None:
    assume(runnable(cell))
    template = render(cell, settings, HostBounds())["spec"]["template"]
    scaling = {
        key.removeprefix("autoscaling.knative.dev/"): value
        for key, value in template["metadata"]["annotations"].items()
        if key.startswith("autoscaling.knative.dev/")
    }
    least, most = int(scaling["min-scale"]), int(scaling["max-scale"])
    assert 0 <= least <= most <= min(1_000, settings.max_hosts) and most >= 1
    assert 0 <= int(scaling["initial-scale"]) <= most
    assert least in (cell.min_hosts, most)
    window, retention = (
        float(scaling[name].removesuffix("s")) for name in ("window", "scale-to-zero-pod-retention-period")
    )
    assert 6 <= window <= 3_600 and 0 <= retention <= 3_600
    if settings.window <= cell.idle_timeout <= 3_600:
        assert window + retention == cell.idle_timeout, "it sleeps as late as on one machine"
    assert template["spec"]["containerConcurrency"] == 0


@given(cells(), ANY_SETTINGS)
def test_a_pod_may_do_nothing_that_the_restricted_standard_forbids(cell: CellSpec, settings: KnativeSettings) -> None:
    assume(runnable(cell))
    spec = render(cell, settings, HostBounds())["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    security = container["securityContext"]
    assert security["runAsNonRoot"] and security["runAsUser"] > 0 and security["readOnlyRootFilesystem"]
    assert security["allowPrivilegeEscalation"] is False and security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False
    assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} == {"emptyDir", "projected"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/work"}


@given(cells(), ANY_SETTINGS)
def test_a_host_gives_up_before_the_kernel_does_and_is_asked_for_what_a_node_has(
    cell: CellSpec, settings: KnativeSettings
) -> None:
    assume(runnable(cell))
    (container,) = render(cell, settings, HostBounds())["spec"]["template"]["spec"]["containers"]
    asked, most = (container["resources"][name] for name in ("requests", "limits"))
    own = next(int(entry["value"]) for entry in container["env"] if entry["name"] == "CHIMERA_MEMORY_BYTES")
    assert int(asked["memory"]) <= int(most["memory"]) and own < int(most["memory"])
    assert int(asked["cpu"].removesuffix("m")) >= 1 and "cpu" not in most
    if cell.runtime_class.resources.name == "dedicated":
        assert int(asked["memory"]) == cell.runtime_class.resources.memory_bytes


@given(cells(), ANY_SETTINGS)
def test_a_host_understands_its_environment(cell: CellSpec, settings: KnativeSettings) -> None:
    assume(runnable(cell))
    (container,) = render(cell, settings, HostBounds())["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    config = from_environment({**environment, "PORT": "8080", "HOSTNAME": "pod-1"})
    assert (config.host, config.cell, config.framework) == ("pod-1", cell.cell, cell.runtime_class.framework)
    assert config.identity_file == "/var/run/secrets/chimera/token" and not config.platform_token
    assert config.idle_unload == cell.idle_timeout


@given(cells(), ANY_SETTINGS)
def test_func_finds_cells_of_functions_and_no_others(cell: CellSpec, settings: KnativeSettings) -> None:
    assume(runnable(cell))
    metadata = render(cell, settings, HostBounds())["metadata"]
    found = {key: value for key, value in metadata["labels"].items() if key.startswith("function.knative.dev")}
    if cell.runtime_class.framework != "function":
        assert found == {}
        return
    # What `func list` selects by, and what it shows (knative/func: pkg/k8s/labels, pkg/knative/lister.go).
    assert found["function.knative.dev"] == "true" and found["function.knative.dev/name"] == metadata["name"]
    assert found["function.knative.dev/runtime"] in ("python", "node", "custom")


@given(cells(), ANY_SETTINGS)
def test_the_heap_of_a_node_host_leaves_room_below_its_own_bound(cell: CellSpec, settings: KnativeSettings) -> None:
    assume(runnable(cell))
    (container,) = render(cell, settings, HostBounds())["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    if cell.runtime_class.runtime != "node":
        assert "NODE_OPTIONS" not in environment
        return
    heap = int(environment["NODE_OPTIONS"].removeprefix("--max-old-space-size=")) * 1024**2
    assert 0 < heap < int(environment["CHIMERA_MEMORY_BYTES"])


def test_deadlines_end_from_the_inside_out() -> None:
    deadlines, admission = DeadlineSettings(), AdmissionSettings()
    bounds = HostBounds(
        request_timeout=deadlines.host,
        platform_timeout=deadlines.platform,
        concurrency=admission.host_concurrency,
    )
    assert bounds == HostBounds(), "the defaults are the gateway's"
    runtime = RuntimeClass(tenant="t", framework="function", runtime="python", isolation="tenant:t", resources=STANDARD)
    spec = render(CellSpec(cell="c", runtime_class=runtime), KnativeSettings(), bounds)["spec"]["template"]["spec"]
    environment = {entry["name"]: entry["value"] for entry in spec["containers"][0]["env"]}
    drain = float(environment["CHIMERA_DRAIN"])
    # Knative gives a terminating pod as long as a request: a drain that ends later is killed in the middle.
    assert deadlines.host < deadlines.gateway <= drain < spec["timeoutSeconds"] <= 600


def test_requirements_of_an_agents_own_say_what_to_do() -> None:
    runtime = RuntimeClass(
        tenant="t",
        framework="function",
        runtime="python",
        isolation="owner:t/team",
        resources=STANDARD,
        requirements=f"sha256:{'a' * 64}",
    )
    with pytest.raises(NotRunnable) as refused:
        render(CellSpec(cell="c", runtime_class=runtime), KnativeSettings(), HostBounds())
    assert "build an image" in (refused.value.next_step or "")
