"""The kustomize base: the installation with its defaults, and a component with what Prometheus' operator reads."""

import dataclasses
from typing import Any

import msgspec
import yaml

from chimera.adapters.substrates.knative.installation import Installation, manifests
from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.platform.upkeep.settings import RetentionSettings, UpkeepSettings
from deploy.generator.chart import FILES, NOTE
from deploy.generator.symbols import by_identity

Json = Any
FOLDER = "deploy/kustomize"
DEFAULTS = Installation(
    knative=KnativeSettings(),
    database="postgresql://chimera@chimera-database/chimera",
    retention=dataclasses.asdict(RetentionSettings()),
    upkeep=dataclasses.asdict(UpkeepSettings()),
    operator=dataclasses.asdict(OperatorSettings()),
)
"""The database is what a Service of that name in the platform's namespace leads to."""


class _Plain(yaml.SafeDumper):
    """YAML without anchors, and with texts of many lines as such."""

    def ignore_aliases(self, data: object) -> bool:
        """Always."""
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Plain.add_representer(str, _text)


def files() -> dict[str, str]:
    """The files by their path in the repository."""
    base = manifests(DEFAULTS)
    known = by_identity(base)
    more = by_identity(manifests(msgspec.structs.replace(DEFAULTS, monitors=True)))
    found = {f"base/{name}.yaml": _documents(objects) for name, objects in _by_file(base).items()}
    found["base/kustomization.yaml"] = _kustomization("Kustomization", [name for name in _by_file(base)])
    found["components/monitors/monitors.yaml"] = _documents([one for name, one in more.items() if name not in known])
    found["components/monitors/kustomization.yaml"] = _kustomization("Component", ["monitors"])
    return {f"{FOLDER}/{name}": text for name, text in found.items()}


def _by_file(objects: list[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for one in objects:
        found.setdefault(FILES.get(one["kind"], one["kind"].lower() + "s"), []).append(one)
    return found


def _documents(objects: list[Json]) -> str:
    shown = yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=120, explicit_start=True, allow_unicode=True)
    return f"# {NOTE}\n{shown}"


def _kustomization(kind: str, names: list[str]) -> str:
    version = "v1beta1" if kind == "Kustomization" else "v1alpha1"
    said = {
        "apiVersion": f"kustomize.config.k8s.io/{version}",
        "kind": kind,
        "resources": [f"{name}.yaml" for name in names],
    }
    return f"# {NOTE}\n" + yaml.safe_dump(said, sort_keys=False)
