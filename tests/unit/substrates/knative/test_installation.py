"""What is put into a cluster: who may do what, who may speak to whom, and that nothing runs with more than it needs."""

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from chimera.adapters.substrates.knative import names, places
from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.installation import (
    AUDIT,
    AUDIT_FOLDER,
    CONFIG,
    KEY_NAMES,
    KEYS,
    MADE,
    PROVENANCE,
    PROVENANCE_FOLDER,
    SIGNING,
    Installation,
    keys,
    manifests,
)
from chimera.adapters.substrates.knative.installer import KINDS, install, wait
from chimera.adapters.substrates.knative.netpolicies import (
    GATEWAY,
    HOST,
    OPERATOR,
    Peer,
    allows,
    policies,
)
from chimera.adapters.substrates.knative.render import HostBounds
from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.adapters.substrates.knative.telling import said
from chimera.adapters.substrates.knative.uninstaller import uninstall
from chimera.bootstrap.control_plane import ControlPlaneConfig
from chimera.bootstrap.gateway_config import GatewayConfig, load_settings
from chimera.bootstrap.operator import OperatorConfig
from chimera.bootstrap.substrate_parts import host_bounds, knative_settings
from chimera.kernel.settings import load_group
from chimera.testing.cluster import FakeCluster

CHOSEN = Installation(
    knative=KnativeSettings(namespace="agents", image="registry.example/host-{framework}:7", pull_secrets=("pull",)),
    database="postgresql://chimera@db.example/chimera",
    image="registry.example/platform:7",
    namespace="platform",
    replicas=3,
    hosts=("agents.example",),
    models={"default": {"provider": "scripted"}},
    operator={"tenants": ("bank=finance",)},
    settings={"deadlines": {"host": 100.0, "gateway": 110.0, "model": 50.0, "tool": 60.0}},
    eventing=True,
    monitors=True,
)


def found(kind: str) -> list[dict[str, Any]]:
    return [one for one in manifests(CHOSEN) if one["kind"] == kind]


def processes() -> dict[str, str]:
    """What processes are told, by the name of the file."""
    (config,) = [one for one in found("ConfigMap") if one["metadata"]["name"] == CONFIG]
    told: dict[str, str] = config["data"]
    return told


def test_it_is_the_same_each_time_and_the_installer_knows_every_kind() -> None:
    assert manifests(CHOSEN) == manifests(CHOSEN)
    assert {one["kind"] for one in manifests(CHOSEN)} == KINDS.keys()
    for one in manifests(CHOSEN):
        assert one["apiVersion"] == KINDS[one["kind"]].api_version
        assert ("namespace" in one["metadata"]) == KINDS[one["kind"]].namespaced
        assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "chimera"


def test_what_is_applied_holds_no_secret() -> None:
    values = {name: f"very-secret-{name}" for name in KEY_NAMES}
    assert keys(CHOSEN, values)["stringData"] == values
    # The webhook's certificates go into one that is made without any data.
    assert all(set(one) == {"apiVersion", "kind", "metadata", "type"} for one in found("Secret"))


def test_what_signs_deliveries_is_the_same_for_all_gateways_and_no_other_process_has_it() -> None:
    told = msgspec.json.decode(processes()["gateway.json"], type=GatewayConfig)
    at: dict[str, dict[str, str]] = {}
    for one in found("Deployment"):
        pod = one["spec"]["template"]["spec"]
        held = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        mounts = pod["containers"][0]["volumeMounts"]
        at[one["metadata"]["name"]] = {held[part["name"]]: part["mountPath"] for part in mounts if part["name"] in held}
    assert {name for name, secrets in at.items() if SIGNING in secrets} == {"chimera-gateway"}
    assert told.webhook_key_file == f"{at['chimera-gateway'][SIGNING]}/webhooks.key"
    assert MADE[SIGNING] == ("webhooks.key",) and not set(MADE[SIGNING]) & set(MADE[KEYS])


@pytest.mark.parametrize(("secret", "folder"), [(PROVENANCE, PROVENANCE_FOLDER), (AUDIT, AUDIT_FOLDER)])
def test_what_signs_is_the_same_for_all_control_planes_and_no_other_process_has_it(secret: str, folder: str) -> None:
    told = msgspec.json.decode(processes()["control-plane.json"], type=ControlPlaneConfig)
    assert mounted(secret) == {"chimera-control-plane": folder}
    given = {PROVENANCE: told.provenance_key_file, AUDIT: told.audit_key_file}
    assert given[secret] == f"{folder}/{MADE[secret][0]}"


def test_control_planes_find_what_delivery_needs_in_places_that_may_be_left_out() -> None:
    told = msgspec.json.decode(processes()["control-plane.json"], type=ControlPlaneConfig).places
    assert told is not None
    assert mounted(places.DELIVERY) == {"chimera-control-plane": told.secrets}, "gateways clone nothing"
    assert mounted(places.SCANNING) == {"chimera-control-plane": told.scanning}
    assert mounted(places.LEDGER) == {"chimera-gateway": places.LEDGER_FOLDER}, "it is asked for, not mounted"
    (pod,) = [one for one in pods() if one["containers"][0]["name"] == "control-plane"]
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert volumes["delivery"]["secret"]["optional"] and volumes["scanning"]["configMap"]["optional"]
    assert volumes["repositories"]["emptyDir"] == {"sizeLimit": "8Gi"}
    writable = {mount["name"] for mount in pod["containers"][0]["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"home", "repositories", "scans"}
    (ledger,) = [one for one in found("ConfigMap") if one["metadata"]["name"] == told.ledger]
    assert "data" not in ledger, "who installs again takes away no key and no checkpoint"


def test_what_scans_fetch_has_a_volume_of_its_own_as_large_as_is_chosen() -> None:
    """It would end the pod where it stands beside what the process itself needs, in 1 GiB."""
    for size, chosen in (("20Gi", CHOSEN), ("40Gi", msgspec.structs.replace(CHOSEN, scans_size="40Gi"))):
        for one in manifests(chosen):
            if one["kind"] == "Deployment":
                pod = one["spec"]["template"]["spec"]
                (container,) = pod["containers"]
                volumes = {volume["name"]: volume for volume in pod["volumes"]}
                at = {
                    mount["mountPath"]: mount["name"] for mount in container["volumeMounts"] if "readOnly" not in mount
                }
                variables = {variable["name"]: variable.get("value") for variable in container["env"]}
                controls = container["name"] == "control-plane"
                assert at[variables["HOME"]] == "home" and volumes["home"]["emptyDir"] == {"sizeLimit": "1Gi"}
                assert at[variables["TMPDIR"]] == ("scans" if controls else "home")
                assert ("scans" in volumes) == controls
                if controls:
                    assert volumes["scans"]["emptyDir"] == {"sizeLimit": size}
                assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"], "it can be written to"


def test_a_control_plane_has_memory_for_those_that_scan_and_those_that_read_repositories() -> None:
    limits = {pod["containers"][0]["name"]: pod["containers"][0]["resources"]["limits"]["memory"] for pod in pods()}
    assert limits == {"control-plane": "6Gi", "gateway": "1Gi", "operator": "1Gi"}


def test_advisories_may_be_on_a_volume() -> None:
    with_claim = manifests(msgspec.structs.replace(CHOSEN, advisories_claim="osv"))
    (deployment,) = [
        one
        for one in with_claim
        if one["metadata"]["name"] == "chimera-control-plane" and "spec" in one and one["kind"] == "Deployment"
    ]
    (volume,) = [one for one in deployment["spec"]["template"]["spec"]["volumes"] if one["name"] == "advisories"]
    assert volume["persistentVolumeClaim"] == {"claimName": "osv", "readOnly": True}


def pods() -> list[dict[str, Any]]:
    return [one["spec"]["template"]["spec"] for one in found("Deployment")]


def mounted(name: str) -> dict[str, str]:
    """Which Deployments mount a Secret or ConfigMap of this name, and where."""
    at: dict[str, str] = {}
    for one in found("Deployment"):
        pod = one["spec"]["template"]["spec"]
        for volume in pod["volumes"]:
            if name in (volume.get("secret", {}).get("secretName"), volume.get("configMap", {}).get("name")):
                mounts = pod["containers"][0]["volumeMounts"]
                (at[one["metadata"]["name"]],) = [m["mountPath"] for m in mounts if m["name"] == volume["name"]]
    return at


async def test_keys_are_made_once_and_those_that_a_later_release_needs_beside_them() -> None:
    async with FakeCluster() as cluster:
        api = Kubernetes(ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default"))
        told: list[str] = []

        def kept() -> dict[str, Any]:
            made = {one["metadata"]["name"]: one.get("stringData") for one in cluster.objects("secrets")}
            return {name: made[name] for name in MADE if name in made}

        await install(api, CHOSEN, told.append)
        first = kept()
        assert {name: tuple(values) for name, values in first.items()} == MADE
        assert len({value for values in first.values() for value in values.values()}) == 6, "each is another"
        await install(api, CHOSEN, told.append)
        assert kept() == first and sum("made anew" in line for line in told) == len(MADE)
        await cluster.remove("secrets", CHOSEN.namespace, SIGNING)  # as an earlier release has left it
        await install(api, CHOSEN, told.append)
        assert kept()[KEYS] == first[KEYS] and kept()[SIGNING] != first[SIGNING]
        await api.aclose()


async def test_an_installation_is_there_once_its_events_are_carried() -> None:
    """A channel forgets what it gets before it knows who wants it."""
    async with FakeCluster() as cluster:
        api = Kubernetes(ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default"))
        await install(api, CHOSEN, lambda _: None)
        for one in cluster.objects("deployments"):
            count = one["spec"]["replicas"]
            counts = dict.fromkeys(("updatedReplicas", "availableReplicas", "replicas"), count)
            await cluster.put("deployments", {**one, "status": {"observedGeneration": 9, **counts}})

        async def said(plural: str, status: str, seen: int) -> None:
            (one,) = cluster.objects(plural)
            ready = {"type": "Ready", "status": status}
            await cluster.put(plural, {**one, "status": {"observedGeneration": seen, "conditions": [ready]}})

        without = msgspec.structs.replace(CHOSEN, eventing=False)
        assert await wait(api, without, 0.0) == [], "who has no Broker waits for none"
        assert await wait(api, CHOSEN, 0.0) == ["Broker chimera", "Trigger chimera-agents"]
        await said("brokers", "True", 9)
        await said("triggers", "Unknown", 9)
        assert await wait(api, CHOSEN, 0.0) == ["Trigger chimera-agents"]
        await said("triggers", "True", 0)
        assert await wait(api, CHOSEN, 0.0) == ["Trigger chimera-agents"], "what it says is of the Trigger before"
        await said("triggers", "True", 9)
        assert await wait(api, CHOSEN, 0.0) == []
        await api.aclose()


async def test_one_of_two_installations_goes_without_what_the_other_lives_on() -> None:
    async with FakeCluster() as cluster:
        api = Kubernetes(ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default"))
        other = msgspec.structs.replace(
            CHOSEN, namespace="second", knative=replace(CHOSEN.knative, namespace="second-agents")
        )
        told: list[str] = []
        for chosen in (CHOSEN, other):
            await install(api, chosen, told.append)
        for one in cluster.objects("validatingwebhookconfigurations"):  # Helm makes itself their manager
            one["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm"
            await cluster.put("validatingwebhookconfigurations", one)
        kinds = {one["metadata"]["name"] for one in found("CustomResourceDefinition")}

        def definitions() -> set[str]:
            return {one["metadata"]["name"] for one in cluster.objects("customresourcedefinitions")}

        assert await uninstall(api, CHOSEN, told.append, seconds=0.0) == []
        assert definitions() == kinds and sum("stays: the installation in second" in line for line in told) == len(
            kinds
        )
        left = [one["metadata"]["name"] for one in cluster.objects("clusterroles")]
        assert left and all(name.endswith(".second") for name in left)
        assert await uninstall(api, other, told.append, seconds=0.0) == []
        assert definitions() == set() and not cluster.objects("clusterroles")
        await api.aclose()


async def test_cells_are_found_where_they_are_if_settings_are_lost_and_anothers_are_left_alone() -> None:
    async with FakeCluster() as cluster:
        api = Kubernetes(ClusterAccess(server=cluster.url, tls=None, credentials=NoToken(), namespace="default"))
        told: list[str] = []
        other = msgspec.structs.replace(
            CHOSEN, namespace="second", knative=replace(CHOSEN.knative, namespace="second-agents")
        )
        for chosen in (CHOSEN, other):
            await install(api, chosen, told.append)
            cell = {"name": "c-1", "namespace": chosen.knative.namespace, "labels": {names.MANAGED_BY: names.MANAGER}}
            await cluster.put("services", {"metadata": cell})
        lost = msgspec.structs.replace(other, knative=CHOSEN.knative)  # as if its cells were where the first's are
        plurals = ("namespaces", "serviceaccounts", "roles", "rolebindings", "poddisruptionbudgets", "services")

        def there(namespace: str) -> set[tuple[str, str]]:
            def inside(one: dict[str, Any]) -> bool:
                return bool(one["metadata"].get("namespace", one["metadata"]["name"]) == namespace)

            return {(plural, one["metadata"]["name"]) for plural in plurals for one in cluster.objects(plural, inside)}

        before = there(CHOSEN.knative.namespace)
        assert len(before) > 5 and there("second-agents")
        assert await uninstall(api, lost, told.append, seconds=0.0) == []
        assert there("second-agents") == there("second") == set()
        assert there(CHOSEN.knative.namespace) == before
        assert any(line.startswith("its cells are in second-agents; agents") for line in told)
        await uninstall(api, lost, told.append, seconds=0.0)  # again, with nothing of it left
        assert there(CHOSEN.knative.namespace) == before
        (agents,) = cluster.objects("namespaces", lambda one: one["metadata"]["name"] == CHOSEN.knative.namespace)
        del agents["metadata"]["labels"][names.CELLS_OF]  # as a release has left it that said nothing
        await cluster.put("namespaces", agents)
        assert await uninstall(api, CHOSEN, told.append, seconds=0.0) == []
        assert there(CHOSEN.knative.namespace) == there(CHOSEN.namespace) == set()
        await api.aclose()


def test_the_processes_understand_what_they_are_told() -> None:
    gateway = msgspec.json.decode(processes()["gateway.json"], type=GatewayConfig)
    control_plane = msgspec.json.decode(processes()["control-plane.json"], type=ControlPlaneConfig)
    told = msgspec.json.decode(processes()["operator.json"], type=OperatorConfig)
    assert told.namespace == "platform"
    assert (told.cells, told.database, told.max_hosts) == ("agents", CHOSEN.database, control_plane.max_hosts)
    assert load_group(OperatorSettings, told.operator, where="operator").tenant_of("bank") == "finance"
    assert load_settings(gateway).deadlines.host == 100.0
    assert (gateway.knative or {}).items() <= (control_plane.knative or {}).items()
    assert knative_settings(gateway.knative or {}).namespace == "agents"
    settings = knative_settings(control_plane.knative or {})
    assert settings.namespace == "agents" and settings.pull_secrets == ("pull",)
    assert settings.platform_url == "http://chimera-internal.platform.svc.cluster.local:8081"
    assert host_bounds(control_plane.settings) == HostBounds(request_timeout=100.0)
    assert "chimera-internal.platform.svc.cluster.local" in gateway.internal_names
    assert "agents.example" in gateway.hosts


def test_another_configuration_starts_the_processes_anew_and_the_same_does_not() -> None:
    def told(chosen: Installation) -> list[str]:
        pods = [one["spec"]["template"] for one in manifests(chosen) if one["kind"] == "Deployment"]
        return [pod["metadata"]["annotations"]["chimera.ecosystem/config"] for pod in pods]

    assert told(CHOSEN) == told(msgspec.structs.replace(CHOSEN, replicas=5))
    control_plane, gateway, operator = told(CHOSEN)
    others = told(msgspec.structs.replace(CHOSEN, hosts=()))
    assert others[0] == control_plane and others[1] != gateway
    assert all(
        one != other
        for one, other in zip(told(CHOSEN), told(msgspec.structs.replace(CHOSEN, revision="2")), strict=True)
    )
    cells = msgspec.structs.replace(CHOSEN, knative=replace(CHOSEN.knative, image="another:1"))
    assert told(cells)[0] != control_plane and told(cells)[1] == gateway, "gateways go on while cells change"
    assert others[2] == told(cells)[2] == operator


@pytest.mark.parametrize("deployment", found("Deployment"), ids=lambda one: one["metadata"]["name"])
def test_a_process_keeps_to_the_restricted_standard_and_survives_the_loss_of_a_node(deployment: dict[str, Any]) -> None:
    spec = deployment["spec"]
    pod = spec["template"]["spec"]
    assert spec["replicas"] == 3 and spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert {part["topologyKey"] for part in pod["topologySpreadConstraints"]} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }
    budget = next(
        one for one in found("PodDisruptionBudget") if one["metadata"]["name"] == deployment["metadata"]["name"]
    )
    assert budget["spec"]["selector"] == spec["selector"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    account = next(
        one
        for one in found("ServiceAccount")
        if one["metadata"]["name"] == pod["serviceAccountName"] and one["metadata"]["namespace"] == "platform"
    )
    assert account


def test_rights_in_the_whole_cluster_are_few_and_hosts_have_none() -> None:
    everywhere = {one["metadata"]["name"]: one["rules"] for one in found("ClusterRole")}
    assert everywhere == {
        "chimera-gateway.platform": [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
        ],
        "chimera-control-plane.platform": [
            {"apiGroups": ["chimera.ecosystem"], "resources": ["agenttemplates"], "verbs": ["list", "watch"]},
            {
                "apiGroups": ["admissionregistration.k8s.io"],
                "resources": ["validatingwebhookconfigurations"],
                "verbs": ["list", "watch", "patch"],
                "resourceNames": ["chimera.platform"],
            },
        ],
        "chimera-operator.platform": [
            {"apiGroups": ["chimera.ecosystem"], "resources": ["agents"], "verbs": ["list", "watch"]},
            {"apiGroups": ["chimera.ecosystem"], "resources": ["agents/status"], "verbs": ["patch"]},
            {"apiGroups": ["chimera.ecosystem"], "resources": ["agenttemplates"], "verbs": ["list", "watch"]},
            {"apiGroups": ["chimera.ecosystem"], "resources": ["agenttemplates/status"], "verbs": ["patch"]},
            {"apiGroups": ["chimera.ecosystem"], "resources": ["rollouts"], "verbs": ["list", "watch"]},
            {"apiGroups": ["chimera.ecosystem"], "resources": ["rollouts/status"], "verbs": ["patch"]},
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
            {
                "apiGroups": ["admissionregistration.k8s.io"],
                "resources": ["validatingwebhookconfigurations"],
                "verbs": ["list", "watch"],
            },
        ],
    }
    bound = {
        subject["name"]
        for kind in ("RoleBinding", "ClusterRoleBinding")
        for one in found(kind)
        for subject in one["subjects"]
    }
    assert bound == {"chimera-control-plane", "chimera-gateway", "chimera-operator"}
    assert not [rule for one in found("Role") for rule in one["rules"] if "*" in (*rule["verbs"], *rule["resources"])]
    (secrets,) = [rule for one in found("Role") for rule in one["rules"] if "secrets" in rule["resources"]]
    assert secrets["resourceNames"] == ["chimera-admission"], "no key and no credential"


gateway = Peer(namespace="platform", labels=GATEWAY)
host = Peer(namespace="agents", labels=HOST)


def test_what_is_applied_has_the_policies_whose_flows_are_tried() -> None:
    assert policies("platform", "agents", monitoring="monitoring", eventing=True) == found("NetworkPolicy")


def test_monitors_name_ports_that_are_there_and_come_only_where_asked_for() -> None:
    services = {(port["name"]): one["metadata"]["labels"] for one in found("Service") for port in one["spec"]["ports"]}
    for one in found("ServiceMonitor"):
        (endpoint,) = one["spec"]["endpoints"]
        assert one["spec"]["selector"]["matchLabels"].items() <= services[endpoint["port"]].items()
    operator, hosts = found("PodMonitor")
    assert operator["spec"]["selector"] == {"matchLabels": OPERATOR}
    assert [one["port"] for one in operator["spec"]["podMetricsEndpoints"]] == ["health"]
    assert hosts["metadata"]["namespace"] == "agents" and hosts["spec"]["selector"] == {"matchLabels": HOST}
    without = manifests(msgspec.structs.replace(CHOSEN, monitors=False))
    assert not [
        one for one in without if one["kind"].endswith("Monitor") or one["metadata"]["name"].endswith("-metrics")
    ]


def test_the_platform_keeps_to_the_nodes_that_are_chosen_for_it() -> None:
    taint = {"key": "chimera", "operator": "Equal", "value": "control", "effect": "NoSchedule"}
    placed = msgspec.structs.replace(
        CHOSEN,
        node_selector={"chimera.ecosystem/pool": "control"},
        tolerations=(taint,),
        priority_class="chimera-platform",
        strict_spread=True,
    )
    for one in manifests(placed):
        if one["kind"] == "Deployment":
            pod = one["spec"]["template"]["spec"]
            assert pod["nodeSelector"] == {"chimera.ecosystem/pool": "control"} and pod["tolerations"] == [taint]
            assert pod["priorityClassName"] == "chimera-platform"
            assert {part["whenUnsatisfiable"] for part in pod["topologySpreadConstraints"]} == {"DoNotSchedule"}


def test_no_more_than_a_share_of_hosts_is_taken_at_once_and_one_host_never_blocks_a_drain() -> None:
    (hosts,) = [one for one in found("PodDisruptionBudget") if one["metadata"]["namespace"] == "agents"]
    # Kubernetes rounds a share of what may be unavailable up, so of one pod it is one.
    assert hosts["spec"] == {"maxUnavailable": "20%", "selector": {"matchLabels": HOST}}


def test_text_is_what_go_would_write_too() -> None:
    written = said({"b": 30.0, "a": [0.5, {}, []], "c": "<&>\u2028é"}, "").text
    assert written == (
        '{\n  "a": [\n    0.5,\n    {},\n    []\n  ],\n  "b": 30,\n  "c": "\\u003c\\u0026\\u003e\\u2028é"\n}\n'
    )


def test_one_trigger_hands_every_event_to_the_gateways_and_only_the_brokers_pods_reach_that_port() -> None:
    with_events = manifests(msgspec.structs.replace(CHOSEN, eventing=True))
    (trigger,) = [one for one in with_events if one["kind"] == "Trigger"]
    (broker,) = [one for one in with_events if one["kind"] == "Broker"]
    spec = trigger["spec"]
    assert spec["broker"] == broker["metadata"]["name"] and "filter" not in spec and "filters" not in spec
    at = f"http://chimera-broker.{CHOSEN.namespace}.svc.cluster.local:8083"
    assert spec["subscriber"] == {"uri": f"{at}/events"}
    assert spec["delivery"]["deadLetterSink"] == {"uri": f"{at}/dead-letters"}
    config = next(one for one in with_events if one["kind"] == "ConfigMap" and one["metadata"]["name"] == CONFIG)
    told = json.loads(config["data"]["gateway.json"])
    address = f"http://broker-ingress.knative-eventing.svc.cluster.local/{CHOSEN.namespace}/chimera"
    assert (told["broker"], told["broker_port"]) == (address, 8083)
    opened = policies("platform", "agents", eventing=True)
    data_plane = Peer(namespace="knative-eventing", labels={})
    assert allows(opened, data_plane, gateway, 8083) and allows(opened, gateway, data_plane, 8080)
    assert not allows(opened, host, gateway, 8083) and not allows(opened, data_plane, gateway, 8081)
    assert not allows(policies("platform", "agents"), data_plane, gateway, 8083)
    without = manifests(msgspec.structs.replace(CHOSEN, eventing=False))
    assert not [one for one in without if one["kind"] in ("Trigger", "Broker")]
