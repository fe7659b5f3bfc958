"""The pod of a cell keeps the restricted standard, and every way of breaking it is found under its own rule."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chimera.adapters.substrates.knative.render import HostBounds, pod_manifest
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.agents.compile import compile_definition
from chimera.agents.validate import check_data
from chimera.delivery.scanning.containers import pod_of, scan_manifest
from chimera.delivery.scanning.model import Finding, Unjudged, at_least
from chimera.testing.definitions import FRAMEWORKS, definition


def rendered(framework: str = "AutoGen", **changed: Any) -> dict[str, Any]:
    value = compile_definition(
        check_data(definition("anna", specification={"framework": framework, **changed})), tenant="t"
    ).value
    manifest = pod_manifest(value, KnativeSettings(), HostBounds())
    assert manifest is not None
    return manifest


def rules(manifest: dict[str, Any]) -> dict[str, str]:
    return {
        one.rule.removeprefix("containers/"): one.severity
        for one in scan_manifest(manifest)
        if isinstance(one, Finding)
    }


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The rendered manifest with values set at paths of its pod, `-` meaning gone."""
    manifest = copy.deepcopy(rendered())
    for path, value in changes:
        part: Any = manifest["spec"]["template"]["spec"]
        *before, last = path.split(".")
        for name in before:
            part = part[int(name)] if isinstance(part, list) else part.setdefault(name, {})
        if value == "-":
            del part[last]
        elif isinstance(part, list):
            part[int(last)] = value
        else:
            part[last] = value
    return manifest


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_chimera_renders_keeps_the_standard(framework: str) -> None:
    manifest = rendered(framework)
    assert rules(manifest) == {"image-tag": "low"}
    assert not [one for one in scan_manifest(manifest) if isinstance(one, Unjudged)]


def test_an_image_of_ones_own_by_digest_has_no_finding_at_all() -> None:
    assert rules(changed(("containers.0.image", "registry.example/agent@sha256:" + "a" * 64))) == {}


OWN = "containers.0.securityContext"
VOLUME: dict[str, Any] = {"name": "work"}
BROKEN: dict[str, tuple[tuple[str, Any], ...]] = {
    "host-namespaces": (("hostNetwork", True),),
    "host-path": (("volumes.0", {**VOLUME, "hostPath": {"path": "/var/run/docker.sock"}}),),
    "volume-types": (("volumes.0", {**VOLUME, "nfs": {"server": "x"}}),),
    "sysctls": (("securityContext", {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),),
    "selinux": ((OWN + ".seLinuxOptions", {"type": "spc_t"}),),
    "apparmor": ((OWN + ".appArmorProfile", {"type": "Unconfined"}),),
    "host-process": ((OWN + ".windowsOptions", {"hostProcess": True}),),
    "seccomp": ((OWN + ".seccompProfile", "-"),),
    "root": ((OWN + ".runAsUser", 0),),
    "privileged": ((OWN + ".privileged", True),),
    "privilege-escalation": ((OWN + ".allowPrivilegeEscalation", "-"),),
    "non-root": ((OWN + ".runAsNonRoot", "-"),),
    "capabilities": ((OWN + ".capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}),),
    "capabilities-drop": ((OWN + ".capabilities", {"drop": ["NET_RAW"]}),),
    "proc-mount": ((OWN + ".procMount", "Unmasked"),),
    "host-port": (("containers.0.ports", [{"containerPort": 80, "hostPort": 80}]),),
    "writable-root": ((OWN + ".readOnlyRootFilesystem", False),),
    "memory-limit": (("containers.0.resources", {"requests": {"memory": "1"}}),),
    "api-token": (("automountServiceAccountToken", "-"),),
    "service-links": (("enableServiceLinks", True),),
    "service-account": (("serviceAccountName", "-"),),
}
STANDARD = frozenset(BROKEN) - {"writable-root", "memory-limit", "api-token", "service-links", "service-account"}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_break_is_found_under_its_rule(rule: str) -> None:
    found = rules(changed(*BROKEN[rule]))
    assert set(found) == {rule, "image-tag"}
    assert at_least(found[rule], "high") is (rule in STANDARD)  # type: ignore[arg-type]


def test_all_controls_are_counted() -> None:
    found = [rule for rule in BROKEN if rule in rules(changed(*BROKEN[rule]))]
    assert (len(found), len(BROKEN), len(STANDARD)) == (21, 21, 16)


@pytest.mark.parametrize(
    "changes",
    [
        (("securityContext", {"runAsNonRoot": True}), (OWN + ".runAsNonRoot", "-")),
        (("securityContext", {"seccompProfile": {"type": "Localhost"}}), (OWN + ".seccompProfile", "-")),
        ((OWN + ".capabilities", {"drop": ["all"], "add": ["CAP_NET_BIND_SERVICE"]}),),
        (("volumes.0", {"name": "work", "ephemeral": {}}),),
    ],
)
def test_what_the_standard_allows_in_another_place_is_allowed(changes: tuple[tuple[str, Any], ...]) -> None:
    assert set(rules(changed(*changes))) == {"image-tag"}


def test_containers_of_every_kind_are_looked_at() -> None:
    bare = {"name": "x", "image": "busybox"}
    for kind in ("initContainers", "ephemeralContainers"):
        found = rules(changed((kind, [bare])))
        assert {"privilege-escalation", "non-root", "seccomp", "capabilities-drop", "writable-root"} <= set(found)
        assert found["image-tag"] == "medium" or found["image-tag"] == "low"


def test_manifests_of_other_kinds_are_read_as_the_pods_that_they_make() -> None:
    pod = {"containers": [{"name": "x", "image": "x"}]}
    for manifest in (
        {"kind": "Pod", "spec": pod},
        {"kind": "Deployment", "spec": {"template": {"spec": pod}}},
        {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}}},
    ):
        assert pod_of(manifest) is not None and pod_of(manifest)[1] is pod  # type: ignore[index]


@pytest.mark.parametrize(
    "manifest", [{}, {"kind": "Service"}, {"kind": "Pod", "spec": []}, {"kind": "Pod", "spec": {"containers": []}}]
)
def test_what_holds_no_pod_is_not_judged(manifest: dict[str, Any]) -> None:
    (one,) = scan_manifest(manifest)
    assert isinstance(one, Unjudged)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(sorted({path for changes in BROKEN.values() for path, _ in changes} | {"containers", "volumes"})),
    JSON,
)
def test_odd_values_anywhere_are_found_or_not_judged_and_never_an_error(path: str, value: Any) -> None:
    if "." in path and path.split(".")[0] == "volumes" and not isinstance(value, dict):
        value = {"name": "work"}
    results = list(scan_manifest(changed((path, value)) if value != "-" else changed()))
    assert all(isinstance(one, (Finding, Unjudged)) for one in results)
