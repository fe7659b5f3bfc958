"""The CustomResourceDefinitions: `Agent`, `AgentTemplate`, `Cell` and `Rollout`.

An Agent's `spec` is a definition as it stands in a file, with the resource's name for its own. The version is `v1` from
the beginning: the form is ADaC's, which carries a version of its own (`schema_version`), so a later ADaC is another
value there, and 12,000 stored objects need no conversion. docs/adr/0022 has the reasons of all of it.
"""

import dataclasses
from typing import Any, Literal, get_args

import msgspec

from chimera.adapters.substrates.knative.labelling import labels
from chimera.adapters.substrates.knative.resources.structural import relax, structural
from chimera.agents.schema import definition_schema
from chimera.delivery.rollout.model import Policy
from chimera.delivery.settings import DeliverySettings

Json = dict[str, Any]

Asked = Literal["Running", "Paused", "Aborted"]
"""What a Rollout may ask for."""

GROUP, VERSION = "chimera.ecosystem", "v1"
AGENT_NAME = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
MOST_INSTANCES = 1_000
MOST_NAMED = 2_000
GIVEN_BY_TEMPLATES = (
    ("metadata", "description"),
    ("specification", "framework"),
    ("capabilities", "primary_functions"),
)
"""What a definition needs, be it from its template."""
_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_READY = '.status.conditions[?(@.type=="Ready")]'


def definitions() -> list[Json]:
    """All of them, by name."""
    return [_agent(), _template(), _cell(), _rollout()]


def _agent() -> Json:
    spec = structural(definition_schema(), "Definition")
    spec["description"] = "The agent's definition (ADaC v2.0), as in a file. Its name is the resource's."
    metadata = spec["properties"]["metadata"]
    relax(spec)
    # What no template gives.
    spec["required"], metadata["required"] = ["schema_version", "metadata"], ["version"]
    metadata["properties"]["name"]["description"] = "The resource's name; it may be left out."
    spec["x-kubernetes-validations"] = [
        {
            "rule": f"has(self.extends) || {_has(*path)}",
            "message": f"{'.'.join(path)} is missing, and no template gives it",
        }
        for path in GIVEN_BY_TEMPLATES
    ]
    root: Json = {
        "type": "object",
        "description": "An agent: a definition that the operator carries into the catalogue, and what became of it.",
        "required": ["spec"],
        "properties": {"spec": spec, "status": _agent_status()},
        "x-kubernetes-validations": [
            {
                "rule": f"self.metadata.name.matches('{AGENT_NAME}')",
                "message": "metadata.name: an agent's name has 1 to 63 lower-case letters, digits and inner hyphens",
            },
            {
                "rule": "!has(self.spec.metadata.name) || self.spec.metadata.name == self.metadata.name",
                "message": "spec.metadata.name is not the resource's name: leave it out",
            },
        ],
    }
    columns = [
        _column("Version", ".spec.metadata.version"),
        _column("Framework", ".spec.specification.framework"),
        _column("Ready", f"{_READY}.status"),
        _column("Reason", f"{_READY}.reason"),
        _column("Cell", ".status.cell", priority=1),
        _column("Revision", ".status.revision", priority=1),
        _column("Tenant", ".status.tenant", priority=1),
        _AGE,
    ]
    return _definition("Agent", "agents", ["ag"], root, columns)


def _template() -> Json:
    spec = structural(definition_schema(), "Definition")
    spec["description"] = (
        "A part of a definition. Agents of the namespace that name it in `extends` are laid over it: mappings are "
        "merged, lists and values replaced. In its texts {description} and {functions} stand for the agent's own."
    )
    relax(spec)
    del spec["properties"]["extends"], spec["properties"]["schema_version"]
    # Who the agent is says the agent.
    for name in ("name", "version"):
        del spec["properties"]["metadata"]["properties"][name]
    root: Json = {
        "type": "object",
        "description": "A template that agents of its namespace may extend.",
        "required": ["spec"],
        "properties": {"spec": spec, "status": _template_status()},
    }
    columns = [
        _column("Framework", ".spec.specification.framework"),
        _column("Ready", f"{_READY}.status"),
        _column("Reason", f"{_READY}.reason"),
        _AGE,
    ]
    return _definition("AgentTemplate", "agenttemplates", ["agt"], root, columns)


def _rollout() -> Json:
    names = {
        "type": "array",
        "maxItems": MOST_NAMED,
        "x-kubernetes-list-type": "set",
        "items": {"type": "string", "pattern": AGENT_NAME, "maxLength": 63},
        "description": "Agents by name.",
    }
    having = {
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 63},
        "description": "Agents that have all these labels.",
    }
    agents: Json = {
        "type": "object",
        "description": "Which Agents of its namespace it governs: those named and those with the labels; all of them "
        "where neither is said. Of several Rollouts that select an Agent the oldest governs it.",
        "properties": {"names": names, "matchLabels": having},
    }
    policy = structural(policy_schema(), "Policy")
    policy["description"] = "Settings of its rollouts that are to be other than the platform's (delivery.rollout_…)."
    state = {
        "type": "string",
        "enum": list(get_args(Asked)),
        "default": "Running",
        "description": "`Paused`: nothing is begun, and what is under way goes no further. `Aborted`: what is under "
        "way is taken back, too.",
    }
    attempt = {
        "type": "integer",
        "format": "int32",
        "minimum": 0,
        "default": 0,
        "description": "Counted up, what was taken back is tried again as it is.",
    }
    root: Json = {
        "type": "object",
        "description": "How Agents reach production: what they want to be live is rolled out wave by wave, watched, "
        "and kept or taken back.",
        "properties": {
            "spec": {
                "type": "object",
                "default": {},
                "properties": {"agents": agents, "policy": policy, "state": state, "attempt": attempt},
            },
            "status": _rollout_status(),
        },
        "x-kubernetes-validations": [
            {
                "rule": f"self.metadata.name.matches('{AGENT_NAME}')",
                "message": "metadata.name: a Rollout's name has 1 to 63 lower-case letters, digits and inner hyphens",
            }
        ],
    }
    columns = [
        _column("Phase", ".status.phase"),
        _column("Wave", ".status.wave", kind="integer"),
        _column("Waves", ".status.waves", kind="integer"),
        _column("Agents", ".status.agents", kind="integer"),
        _column("Moved", ".status.moved", kind="integer"),
        _column("Waiting", ".status.waiting", kind="integer"),
        _column("Ready", f"{_READY}.status"),
        _column("Rollout", ".status.rollout", priority=1),
        _column("Tenant", ".status.tenant", priority=1),
        _AGE,
    ]
    return _definition("Rollout", "rollouts", ["ro"], root, columns)


def policy_schema() -> Json:
    """The JSON Schema of a rollout's policy, each field with what its setting says."""
    (_, defs) = msgspec.json.schema_components([Policy], ref_template="#/$defs/{name}")
    told = {one.name: one.metadata["doc"] for one in dataclasses.fields(DeliverySettings)}
    for name, field in defs["Policy"]["properties"].items():
        field["description"] = told[f"rollout_{name}"]
    return {"$defs": defs}


def _cell() -> Json:
    least = {
        "type": "integer",
        "format": "int32",
        "minimum": 0,
        "maximum": MOST_INSTANCES,
        "default": 0,
        "description": "Hosts that the cell keeps at least, beside what its agents ask for. `kubectl scale` sets it.",
    }
    root: Json = {
        "type": "object",
        "description": "A cell: the Knative Service whose pods run the agents of one runtime class. The operator makes "
        "one of these for each; `spec` is yours.",
        "properties": {
            "spec": {"type": "object", "default": {}, "properties": {"minScale": least}},
            "status": _cell_status(),
        },
    }
    columns = [
        _column("Framework", ".status.framework"),
        _column("Agents", ".status.agents", kind="integer"),
        _column("Hosts", ".status.replicas", kind="integer"),
        _column("Min", ".status.minReplicas", kind="integer"),
        _column("Max", ".status.maxReplicas", kind="integer", priority=1),
        _column("Ready", f"{_READY}.status"),
        _column("Reason", f"{_READY}.reason"),
        _column("Revision", ".status.revision", priority=1),
        _AGE,
    ]
    scale = {"specReplicasPath": ".spec.minScale", "statusReplicasPath": ".status.replicas"}
    return _definition("Cell", "cells", ["cel"], root, columns, scale=scale)


def _has(*path: str) -> str:
    steps = [".".join(("self", *path[: count + 1])) for count in range(len(path))]
    return "(" + " && ".join(f"has({step})" for step in steps) + ")"


def _agent_status() -> Json:
    return _status(
        "What became of the definition.",
        phase=_text(
            "`Live`, or why it isn't: `Invalid`, `NeedsCode`, `Conflict`, `Unservable`, `NoTenant`, `NotClaimed`; "
            "`Changing`, `RollingOut`, `Held` and `Refused` where something brings it to production, or didn't."
        ),
        tenant=_text("The tenant that it belongs to."),
        revision=_text("The digest of the revision that is live."),
        version=_text("That revision's version."),
        cell=_text("The cell that runs it."),
        change=_text("The change request that carries the definition, or carried it."),
        rollout=_text("The rollout that carries the definition, or carried it."),
    )


def _template_status() -> Json:
    return _status("Whether agents can extend it.", phase=_text("`Ready`, or `NameTaken`."))


def _rollout_status() -> Json:
    moment = {"type": "string", "format": "date-time"}
    return _status(
        "The newest rollout of these Agents, and those that wait for one.",
        phase=_text(
            "`Idle`, `Gathering`, `Running`, `Paused`, `Promoting`, `RollingBack`, `Done`, `RolledBack`, `Aborted`; or "
            "why nothing is begun: `Held`, `Blocked`, `Invalid`, `ByChanges`, `NoTenant`, `NotClaimed`."
        ),
        tenant=_text("The tenant that its Agents belong to."),
        rollout=_text("The rollout, as `chimera rollout show` takes it."),
        startedAt={**moment, "description": "When it began."},
        endedAt={**moment, "description": "When it ended."},
        agents=_number("Its Agents."),
        moved=_number("Those that have their new revision for nearly all calls, or for all."),
        wave=_number("The wave under way, from 1."),
        waves=_number("How many waves there are."),
        takenBack=_number("Agents that are taken back."),
        lowEvidence=_number("Agents that were decided with few calls."),
        selected=_number("Agents that this Rollout governs."),
        waiting=_number("Agents whose definition waits for a rollout."),
    )


def _cell_status() -> Json:
    return _status(
        "The cell as the operator sees it.",
        phase=_text("`Ready`, `Asleep`, `Deploying`, `Failed` or `Waiting`."),
        cell=_text("The cell's id in the catalogue."),
        tenant=_text("The tenant whose agents it runs."),
        framework=_text("The framework of its hosts."),
        revision=_text("The Knative Revision that takes calls."),
        agents=_number("Live agents that belong to it."),
        replicas=_number("Its hosts."),
        minReplicas=_number("Hosts that it keeps at least, by its agents and by `spec.minScale`."),
        maxReplicas=_number("Hosts that it may have."),
    )


def _status(description: str, **fields: Json) -> Json:
    generation = {"type": "integer", "format": "int64", "description": "The generation of `spec` that this is about."}
    return {
        "type": "object",
        "description": description,
        "properties": {"observedGeneration": generation, **fields, "conditions": _conditions()},
    }


def _conditions() -> Json:
    time = {"type": "string", "format": "date-time", "description": "When `status` changed last."}
    return {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": _text("What it is about.", maxLength=316),
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "reason": _text("Why, in one word.", maxLength=1024, minLength=1),
                "message": _text("Why, and what to do.", maxLength=32768),
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": time,
            },
        },
    }


def _text(description: str, **bounds: int) -> Json:
    return {"type": "string", **bounds, "description": description}


def _number(description: str) -> Json:
    return {"type": "integer", "format": "int32", "description": description}


def _column(name: str, path: str, *, kind: str = "string", priority: int = 0) -> Json:
    found: Json = {"name": name, "type": kind, "jsonPath": path}
    return {**found, "priority": priority} if priority else found


def _definition(
    kind: str, plural: str, short: list[str], root: Json, columns: list[Json], *, scale: Json | None = None
) -> Json:
    subresources: Json = {"status": {}} if scale is None else {"status": {}, "scale": scale}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "labels": labels(),
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "plural": plural,
                "singular": kind.lower(),
                "listKind": f"{kind}List",
                "shortNames": short,
                "categories": ["chimera"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": root},
                    "subresources": subresources,
                    "additionalPrinterColumns": columns,
                }
            ],
        },
    }
