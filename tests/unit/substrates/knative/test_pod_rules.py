"""Rules over every pod that Chimera puts into a cluster: the platform's own, and those of cells of every kind.

Each rule says what it finds wrong with a pod; a pod that is wrong in that one way shows that the rule can fail.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from chimera.adapters.substrates.knative.installation import Installation, manifests
from chimera.adapters.substrates.knative.render import HostBounds, render
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.platform.cells import LARGE, STANDARD, cell_id
from chimera.platform.model import CellSpec, ResourceClass, RuntimeClass

Pod = dict[str, Any]
Change = Callable[[Pod], None]

MAY_CALL_THE_CLUSTER = {"chimera-control-plane", "chimera-gateway", "chimera-operator"}
"""Service accounts of processes that call the API server, and so have its token mounted."""


@dataclass(frozen=True)
class Rule:
    """What must be so, what is wrong with a pod where it isn't, and a change that makes it so."""

    name: str
    wrong: Callable[[Pod], Iterator[str]]
    breaks: Change


def containers(pod: Pod) -> list[dict[str, Any]]:
    return [*pod["containers"], *pod.get("initContainers", ())]


def each(check: Callable[[dict[str, Any]], bool]) -> Callable[[Pod], Iterator[str]]:
    return lambda pod: (one["name"] for one in containers(pod) if not check(one))


def effective(pod: Pod, container: dict[str, Any], field: str) -> Any:
    return container.get("securityContext", {}).get(field, pod.get("securityContext", {}).get(field))


def either(field: str, check: Callable[[Any], bool]) -> Callable[[Pod], Iterator[str]]:
    return lambda pod: (one["name"] for one in containers(pod) if not check(effective(pod, one, field)))


def in_security(field: str, value: Any) -> Change:
    def change(pod: Pod) -> None:
        pod.setdefault("securityContext", {})[field] = value
        pod["containers"][0]["securityContext"][field] = value

    return change


def in_container(field: str, value: Any) -> Change:
    return lambda pod: pod["containers"][0].__setitem__(field, value)


def in_pod(field: str, value: Any) -> Change:
    return lambda pod: pod.__setitem__(field, value)


def add_volume(volume: dict[str, Any]) -> Change:
    return lambda pod: pod["volumes"].append(volume)


def tagged(image: str) -> bool:
    """Whether an image is named by a digest, or by a tag that isn't `latest`."""
    name, _, tag = image.rpartition("/")[2].partition(":")
    return "@sha256:" in image or (bool(name) and tag not in ("", "latest"))


def bad_volumes(*kinds: str) -> Callable[[Pod], Iterator[str]]:
    return lambda pod: (one["name"] for one in pod.get("volumes", ()) if set(kinds) & one.keys())


def secret_variables(pod: Pod) -> Iterator[str]:
    for one in containers(pod):
        for pair in one.get("env", ()):
            if "value" in pair and any(word in pair["name"] for word in ("PASSWORD", "SECRET", "API_KEY")):
                yield f"{one['name']}: {pair['name']}"


def unbounded_scratch(pod: Pod) -> Iterator[str]:
    return (one["name"] for one in pod.get("volumes", ()) if "emptyDir" in one and not one["emptyDir"].get("sizeLimit"))


def needless_token(pod: Pod) -> Iterator[str]:
    if pod.get("automountServiceAccountToken", True) and pod.get("serviceAccountName") not in MAY_CALL_THE_CLUSTER:
        yield f"the token of {pod.get('serviceAccountName')} is mounted"


RULES = (
    Rule("no process is root", either("runAsNonRoot", lambda one: one is True), in_security("runAsNonRoot", False)),
    Rule("no process has root's number", either("runAsUser", lambda one: bool(one)), in_security("runAsUser", 0)),
    Rule(
        "the root file system is read-only",
        each(lambda one: one["securityContext"].get("readOnlyRootFilesystem") is True),
        in_security("readOnlyRootFilesystem", False),
    ),
    Rule(
        "no process gains rights",
        each(lambda one: one["securityContext"].get("allowPrivilegeEscalation") is False),
        in_security("allowPrivilegeEscalation", True),
    ),
    Rule(
        "no container is privileged",
        each(lambda one: not one["securityContext"].get("privileged")),
        in_security("privileged", True),
    ),
    Rule(
        "capabilities are dropped, and none is added",
        each(lambda one: one["securityContext"].get("capabilities") == {"drop": ["ALL"]}),
        in_security("capabilities", {"drop": ["ALL"], "add": ["NET_RAW"]}),
    ),
    Rule(
        "system calls are filtered",
        either("seccompProfile", lambda one: one == {"type": "RuntimeDefault"}),
        in_security("seccompProfile", {"type": "Unconfined"}),
    ),
    Rule(
        "CPU and memory are requested, and memory is bounded",
        each(
            lambda one: (
                {"cpu", "memory"} <= one["resources"].get("requests", {}).keys()
                and "memory" in one["resources"].get("limits", {})
            )
        ),
        in_container("resources", {"requests": {"cpu": "1"}}),
    ),
    Rule(
        "no image is the latest",
        each(lambda one: tagged(one["image"])),
        in_container("image", "registry.example:5000/platform"),
    ),
    Rule("no folder of the node", bad_volumes("hostPath"), add_volume({"name": "etc", "hostPath": {"path": "/etc"}})),
    Rule(
        "no namespace of the node",
        lambda pod: (name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)),
        in_pod("hostNetwork", True),
    ),
    Rule(
        "no port of the node",
        each(lambda one: not any("hostPort" in port for port in one.get("ports", ()))),
        in_container("ports", [{"containerPort": 8080, "hostPort": 80}]),
    ),
    Rule("the cluster's token only where it is used", needless_token, in_pod("serviceAccountName", "chimera-host")),
    Rule(
        "no variables for every Service",
        lambda pod: iter(() if pod.get("enableServiceLinks") is False else ("enableServiceLinks",)),
        in_pod("enableServiceLinks", True),
    ),
    Rule(
        "each container says when it is ready and whether it lives",
        each(lambda one: {"readinessProbe", "livenessProbe"} <= one.keys()),
        lambda pod: pod["containers"][0].pop("livenessProbe"),
    ),
    Rule("scratch space is bounded", unbounded_scratch, add_volume({"name": "more", "emptyDir": {}})),
    Rule(
        "no secret stands in a manifest",
        secret_variables,
        in_container("env", [{"name": "DATABASE_PASSWORD", "value": "secret"}]),
    ),
)


def cells() -> Iterator[tuple[str, Pod]]:
    settings = KnativeSettings(pull_secrets=("pull",), spread=True, priority_class="agents", runtime_class="gvisor")
    dedicated = ResourceClass(name="dedicated", cpu_millicores=250, memory_bytes=512 * 1024**2)
    for framework in ("autogen", "crewai", "langgraph", "function"):
        for resources in (STANDARD, LARGE, dedicated):
            runtime = RuntimeClass(
                tenant="default",
                framework=framework,  # type: ignore[arg-type]
                runtime="python",
                isolation="tenant:default",
                resources=resources,
            )
            made = render(CellSpec(cell=cell_id(runtime), runtime_class=runtime), settings, HostBounds())
            yield f"cell-{framework}-{resources.name}", made["spec"]["template"]["spec"]


def installed() -> Iterator[tuple[str, Pod]]:
    chosen = Installation(
        knative=KnativeSettings(pull_secrets=("pull",)),
        database="postgresql://chimera@db.example/chimera",
        monitors=True,
        strict_spread=True,
    )
    for one in manifests(chosen):
        template = one.get("spec", {}).get("template", {}) if one["kind"] != "CustomResourceDefinition" else {}
        if "containers" in template.get("spec", {}):
            yield f"{one['kind']}-{one['metadata']['name']}", template["spec"]


PODS = [*installed(), *cells()]


@pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])
@pytest.mark.parametrize("pod", [pod for _, pod in PODS], ids=[name for name, _ in PODS])
def test_every_pod_keeps_every_rule(pod: Pod, rule: Rule) -> None:
    assert list(rule.wrong(pod)) == []


@pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])
@pytest.mark.parametrize("pod", [PODS[0][1]], ids=[PODS[0][0]])
def test_every_rule_can_fail(pod: Pod, rule: Rule) -> None:
    broken = copy.deepcopy(pod)
    rule.breaks(broken)
    assert list(rule.wrong(broken)) != []


def test_both_processes_and_all_kinds_of_cells_are_looked_at() -> None:
    names = {name for name, _ in PODS}
    assert {"Deployment-chimera-control-plane", "Deployment-chimera-gateway"} <= names and len(names) >= 14


def test_the_loss_of_a_node_or_a_zone_leaves_most_of_each_process() -> None:
    """Placed as the spread says, over zones and nodes, no node holds more than its share; a budget keeps the rest."""
    chosen = Installation(knative=KnativeSettings(), database="postgresql://db.example/chimera", strict_spread=True)
    budgets = {one["metadata"]["name"]: one for one in manifests(chosen) if one["kind"] == "PodDisruptionBudget"}
    for one in manifests(chosen):
        if one["kind"] != "Deployment":
            continue
        spread = one["spec"]["template"]["spec"]["topologySpreadConstraints"]
        zones = {"topology.kubernetes.io/zone": 3, "kubernetes.io/hostname": 3}
        assert {part["topologyKey"] for part in spread} == zones.keys()
        placed = [0, 0, 0]
        for _ in range(one["spec"]["replicas"]):
            fits = [at for at, count in enumerate(placed) if count + 1 - min(placed) <= spread[0]["maxSkew"]]
            placed[max(fits)] += 1  # the worst choice that the constraint leaves to the scheduler
        assert sum(placed) - max(placed) >= 2
        assert budgets[one["metadata"]["name"]]["spec"]["maxUnavailable"] == 1 < one["spec"]["replicas"]
