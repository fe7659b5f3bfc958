"""The Helm chart and the kustomize base: what they give is what `chimera install` applies, whatever is chosen."""

import base64
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import msgspec
import pytest
import yaml

from chimera.adapters.substrates.knative.installation import MADE, Installation, keys, manifests
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.kernel.settings import load_group
from deploy.generator import base, chart
from deploy.generator.symbols import by_identity, identity
from docs.generate import ROOT

CHART = ROOT / chart.FOLDER
DATABASE = "postgresql://chimera@db.example/chimera"
TAINT = {"key": "chimera", "operator": "Equal", "value": "control", "effect": "NoSchedule"}

CHOICES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "another place": {"namespace": "platform", "knative": {"namespace": "agents", "service_account": "host"}},
    "images": {
        "image": "registry.example:5000/chimera-platform@sha256:" + "0" * 64,
        "knative": {"image": 'odd "quoted": {framework}', "pull_secrets": ["one", "two"]},
    },
    "no bound": {"knative": {"most_pods": 0, "warm_pool": 0, "rollout_steps": [10, 50, 100]}},
    "no password": {"database_secret": "", "database_port": 6432},
    "nodes": {
        "node_selector": {"chimera.ecosystem/pool": "control"},
        "tolerations": [TAINT, {"key": "spot", "operator": "Exists", "effect": "NoExecute"}],
        "priority_class": "chimera-platform",
        "strict_spread": True,
        "replicas": 5,
    },
    "eventing": {"eventing": True},
    "monitors": {"monitors": True, "monitoring": "prometheus"},
    "another ingress": {"ingress_namespace": "istio-system"},
    "delivery": {
        "egress": [
            {"ports": [{"protocol": "TCP", "port": 8443}]},
            {"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"protocol": "TCP", "port": 80}]},
        ],
        "advisories_claim": "osv",
        "repositories_size": "20Gi",
        "scans_size": "40Gi",
        "control_plane_memory": "1Gi",
    },
    "settings": {
        "hosts": ["agents.example", "other.example"],
        "models": {"default": {"provider": "openai", "base_url": "https://m.example/v1?a=1&b=<2>", "timeout": 12.5}},
        "issuers": {"login": {"issuer": "https://l.example", "audience": "chimera", "jwks": "https://l.example/k"}},
        "settings": {
            "deadlines": {"host": 100.0, "gateway": 110.0, "model": 50.0, "tool": 60.0},
            "events": {"deliver": False},
            "audit": {"calls": False},
            "http": {"drain": 240, "drain_pause": 0.5},
        },
        "retention": {"sessions_days": 0.5, "events_days": 7},
        "upkeep": {},
        "jaegis": {"quality": {"passing": 80.0, "required": ["owner"]}, "creator": {"mcp_servers": ["https://m/*"]}},
        "delivery": {"check_seconds": 60.0, "parallel": 2},
        "scanning": {"advisories": ["https://osv.example/all.zip"], "fails_at": "medium", "scanners": ["secrets"]},
        "trials": {"judge_model": "default", "parallel": 4, "patience": 12.5},
        "sync": {"hosts": ["git.example:8443"], "poll": 5, "memory_bytes": 512 * 1024**2},
        "operator": {"tenant": "", "tenants": ["billing=finance", "shop=retail"], "grace": 30},
        "knative": {"scratch_bytes": 8 * 1024**3, "utilisation": 66.6, "spread": True, "most_cells": 3000},
        "revision": "2 é",
    },
}


def installation(values: dict[str, Any]) -> Installation:
    """What `chimera install` would make of the same choices."""
    whole = merged(chart.values(), {"database": DATABASE, **values})
    groups = {name: load_group(kind, whole[name], where=name) for name, kind in chart.GROUPS.items()}
    knative = groups.pop("knative")
    assert isinstance(knative, KnativeSettings)
    plain = {name: whole[name] for name in chart.TEXTS}
    plain |= {name: tuple(plain[name]) for name in ("hosts", "tolerations", "egress")}
    plain["database_secret"] = plain["database_secret"] or None
    return Installation(
        knative=knative, **plain, **{name: msgspec.to_builtins(group) for name, group in groups.items()}
    )


def merged(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """As Helm does: mappings into each other, the rest in place of each other."""
    both = {name: merged(value, others[name]) for name, value in values.items() if name in others if is_open(value)}
    return {**values, **others, **both}


def is_open(value: Any) -> bool:
    return isinstance(value, dict)


def tool(name: str) -> str:
    for folder in (ROOT / ".tools" / "go", *map(Path, os.get_exec_path())):
        if (folder / name).is_file():
            return str(folder / name)
    pytest.skip(f"there is no {name}: `make chart-tools` installs it")


def helm(tmp_path: Path, values: dict[str, Any], *words: str, namespace: str = "releases") -> list[dict[str, Any]]:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"database": DATABASE, **values}))
    # Helm from its Go module knows no release of Kubernetes, and takes an old one.
    command = [tool("helm"), "template", "chimera", str(CHART), "--kube-version", "1.28.0"]
    command += ["--namespace", namespace, "--values", str(file), *words]
    home = {"HELM_CACHE_HOME": str(tmp_path), "HELM_CONFIG_HOME": str(tmp_path), "HELM_DATA_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | home, check=False)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one is not None]


def without_helms_own(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Without what Helm alone has: the Secrets, and the annotation by which it keeps definitions."""
    for one in found:
        if one["kind"] == "CustomResourceDefinition":
            assert one["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    return by_identity([one for one in found if not is_keys(one)])


def is_keys(one: dict[str, Any]) -> bool:
    return one["kind"] == "Secret" and one["metadata"]["name"] in MADE


@pytest.mark.parametrize("values", CHOICES.values(), ids=CHOICES)
def test_the_chart_gives_what_the_command_applies(values: dict[str, Any], tmp_path: Path) -> None:
    wanted = by_identity(manifests(installation(values)))
    found = without_helms_own(helm(tmp_path, values))
    assert found.keys() == wanted.keys()
    for name, one in wanted.items():
        assert found[name] == msgspec.to_builtins(one), name


def test_each_choice_makes_a_difference_so_that_the_comparison_can_fail() -> None:
    wanted = [manifests(installation(values)) for values in CHOICES.values()]
    assert all(one != wanted[0] for one in wanted[1:])
    chosen = {name for values in CHOICES.values() for name in values}
    assert chosen | {"database"} == set(Installation.__struct_fields__), "each field of an installation is varied"


def test_keys_are_random_and_of_the_form_that_the_command_gives_them(tmp_path: Path) -> None:
    first, second = ({part["metadata"]["name"]: part for part in helm(tmp_path, {}) if is_keys(part)} for _ in range(2))
    assert first.keys() == second.keys() == MADE.keys()
    for secret, names in MADE.items():
        one, other = first[secret], second[secret]
        shape = keys(installation({}), dict.fromkeys(names, "k"), secret)
        assert {**one["metadata"], "annotations": None} == {**shape["metadata"], "annotations": None}
        assert one["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert one["type"] == shape["type"] and one["data"].keys() == shape["stringData"].keys()
        for name in names:
            assert len(base64.b64decode(one["data"][name])) >= 43 and one["data"][name] != other["data"][name]
    assert not [part for part in helm(tmp_path, {"keys": {"create": False}}) if is_keys(part)]


def test_namespaces_and_definitions_are_left_to_who_has_them(tmp_path: Path) -> None:
    def names(kind: str, values: dict[str, Any], **more: str) -> set[str]:
        return {one["metadata"]["name"] for one in helm(tmp_path, values, **more) if one["kind"] == kind}

    assert names("Namespace", {}) == {"chimera", "chimera-cells"}
    assert names("Namespace", {}, namespace="chimera") == {"chimera-cells"}
    assert names("Namespace", {"namespaces": {"create": False}}) == set()
    assert names("CustomResourceDefinition", {"crds": {"install": False}}) == set()
    kept = [one["metadata"] for one in helm(tmp_path, {"crds": {"keep": False}}) if "Definition" in one["kind"]]
    assert kept and not any(one.get("annotations") for one in kept)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"database": ""}, "/database"),
        ({"replicas": 0}, "/replicas"),
        ({"nonsense": 1}, "nonsense"),
        ({"knative": {"most_cells": 5000}}, "/knative/most_cells"),
        ({"knative": {"most_sells": 5}}, "most_sells"),
        ({"namespace": 'a" b'}, "/namespace"),
        ({"scans_size": "20 Gi"}, "/scans_size"),
        ({"control_plane_memory": "6GB"}, "/control_plane_memory"),
    ],
    ids=str,
)
def test_helm_refuses_what_settings_refuse(values: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged(chart.values(), {"database": DATABASE, **values}), chart.schema())
    with pytest.raises(AssertionError, match=says):
        helm(tmp_path, values)


def test_the_chart_passes_helms_own_lint(tmp_path: Path) -> None:
    command = [tool("helm"), "lint", str(CHART), "--strict", "--set", f"database={DATABASE}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_values_are_what_the_file_says() -> None:
    assert yaml.safe_load(chart.values_text()) == chart.values()
    jsonschema.validate({**chart.values(), "database": DATABASE}, chart.schema())
    jsonschema.Draft202012Validator.check_schema(chart.schema())


def kustomize(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run([tool("kustomize"), "build", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_the_base_is_the_installation_with_its_defaults(tmp_path: Path) -> None:
    wanted = msgspec.to_builtins(by_identity(manifests(base.DEFAULTS)))
    assert by_identity(kustomize(ROOT / base.FOLDER / "base")) == wanted


def test_the_base_is_the_chart_with_its_defaults(tmp_path: Path) -> None:
    chosen = helm(tmp_path, {"database": base.DEFAULTS.database})
    assert by_identity(kustomize(ROOT / base.FOLDER / "base")) == without_helms_own(chosen)


def overlay(tmp_path: Path, *components: str) -> dict[str, Any]:
    """What the base and these components build together."""
    (tmp_path / "deploy").symlink_to(ROOT / base.FOLDER)
    folder = tmp_path / "overlay"
    folder.mkdir()
    parts = {"resources": ["../deploy/base"], "components": [f"../deploy/components/{name}" for name in components]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(parts))
    return by_identity(kustomize(folder))


@pytest.mark.parametrize("components", [("monitors",), ("eventing",), ("eventing", "monitors")], ids="-".join)
def test_components_add_what_the_command_and_the_chart_add(components: tuple[str, ...], tmp_path: Path) -> None:
    chosen = {name: value for one in components for name, value in base.COMPONENTS[one].items()}
    found = overlay(tmp_path, *components)
    assert found == msgspec.to_builtins(by_identity(manifests(msgspec.structs.replace(base.DEFAULTS, **chosen))))
    assert found == without_helms_own(helm(tmp_path, {"database": base.DEFAULTS.database, **chosen}))


def test_there_is_a_component_for_each_thing_that_may_be_added() -> None:
    folders = {file.parent.name for file in (ROOT / base.FOLDER / "components").glob("*/kustomization.yaml")}
    assert folders == base.COMPONENTS.keys() == {"eventing", "monitors"}


@pytest.mark.parametrize(
    ("before", "after", "operations"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"x/y~z": 1}}, {"a": {"x/y~z": 2}}, [{"op": "replace", "path": "/a/x~1y~0z", "value": 2}]),
        ({"a": 1}, {"b": 2}, [{"op": "remove", "path": "/a"}, {"op": "add", "path": "/b", "value": 2}]),
        ([{"a": 1}], [{"a": 1}, 3], [{"op": "add", "path": "/-", "value": 3}]),
        ({"a": [1, 2]}, {"a": [2]}, [{"op": "replace", "path": "/a", "value": [2]}]),
    ],
)
def test_patches_say_what_differs_and_no_more(before: Any, after: Any, operations: list[Any]) -> None:
    assert list(base.json_patch(before, after)) == operations


def test_the_example_builds_with_keys_of_ones_own(tmp_path: Path) -> None:
    copy = tmp_path / "kustomize"
    shutil.copytree(ROOT / base.FOLDER, copy)
    folder = copy / "overlays" / "example"
    (folder / "keys").mkdir()
    for name in [name for names in MADE.values() for name in names]:
        (folder / "keys" / name).write_text("k" * 43)
    (folder / "keys" / "password").write_text("p")
    found = by_identity(kustomize(folder))
    for secret, names in MADE.items():
        assert found[f"Secret chimera/{secret}"]["data"].keys() == set(names)
    assert "Secret chimera/chimera-database" in found
    gateway = found["Deployment chimera/chimera-gateway"]["spec"]
    assert gateway["replicas"] == 5
    assert gateway["template"]["spec"]["containers"][0]["image"] == "registry.example/chimera-platform:0.1.0"
    assert {identity(one) for one in manifests(base.DEFAULTS)} <= found.keys()


@pytest.mark.parametrize("release", ["1.28.0", "1.34.0"])
def test_the_chart_is_valid_by_the_schemas_of_kubernetes(release: str, tmp_path: Path) -> None:
    """kubeconform, with the schemas that kubernetes-validate carries: it would fetch its own from the network."""
    place = tmp_path / "{{.ResourceKind}}{{.KindSuffix}}.json"
    objects = [one for one in helm(tmp_path, CHOICES["nodes"]) if one["kind"] != "CustomResourceDefinition"]
    schemas = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{release}-local-strict"
    kinds = {one["kind"].lower() for one in objects}
    for file in schemas.iterdir():
        if file.stem == "_definitions" or file.stem.partition("-")[0] in kinds:
            # They name each other by a place of the package's own, and parts as a later draft does.
            text = file.read_text().replace('"/api/_def', f'"file://{tmp_path}/_def').replace("$defs", "definitions")
            (tmp_path / file.name).write_text(text)
    for name, found in (("chart", objects), ("wrong", [{**objects[-1], "nonsense": True}])):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(found))
    command = [tool("kubeconform"), "-strict", "-schema-location", str(place), "-kubernetes-version", release]

    def judged(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, "-summary", name], capture_output=True, text=True, check=False, cwd=tmp_path)

    done = judged("chart.yaml")
    assert done.returncode == 0 and f"Valid: {len(objects)}, " in done.stdout, done.stdout
    assert judged("wrong.yaml").returncode == 1


def test_the_values_for_the_cluster_of_the_mission_are_values(tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "deploy" / "gke" / "values.yaml").read_text())
    found = without_helms_own(helm(tmp_path, values))
    assert found == msgspec.to_builtins(by_identity(manifests(installation(values))))
