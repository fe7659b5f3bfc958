"""`chimera install`: its options and a home's settings become one choice, or are refused with what is wrong."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chimera.bootstrap import install
from chimera.entrypoints.cli import installing
from chimera.entrypoints.cli.main import cli
from chimera.kernel.settings import SettingsError

SETTINGS = """
[node]
database = "postgresql://chimera@db.example:6432/chimera"
[knative]
most_cells = 40
"""


def rendered(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> list:  # type: ignore[type-arg]
    """What the program that the command starts prints; it is run here, with the command's own words."""
    started: list[list[str]] = []

    class Done:
        returncode = 0

    monkeypatch.setattr(installing.subprocess, "run", lambda command, **_: started.append(command) or Done())
    home.mkdir(exist_ok=True)
    (home / "settings.toml").write_text(SETTINGS)
    result = CliRunner().invoke(
        cli, ["--home", str(home), "install", "--substrate", "knative", "--dry-run", "-o", "json", *words]
    )
    assert result.exit_code == 0, result.output
    (command,) = started
    monkeypatch.setattr(sys, "argv", command[2:])
    code = install.main()
    printed = capsys.readouterr()
    assert code == 0, printed.err
    found: list[dict[str, Any]] = json.loads(printed.out)
    return found


def test_options_reach_the_manifests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rendered(
        tmp_path / "home",
        monkeypatch,
        capsys,
        *("--ingress-namespace", "istio-system"),
        *("--monitors", "--monitoring", "prometheus", "--node-selector", "pool=control", "--strict-spread"),
        *("--tolerate", "chimera=control:NoSchedule", "--tolerate", "spot:NoExecute", "--priority-class", "high"),
        *("--allow-host", "agents.example", "--database-secret", ""),
    )
    (pod,) = [
        one["spec"]["template"]["spec"]
        for one in found
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "chimera-gateway"
    ]
    assert pod["nodeSelector"] == {"pool": "control"} and pod["priorityClassName"] == "high"
    assert pod["tolerations"] == [
        {"key": "chimera", "operator": "Equal", "value": "control", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists", "effect": "NoExecute"},
    ]
    assert {part["whenUnsatisfiable"] for part in pod["topologySpreadConstraints"]} == {"DoNotSchedule"}
    assert not [one for one in pod["containers"][0]["env"] if one["name"] == "DATABASE_PASSWORD"]
    assert [one for one in found if one["kind"] == "ServiceMonitor"]
    policies = json.dumps([one for one in found if one["kind"] == "NetworkPolicy"])
    assert '"prometheus"' in policies and '"istio-system"' in policies and "kourier" not in policies


def test_a_gateways_time_to_end_may_be_set_by_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHIMERA_HTTP__DRAIN", "30")
    found = rendered(tmp_path / "home", monkeypatch, capsys)
    (config,) = [one["data"] for one in found if one["metadata"]["name"] == "chimera-config"]
    assert json.loads(config["gateway.json"])["settings"]["http"] == {"drain": 30.0}
    pods = {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in found if one["kind"] == "Deployment"}
    assert pods["chimera-gateway"]["terminationGracePeriodSeconds"] == 8 + 30 + 15


def test_what_gateways_and_control_planes_may_reach_is_said_by_address_namespace_or_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--egress", "203.0.113.0/24:8443", "--egress", "[2001:db8::]/32:80", "--egress", "forgejo:3000")
    found: list[dict[str, Any]] = rendered(tmp_path / "home", monkeypatch, capsys, *words, "--egress", "*:5000")
    for name in ("control-plane", "gateway"):
        (policy,) = [one for one in found if one["metadata"]["name"] == f"{name}-egress"]
        assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == name
        assert policy["spec"]["policyTypes"] == ["Egress"]
        assert [(rule.get("to"), rule["ports"][0]["port"]) for rule in policy["spec"]["egress"]] == [
            ([{"ipBlock": {"cidr": "203.0.113.0/24"}}], 8443),
            ([{"ipBlock": {"cidr": "2001:db8::/32"}}], 80),
            ([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "forgejo"}}}], 3000),
            (None, 5000),
        ]


def test_without_a_cluster_to_ask_there_are_no_monitors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rendered(tmp_path / "home", monkeypatch, capsys)
    assert not [one for one in found if one["kind"].endswith("Monitor")]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--node-selector", "pool"], "LABEL=VALUE"),
        (["--tolerate", "pool=control"], "KEY=VALUE:EFFECT"),
        (["--tolerate", "pool:Sometimes"], "NoSchedule"),
        (["--egress", "203.0.113.0/24"], "NAMESPACE:PORT"),
        (["--egress", "203.0.113.1/24:443"], "has host bits set"),
        (["--egress", "*:70000"], "NAMESPACE:PORT"),
        (["--scans-size", "20 Gi"], "--scans-size 20 Gi: write a size, such as 20Gi or 512Mi"),
        (["--scans-size", ""], "write a size"),
        (["--repositories-size", "8GB"], "--repositories-size 8GB: write a size"),
        (["--control-plane-memory", "6000m"], "--control-plane-memory 6000m: write a size"),
        (["--control-plane-memory=-6Gi"], "write a size"),
    ],
)
def test_a_wrong_option_is_refused(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS)
    monkeypatch.setattr(sys, "argv", ["install", "render", "--home", str(tmp_path), *words])
    assert install.main() == install.EXIT_SETTINGS
    assert says in capsys.readouterr().err


SCANNED = """
[scanning]
registries = ["registry.example"]
"""


@pytest.mark.parametrize(
    ("settings", "size", "says"),
    [
        (SCANNED, "17Gi", ""),
        (SCANNED, "18.3e9", ""),
        (SCANNED, "16.5Gi", "give --scans-size 17Gi or more, or set scanning.image_bytes to 8,321,499,136 or less"),
        (SCANNED, "1Gi", "give --scans-size 17Gi or more\n"),
        (SCANNED + f"image_bytes = {20 * 1024**3}\n", "20Gi", "give --scans-size 41Gi or more, or set"),
        (SCANNED + f"image_bytes = {64 * 1024**2}\n", "1152Mi", ""),
        (SCANNED + "at_once = 3\n", "20Gi", "give --scans-size 25Gi or more, or set scanning.image_bytes to 6,800,"),
        (SCANNED + "at_once = 1\n", "9Gi", ""),
        ("", "1Gi", ""),
    ],
)
def test_a_volume_too_small_for_the_images_of_all_scans_is_refused_where_any_are_fetched(
    settings: str,
    size: str,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "settings.toml").write_text(SETTINGS + settings)
    monkeypatch.setattr(sys, "argv", ["install", "render", "--home", str(tmp_path), "--scans-size", size])
    assert install.main() == (install.EXIT_SETTINGS if says else 0)
    printed = capsys.readouterr().err
    assert (f"--scans-size {size}: " in printed) == bool(says) and says in printed
    monkeypatch.setattr(sys, "argv", ["install", "uninstall", "--home", str(tmp_path), "--scans-size", size])
    assert install.choices(install.parser().parse_args()).scans_size == size, "what goes needs no room"


def test_sizes_of_a_control_planes_pod_reach_the_manifests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--scans-size", "40Gi", "--repositories-size", "9Gi", "--control-plane-memory", "7Gi")
    found = rendered(tmp_path / "home", monkeypatch, capsys, *words)
    (pod,) = [
        one["spec"]["template"]["spec"]
        for one in found
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "chimera-control-plane"
    ]
    volumes = {one["name"]: one.get("emptyDir") for one in pod["volumes"]}
    assert (volumes["scans"], volumes["repositories"]) == ({"sizeLimit": "40Gi"}, {"sizeLimit": "9Gi"})
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "7Gi"}


def test_what_warm_pods_cost_is_said_beside_what_would_be_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    real = sys.stderr.write
    monkeypatch.setattr(sys.stderr, "write", lambda text: said.append(text) or real(text))
    found = rendered(tmp_path / "home", monkeypatch, capsys, "--warm-pool", "7")
    assert "7 pods request" in "".join(said) and "a month" in "".join(said)
    (config,) = [one for one in found if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "chimera-config"]
    assert json.loads(config["data"]["control-plane.json"])["knative"]["warm_pool"] == 7
    (quota,) = [one for one in found if one["kind"] == "ResourceQuota"]
    assert quota["spec"]["hard"] == {"pods": "2500"} and quota["metadata"]["namespace"] == "chimera-cells"


def test_only_what_is_installed_needs_a_database(tmp_path: Path) -> None:
    parse = install.parser().parse_args
    assert install.choices(parse(["uninstall", "--home", str(tmp_path)])).namespace == "chimera"
    with pytest.raises(SettingsError, match=r"node\.database"):
        install.choices(parse(["install", "--home", str(tmp_path)]))


def test_cells_and_the_platform_never_share_a_namespace(tmp_path: Path) -> None:
    parse = install.parser().parse_args
    (tmp_path / "settings.toml").write_text(SETTINGS + 'namespace = "chimera"\n')
    for action in ("install", "render"):
        with pytest.raises(SettingsError, match=r"knative\.namespace is chimera"):
            install.choices(parse([action, "--home", str(tmp_path), "--yes"]))
    assert install.choices(parse(["install", "--home", str(tmp_path), "--namespace", "other"])).namespace == "other"
    assert install.choices(parse(["uninstall", "--home", str(tmp_path)])).knative.namespace == "chimera"
