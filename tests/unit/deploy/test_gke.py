"""The cluster as code: valid by the provider's schema, and what the mission and its table say.

`schemas/knative*-1.15.json` are the schemas of the Knative operator's kinds (`config/crd/bases` of knative.dev/operator
v0.42.2, the newest that its Go module is to be had of, Apache-2.0) without descriptions; `schemas/knative-1.21.json` is
what Knative Serving 1.21 (v0.48.0), its networking and net-kourier name themselves: the keys that their ConfigMaps
explain, which nobody else would judge, and their Deployments.
"""

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import hcl2
import jsonschema
import kubernetes_validate
import pytest
import yaml

from chimera.adapters.substrates.knative.admission import manifests as admission
from chimera.adapters.substrates.knative.installation import Installation, manifests
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.platform.sizing import AGENT_NODE, CONTROL_NODE, PROCESS, Demand, Machine
from chimera.testing.schemas import strict
from docs.generate import ROOT

GKE = ROOT / "deploy" / "gke"
SCHEMAS = Path(__file__).parent / "schemas"
KNATIVE_WEBHOOK = 8443
PROVIDER = ROOT / ".tools" / "go" / "terraform-provider-google"
Json = dict[str, Any]


def plain(value: Any) -> Any:
    """A parsed value without the parser's quotes and marks."""
    if isinstance(value, dict):
        return {plain(name): plain(one) for name, one in value.items() if name not in ("__is_block__", "__comments__")}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value[1:-1] if isinstance(value, str) and value.startswith('"') and value.endswith('"') else value


def parsed(kind: str) -> Iterator[tuple[str, Json]]:
    for file in sorted(GKE.glob("*.tf")):
        with file.open() as text:
            for one in plain(hcl2.load(text)).get(kind, ()):
                yield from one.items()


RESOURCES: dict[str, Json] = {}
for _kind, _named in parsed("resource"):
    RESOURCES.update({f"{_kind}.{_name}": _body for _name, _body in _named.items()})
VARIABLES = dict(parsed("variable"))
CLUSTER = RESOURCES["google_container_cluster.this"]
AGENTS, CONTROL = (RESOURCES[f"google_container_node_pool.{name}"] for name in ("agents", "control"))
DATABASE = RESOURCES["google_sql_database_instance.this"]["settings"][0]


def validate(folder: Path, tmp_path: Path) -> tuple[bool, list[str]]:
    """Whether the code is valid, and what is wrong with it."""
    tool = shutil.which("tofu") or shutil.which("terraform")
    if tool is None or not PROVIDER.exists():
        pytest.skip("there is no OpenTofu or Terraform, or no provider: `make check-gke` builds it")
    place = tmp_path / "rc"
    place.write_text(
        f'provider_installation {{\n  dev_overrides {{ "hashicorp/google" = "{PROVIDER.parent}" }}\n  direct {{}}\n}}\n'
    )
    environment = {
        "TF_CLI_CONFIG_FILE": str(place),
        "TF_DATA_DIR": str(tmp_path / "data"),
        "CHIMERA_PROVIDER_SCHEMA": str(GKE / "check" / "schema.json"),
        "CHECKPOINT_DISABLE": "1",
    }
    done = subprocess.run(
        [tool, "validate", "-json"],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = json.loads(done.stdout)
    return said["valid"], [one["summary"] for one in said["diagnostics"] if one["severity"] == "error"]


def test_the_code_is_valid_by_the_providers_schema(tmp_path: Path) -> None:
    assert validate(GKE, tmp_path) == (True, [])


@pytest.mark.parametrize(
    ("file", "right", "wrong", "says"),
    [
        ("pools.tf", "disk_type ", "disc_type ", "Unsupported argument"),
        ("pools.tf", "google_service_account.nodes.email", "google_service_account.nodez.email", "undeclared resource"),
        (
            "pools.tf",
            "google_service_account.nodes.email",
            "google_service_account.nodes.mail",
            "Unsupported attribute",
        ),
        ("pools.tf", "disk_size_gb    = 200", 'disk_size_gb    = "large"', "Incorrect attribute value type"),
        ("network.tf", 'address_type  = "INTERNAL"', "nonsense {}", "Unsupported block type"),
        ("database.tf", 'database_version    = "POSTGRES_17"', "", "Missing required argument"),
        ("database.tf", "password_wo         =", "password            =", "Invalid use of ephemeral value"),
        ("cluster.tf", "release_channel {", 'release_channel {\n channel = "RAPID"\n}\nrelease_channel {', "Too many"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_validation_finds_what_is_wrong(file: str, right: str, wrong: str, says: str, tmp_path: Path) -> None:
    for one in GKE.glob("*.tf"):
        text = one.read_text()
        if one.name == file:
            assert right in text
            text = text.replace(right, wrong, 1)
        (tmp_path / one.name).write_text(text)
    valid, found = validate(tmp_path, tmp_path)
    assert not valid and any(says in one for one in found), found


def test_it_is_formatted(tmp_path: Path) -> None:
    tool = shutil.which("tofu") or shutil.which("terraform")
    if tool is None:
        pytest.skip("there is no OpenTofu or Terraform")
    done = subprocess.run([tool, "fmt", "-check", str(GKE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("pool", "machine"), [(AGENTS, AGENT_NODE), (CONTROL, CONTROL_NODE)], ids=["agents", "control"]
)
def test_pools_are_what_the_mission_says_and_what_sizes_are_reckoned_with(pool: Json, machine: Machine) -> None:
    (node,) = pool["node_config"]
    assert (node["machine_type"], node["disk_size_gb"]) == (machine.name, machine.disk_gb)
    assert node["disk_type"] == "pd-ssd" and pool["max_pods_per_node"] == machine.pods
    assert node["shielded_instance_config"] == [{"enable_secure_boot": True, "enable_integrity_monitoring": True}]
    assert node["workload_metadata_config"] == [{"mode": "GKE_METADATA"}]
    assert pool["node_locations"] == "${var.zones}"


def test_agents_have_10_to_200_nodes_and_the_platform_one_in_each_of_three_zones() -> None:
    (bounds,) = AGENTS["autoscaling"]
    assert bounds["total_min_node_count"] == "${var.agent_nodes.least}"
    assert bounds["total_max_node_count"] == "${var.agent_nodes.most}"
    demand = Demand(agents=1, calls_per_second=0)
    assert VARIABLES["agent_nodes"]["default"] == {"least": 10, "most": 200}
    assert (demand.least_nodes, demand.most_nodes) == (10, 200)
    assert CONTROL["node_count"] == 1 and len(VARIABLES["zones"]["default"]) == 3 == demand.control_nodes
    assert VARIABLES["cluster_name"]["default"] == "chimera-agent-ecosystem"


def test_the_cluster_is_private_and_keeps_pods_and_secrets_apart() -> None:
    (private,) = CLUSTER["private_cluster_config"]
    assert private["enable_private_nodes"] is True
    assert CLUSTER["datapath_provider"] == "ADVANCED_DATAPATH", "network policies are enforced"
    assert CLUSTER["workload_identity_config"] and CLUSTER["enable_shielded_nodes"] is True
    assert CLUSTER["database_encryption"][0]["state"] == "ENCRYPTED"
    assert CLUSTER["release_channel"] == [{"channel": "REGULAR"}] and CLUSTER["maintenance_policy"]
    assert CLUSTER["enable_legacy_abac"] is False
    assert CLUSTER["master_auth"] == [{"client_certificate_config": [{"issue_client_certificate": False}]}]
    major, minor = map(int, CLUSTER["min_master_version"].split("."))
    assert (major, minor) >= (1, 28)


def test_the_database_has_a_standby_a_private_address_and_a_way_back() -> None:
    assert DATABASE["availability_type"] == "REGIONAL"
    (address,) = DATABASE["ip_configuration"]
    assert address["ipv4_enabled"] is False and address["ssl_mode"] == "ENCRYPTED_ONLY"
    (backup,) = DATABASE["backup_configuration"]
    assert backup["enabled"] is True and backup["point_in_time_recovery_enabled"] is True
    assert "password" not in RESOURCES["google_sql_user.chimera"], "a password in the state"


def test_nodes_may_do_little() -> None:
    roles = {name: one["role"] for name, one in RESOURCES.items() if name.partition(".")[0].endswith("iam_member")}
    assert set(roles.values()) == {
        "roles/container.defaultNodeServiceAccount",
        "roles/artifactregistry.reader",
        "roles/cloudkms.cryptoKeyEncrypterDecrypter",
    }


def test_ranges_hold_the_largest_pool_and_do_not_overlap() -> None:
    subnet = RESOURCES["google_compute_subnetwork.nodes"]
    ranges = {one["range_name"]: IPv4Network(one["ip_cidr_range"]) for one in subnet["secondary_ip_range"]}
    nodes = IPv4Network(subnet["ip_cidr_range"])
    masters = IPv4Network(CLUSTER["private_cluster_config"][0]["master_ipv4_cidr_block"])
    whole = [nodes, masters, *ranges.values()]
    assert not any(one.overlaps(other) for at, one in enumerate(whole) for other in whole[at + 1 :])
    most = 240 + 3 + AGENTS["upgrade_settings"][0]["max_surge"] + CONTROL["upgrade_settings"][0]["max_surge"]
    assert nodes.num_addresses - 4 >= most
    # A node has twice as many addresses as pods, as a power of two: 256 for 110.
    assert ranges["pods"].num_addresses // 256 >= most
    firewall = RESOURCES["google_compute_firewall.webhooks"]
    assert firewall["source_ranges"] == [str(masters)] and firewall["direction"] == "INGRESS"


def test_the_api_server_reaches_webhooks_in_pods_of_every_node_and_nothing_else() -> None:
    """From a private cluster's masters GKE opens 443 and 10250 alone: a webhook elsewhere would time out."""
    firewall = RESOURCES["google_compute_firewall.webhooks"]
    assert firewall["network"] == CLUSTER["network"]
    assert firewall["source_ranges"] == [CLUSTER["private_cluster_config"][0]["master_ipv4_cidr_block"]]
    assert firewall["allow"] == [{"protocol": "tcp", "ports": [str(KNATIVE_WEBHOOK), str(admission.PORT)]}]
    for pool in (AGENTS, CONTROL):
        assert pool["node_config"][0]["tags"] == "${local.shared.tags}"
    (locals_,) = [one["shared"] for file in GKE.glob("*.tf") for one in _locals(file) if "shared" in one]
    assert locals_["tags"] == firewall["target_tags"] == ["${var.cluster_name}"]
    chosen = Installation(knative=KnativeSettings(), database="postgresql://db.example/chimera")
    ports = {
        port["containerPort"]
        for one in manifests(chosen)
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "chimera-control-plane"
        for port in one["spec"]["template"]["spec"]["containers"][0]["ports"]
    }
    assert admission.PORT in ports


def _locals(file: Path) -> list[Json]:
    with file.open() as text:
        found: list[Json] = plain(hcl2.load(text)).get("locals", [])
    return found


def test_sizes_are_reckoned_with_what_the_platforms_pods_request() -> None:
    chosen = Installation(knative=KnativeSettings(), database="postgresql://db.example/chimera")
    deployed = [one["spec"] for one in manifests(chosen) if one["kind"] == "Deployment"]
    assert {one["replicas"] for one in deployed} == {Demand(agents=1, calls_per_second=0).replicas}
    for one in deployed:
        (container,) = one["template"]["spec"]["containers"]
        asked = {"cpu": f"{PROCESS.cpu_millicores}m", "memory": f"{PROCESS.memory_bytes // 1024**2}Mi"}
        assert container["resources"]["requests"] == asked


def documents(name: str) -> list[Json]:
    return [one for one in yaml.safe_load_all((GKE / name).read_text()) if one]


@pytest.mark.parametrize("release", ["1.28", "1.34"])
def test_manifests_are_valid(release: str) -> None:
    judged = [
        one
        for name in ("manifests/priorities.yaml", "manifests/knative.yaml")
        for one in documents(name)
        if "knative.dev" not in one["apiVersion"]
    ]
    assert len(judged) == 4
    for one in judged:
        kubernetes_validate.validate(one, release, strict=True)


def knatives() -> dict[str, Json]:
    return {one["kind"]: one for one in documents("manifests/knative.yaml") if "knative.dev" in one["apiVersion"]}


def judge(one: Json) -> None:
    schema = strict((SCHEMAS / f"{one['kind'].lower()}-1.15.json").read_bytes())
    jsonschema.Draft202012Validator(schema).validate(one)


@pytest.mark.parametrize("kind", knatives())
def test_what_knatives_operator_is_told_is_valid_by_its_schemas(kind: str) -> None:
    assert knatives().keys() == {"KnativeServing", "KnativeEventing"}
    judge(knatives()[kind])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "high-availability", "replicas"), "three"),
        (("spec", "workload"), []),
        (("spec", "ingress", "courier"), {"enabled": True}),
        (("spec", "config", "features", "multi-container"), True),
        (("spec", "workloads", 0, "tolerations", 0, "efect"), "NoSchedule"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_what_is_wrong_there_is_found(path: tuple[str | int, ...], value: Any) -> None:
    one = copy.deepcopy(knatives()["KnativeServing"])
    *before, last = path
    place: Any = one
    for step in before:
        place = place[step]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        judge(one)


def test_knative_has_what_its_configuration_names() -> None:
    known = json.loads((SCHEMAS / "knative-1.21.json").read_text())
    spec = knatives()["KnativeServing"]["spec"]
    assert spec["version"] == "1.21"
    unknown = {
        f"{name}.{key}"
        for name, values in spec["config"].items()
        for key in values
        if key not in known["config"].get(name, ())
    }
    assert unknown == set(), "Knative passes over a key that it doesn't know"
    assert {one["name"] for one in spec["workloads"]} == set(known["deployments"]), "each has a node to be on"


def test_knative_lets_cells_say_what_their_settings_make_them_say() -> None:
    serving = next(one for one in documents("manifests/knative.yaml") if one["kind"] == "KnativeServing")
    allowed = {name for name, value in serving["spec"]["config"]["features"].items() if value == "enabled"}
    said = {
        "priority_class": "kubernetes.podspec-priorityclassname",
        "spread": "kubernetes.podspec-topologyspreadconstraints",
        "runtime_class": "kubernetes.podspec-runtimeclassname",
    }
    values = yaml.safe_load((GKE / "values.yaml").read_text())
    assert {said[name] for name in values["knative"]} <= allowed and set(said.values()) <= allowed
    assert serving["spec"]["high-availability"]["replicas"] == 3
    assert tuple(map(int, serving["spec"]["version"].split("."))) >= (1, 11)
    named = {one["metadata"]["name"] for one in documents("manifests/priorities.yaml")}
    assert {values["priority_class"], values["knative"]["priority_class"]} == named


def test_the_platforms_pods_go_where_its_nodes_let_them() -> None:
    values = yaml.safe_load((GKE / "values.yaml").read_text())
    (node,) = CONTROL["node_config"]
    assert values["node_selector"].items() <= node["labels"].items()
    (taint,) = node["taint"]
    wanted = {"key": taint["key"], "operator": "Equal", "value": taint["value"], "effect": "NoSchedule"}
    assert values["tolerations"] == [wanted] and taint["effect"] == "NO_SCHEDULE"
    assert "taint" not in AGENTS["node_config"][0], "cells say nothing of nodes"
    serving = next(one for one in documents("manifests/knative.yaml") if one["kind"] == "KnativeServing")
    for one in serving["spec"]["workloads"]:
        assert one["nodeSelector"] == values["node_selector"] and one["tolerations"] == [wanted]
