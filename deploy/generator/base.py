"""The kustomize base: the installation with its defaults, and a component for each thing that may be added to it.

A component brings the objects that the choice adds, and JSON patches for those that it changes, both found by comparing
the installation with the choice and without it. Strategic merges would put what they add to a list before what is
there. kustomize trims a patch, so that no text may stand at its end: an operation's name does.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import yaml

from chimera.adapters.substrates.knative.installation import Installation, manifests
from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.delivery.git.settings import SyncSettings
from chimera.delivery.scanning.settings import ScanningSettings
from chimera.delivery.settings import DeliverySettings
from chimera.delivery.trials.settings import TrialSettings
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
    delivery=dataclasses.asdict(DeliverySettings()),
    scanning=dataclasses.asdict(ScanningSettings()),
    trials=dataclasses.asdict(TrialSettings()),
    sync=dataclasses.asdict(SyncSettings()),
    operator=dataclasses.asdict(OperatorSettings()),
)
"""The database is what a Service of that name in the platform's namespace leads to."""


COMPONENTS: dict[str, dict[str, Any]] = {"eventing": {"eventing": True}, "monitors": {"monitors": True}}
"""By name what each chooses."""


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
    found = {f"base/{name}.yaml": _documents(objects) for name, objects in _by_file(base).items()}
    found["base/kustomization.yaml"] = _kustomization("Kustomization", [name for name in _by_file(base)])
    for component, chosen in COMPONENTS.items():
        more = by_identity(manifests(msgspec.structs.replace(DEFAULTS, **chosen)))
        if gone := known.keys() - more.keys():
            raise AssertionError(f"no component can take away {', '.join(sorted(gone))}")
        added = [one for name, one in more.items() if name not in known]
        patches = [
            {"target": _target(one), "patch": _shown(changes)}
            for name, one in known.items()
            if (changes := list(json_patch(one, more[name])))
        ]
        folder = f"components/{component}"
        found[f"{folder}/{component}.yaml"] = _documents(added)
        found[f"{folder}/kustomization.yaml"] = _kustomization("Component", [component], patches)
    return {f"{FOLDER}/{name}": text for name, text in found.items()}


def json_patch(before: Json, after: Json, path: str = "") -> Iterator[Json]:
    """The operations (RFC 6902) that make `after` of `before`; what is appended to a list is added at its end."""
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            where = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
            if name not in after:
                yield {"path": where, "op": "remove"}
            elif name not in before:
                yield {"path": where, "value": after[name], "op": "add"}
            else:
                yield from json_patch(before[name], after[name], where)
    elif isinstance(before, list) and isinstance(after, list) and len(after) >= len(before):
        for at, one in enumerate(before):
            yield from json_patch(one, after[at], f"{path}/{at}")
        for one in after[len(before) :]:
            yield {"path": f"{path}/-", "value": one, "op": "add"}
    else:
        yield {"path": path, "value": after, "op": "replace"}


def _target(one: Json) -> Json:
    meta = one["metadata"]
    return {"kind": one["kind"], "name": meta["name"], **{key: meta[key] for key in ("namespace",) if key in meta}}


def _by_file(objects: list[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for one in objects:
        found.setdefault(FILES.get(one["kind"], one["kind"].lower() + "s"), []).append(one)
    return found


def _documents(objects: list[Json]) -> str:
    shown = yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=120, explicit_start=True, allow_unicode=True)
    return f"# {NOTE}\n{shown}"


def _shown(value: Json) -> str:
    return yaml.dump(value, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


def _kustomization(kind: str, names: list[str], patches: Sequence[Json] = ()) -> str:
    version = "v1beta1" if kind == "Kustomization" else "v1alpha1"
    said = {
        "apiVersion": f"kustomize.config.k8s.io/{version}",
        "kind": kind,
        "resources": [f"{name}.yaml" for name in names],
        **({"patches": list(patches)} if patches else {}),
    }
    return f"# {NOTE}\n" + yaml.dump(said, Dumper=_Plain, sort_keys=False, width=120)
