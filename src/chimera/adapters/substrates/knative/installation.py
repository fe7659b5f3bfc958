"""The platform in a cluster, as manifests: a pure rule from a few choices to everything that is applied.

Two namespaces, both of the restricted pod security standard: one for the platform's processes, one for cells alone, so
that a right or a policy for one isn't one for the other. Nothing here is a secret: keys are in two Secrets that the
installation makes once and never reads again (what signs deliveries is apart, and in gateways alone), the webhook's
certificates in one that it makes empty, and the database's password in one that is yours.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct

from chimera.adapters.substrates.knative import eventing, monitors, names, places
from chimera.adapters.substrates.knative.admission import manifests as admission
from chimera.adapters.substrates.knative.labelling import labels, meta, selector
from chimera.adapters.substrates.knative.netpolicies import HOST, KOURIER, METRICS, policies
from chimera.adapters.substrates.knative.render import Json
from chimera.adapters.substrates.knative.resources.crds import GROUP, VERSION, definitions
from chimera.adapters.substrates.knative.rights import CONTROL_PLANE, GATEWAY, OPERATOR, RIGHTS
from chimera.adapters.substrates.knative.roles import roles
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.adapters.substrates.knative.telling import Said, said

PUBLIC, INTERNAL, CATALOGUE, HEALTH = 8080, 8081, 8082, 8083
KEYS, CREDENTIALS = "chimera-keys", "chimera-credentials"
KEY_NAMES = ("chimera.key", "token.secret", "control-plane.key")
SIGNING, SIGNING_KEY = "chimera-webhooks", "webhooks.key"
PROVENANCE, PROVENANCE_KEY = "chimera-provenance", "provenance.key"
AUDIT, AUDIT_KEY = "chimera-audit", "audit.key"
MADE = {KEYS: KEY_NAMES, SIGNING: (SIGNING_KEY,), PROVENANCE: (PROVENANCE_KEY,), AUDIT: (AUDIT_KEY,)}
"""The Secrets that an installation makes once, and the keys in each."""
CONFIG = "chimera-config"
SECRETS_FOLDER, CONFIG_FOLDER, HOME = "/var/run/secrets/chimera", "/etc/chimera", "/var/lib/chimera"
SIGNING_FOLDER = "/var/run/secrets/chimera-webhooks"
PROVENANCE_FOLDER = "/var/run/secrets/chimera-provenance"
AUDIT_FOLDER = "/var/run/secrets/chimera-audit"
PASSWORD = "DATABASE_PASSWORD"
DRAIN_PAUSE, DRAIN, DRAIN_MARGIN = 8.0, 180.0, 15.0
"""Of gateways: how long until balancers know of one's end; how long its calls may take then, which is the longest call
of a tool or a model (`deadlines`) and some of what comes around it; and what writing all down may take."""
GRACE = 60
"""Of the others, which nobody's calls wait for."""
MODULES = {
    CONTROL_PLANE: "chimera.bootstrap.control_plane",
    GATEWAY: "chimera.bootstrap.gateway",
    OPERATOR: "chimera.bootstrap.operator",
}
PORTS = {
    CONTROL_PLANE: {"catalogue": CATALOGUE, admission.PORT_NAME: admission.PORT},
    GATEWAY: {"public": PUBLIC, "internal": INTERNAL, "metrics": METRICS},
    OPERATOR: {"health": HEALTH},
}
ZONE, NODE = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
PROBED = {CONTROL_PLANE: CATALOGUE, GATEWAY: INTERNAL, OPERATOR: HEALTH}


class Installation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is chosen.

    `namespace` is the platform's own. `database` is a PostgreSQL URL without a password, `database_secret` the Secret
    in that namespace whose key `password` holds it. `hosts` are further names that callers may use for the gateway.
    `models`, `issuers` and `settings` are what a home's settings file holds in its groups, `retention`, `upkeep`,
    `delivery`, `scanning`, `trials`, `sync` and `operator` those seven, `jaegis` those of JAEGIS. `revision` changes
    nothing but the pods: a new one starts them anew.

    `node_selector`, `tolerations` and `priority_class` say which nodes the platform's pods may use and what they push
    aside; with `strict_spread` a pod waits rather than share a zone or a node more than it must, which needs nodes that
    name their zone. With `eventing` events go to agents through a Broker of Knative Eventing. `monitors` adds what
    Prometheus' operator reads, `monitoring` is the namespace that it runs in.

    `egress` are further rules, as a NetworkPolicy has them, of what control planes and gateways may reach beside port
    443: hosts of Git, advisories and registries; models, functions and receivers of events. `ingress_namespace` is
    where the ingress runs through which Knative wakes cells. `advisories_claim` is a PersistentVolumeClaim whose files
    control planes read at `places.ADVISORIES_FOLDER`; `repositories_size` bounds their clones, `scans_size` the images
    that they fetch to scan them, `control_plane_memory` the whole process with those that scan and read repositories
    for it.
    """

    knative: KnativeSettings
    database: str
    image: str = "chimera-platform:0.1.0"
    namespace: str = "chimera"
    database_secret: str | None = "chimera-database"
    replicas: Annotated[int, Meta(ge=1, le=100)] = 3
    hosts: tuple[str, ...] = ()
    models: dict[str, Any] = {}
    issuers: dict[str, Any] = {}
    settings: dict[str, dict[str, Any]] = {}
    retention: dict[str, Any] = {}
    upkeep: dict[str, Any] = {}
    delivery: dict[str, Any] = {}
    scanning: dict[str, Any] = {}
    trials: dict[str, Any] = {}
    operator: dict[str, Any] = {}
    jaegis: dict[str, dict[str, Any]] = {}
    database_port: int = 5432
    revision: str = ""
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    priority_class: str = ""
    strict_spread: bool = False
    eventing: bool = False
    monitors: bool = False
    monitoring: str = "monitoring"
    sync: dict[str, Any] = {}
    egress: tuple[dict[str, Any], ...] = ()
    ingress_namespace: str = KOURIER
    advisories_claim: str = ""
    repositories_size: str = "8Gi"
    scans_size: str = "20Gi"
    control_plane_memory: str = "6Gi"


def manifests(chosen: Installation) -> list[Json]:
    """Everything that is applied, in the order in which it must be."""
    return objects(chosen, {name: said(value, chosen.revision) for name, value in told(chosen).items()})


def objects(chosen: Installation, words: Mapping[str, Said]) -> list[Json]:
    """Everything that is applied, with these words for each process: a chart has templates in their place."""
    return [
        *definitions(),
        _namespace(chosen.namespace),
        _namespace(chosen.knative.namespace, {names.CELLS_OF: chosen.namespace}),
        *(_account(chosen.namespace, f"chimera-{name}") for name in RIGHTS),
        _account(chosen.knative.namespace, chosen.knative.service_account),
        *roles(chosen.namespace, chosen.knative.namespace),
        *_quota(chosen.knative),
        *policies(
            chosen.namespace,
            chosen.knative.namespace,
            database_port=chosen.database_port,
            monitoring=chosen.monitoring if chosen.monitors else None,
            eventing=chosen.eventing,
            egress=chosen.egress,
            ingress=chosen.ingress_namespace,
        ),
        _config(chosen, words),
        places.ledger(chosen.namespace),
        _service(chosen, "chimera-control-plane", CONTROL_PLANE, ("catalogue",)),
        _service(chosen, "chimera-internal", GATEWAY, ("internal", "metrics")),
        _service(chosen, "chimera", GATEWAY, ("public",)),
        admission.secret(chosen.namespace, labels()),
        admission.service(chosen.namespace, labels(CONTROL_PLANE), selector(CONTROL_PLANE)),
        *(_disruption(chosen.namespace, f"chimera-{name}", selector(name), 1) for name in RIGHTS),
        # A share of all hosts, rounded up: a drain takes a few of a busy cell's at a time and is never blocked.
        _disruption(chosen.knative.namespace, "chimera-hosts", HOST, "20%"),
        *(_deployment(chosen, name, words[name]) for name in RIGHTS),
        admission.configuration(chosen.namespace, labels(), group=GROUP, version=VERSION),
        *(_eventing(chosen) if chosen.eventing else ()),
        *(_monitors(chosen) if chosen.monitors else ()),
    ]


def _quota(knative: KnativeSettings) -> list[Json]:
    """What bounds the pods of cells, whatever definitions ask for."""
    if not knative.most_pods:
        return []
    return [
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": meta(knative.namespace, "chimera-hosts"),
            "spec": {"hard": {"pods": str(knative.most_pods)}},
        }
    ]


def keys(chosen: Installation, values: dict[str, str], name: str = KEYS) -> Json:
    """One of the Secrets of `MADE`, as it is made once."""
    meta = {"name": name, "namespace": chosen.namespace, "labels": labels()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque", "stringData": values}


def _namespace(name: str, more: Mapping[str, str] | None = None) -> Json:
    enforced = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    marked = {**labels(), **enforced, **(more or {})}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": marked}}


def _account(namespace: str, name: str) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": meta(namespace, name),
        "automountServiceAccountToken": False,
    }


def told(chosen: Installation) -> dict[str, Json]:
    """What each process is told at its start (`chimera.bootstrap.gateway_config`, `control_plane`)."""
    knative = {
        field: getattr(chosen.knative, field)
        for field in KnativeSettings.__dataclass_fields__
        if field != "platform_url"
    }
    knative["platform_url"] = f"http://chimera-internal.{chosen.namespace}.svc.cluster.local:{INTERNAL}"
    password = f"env:{PASSWORD}" if chosen.database_secret else None
    shared: Json = {
        "database": chosen.database,
        "database_password": password,
        "settings": chosen.settings,
        "mounted_secrets": True,
    }
    control_plane = {
        **shared,
        "knative": knative,
        "host": "0.0.0.0",
        "port": CATALOGUE,
        "key_file": f"{SECRETS_FOLDER}/control-plane.key",
        "max_hosts": chosen.knative.max_hosts,
        "audit": chosen.settings.get("audit", {}),
        "events": chosen.settings.get("events", {}),
        "retention": chosen.retention,
        "upkeep": chosen.upkeep,
        "jaegis": chosen.jaegis,
        "provenance_key_file": f"{PROVENANCE_FOLDER}/{PROVENANCE_KEY}",
        "audit_key_file": f"{AUDIT_FOLDER}/{AUDIT_KEY}",
        "places": places.told(chosen.namespace),
        "models": chosen.models,
        "delivery": chosen.delivery,
        "scanning": chosen.scanning,
        "trials": chosen.trials,
        "sync": chosen.sync,
        "admission": {
            "host": "0.0.0.0",
            "port": admission.PORT,
            "namespace": chosen.namespace,
            "secret": admission.NAME,
            "configuration": admission.configuration_name(chosen.namespace),
            "names": list(admission.dns_names(chosen.namespace)),
        },
    }
    internal = ("chimera-internal", f"chimera-internal.{chosen.namespace}")
    public = ("chimera", f"chimera.{chosen.namespace}")
    gateway = {
        **shared,
        # What a gateway knows of cells, and no more: a change of their image is none of its own.
        "knative": {name: knative[name] for name in ("namespace", "service_account", "audience")},
        "home": HOME,
        "audit_keys_file": f"{places.LEDGER_FOLDER}/{places.AUDIT_KEYS}",
        "key_file": f"{SECRETS_FOLDER}/chimera.key",
        "token_secret_file": f"{SECRETS_FOLDER}/token.secret",
        "webhook_key_file": f"{SIGNING_FOLDER}/{SIGNING_KEY}",
        "control_plane_socket": f"http://chimera-control-plane.{chosen.namespace}.svc.cluster.local:{CATALOGUE}",
        "control_plane_key_file": f"{SECRETS_FOLDER}/control-plane.key",
        "host": "0.0.0.0",
        "port": PUBLIC,
        "hosts": [*_names(public), *chosen.hosts],
        "behind_proxy": True,
        "internal_host": "0.0.0.0",
        "internal_port": INTERNAL,
        "internal_names": _names(internal),
        "metrics_port": METRICS,
        "models": chosen.models,
        "issuers": chosen.issuers,
        "drain_pause": DRAIN_PAUSE,
        "drain": DRAIN,
        **({"broker": eventing.ingress(chosen.namespace), "broker_port": eventing.PORT} if chosen.eventing else {}),
    }
    operator = {
        "database": chosen.database,
        "database_password": password,
        "cells": chosen.knative.namespace,
        "namespace": chosen.namespace,
        "max_hosts": chosen.knative.max_hosts,
        "host": "0.0.0.0",
        "port": HEALTH,
        "operator": chosen.operator,
        "delivery": chosen.delivery,
    }
    return {CONTROL_PLANE: control_plane, GATEWAY: gateway, OPERATOR: operator}


def _config(chosen: Installation, words: Mapping[str, Said]) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta(chosen.namespace, CONFIG),
        "data": {f"{name}.json": one.text for name, one in words.items()},
    }


def _names(name: tuple[str, str]) -> list[str]:
    short, qualified = name
    return [short, qualified, f"{qualified}.svc", f"{qualified}.svc.cluster.local"]


def _service(chosen: Installation, name: str, component: str, ports: tuple[str, ...]) -> Json:
    numbers = PORTS[component]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(chosen.namespace, name, component),
        "spec": {
            "selector": selector(component),
            "ports": [
                {"name": port, "port": numbers[port], "targetPort": port, "protocol": "TCP", "appProtocol": "http"}
                for port in ports
            ],
        },
    }


def _disruption(namespace: str, name: str, chosen: dict[str, str], most: int | str) -> Json:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {**meta(namespace, name), "labels": {**labels(), **chosen}},
        "spec": {"maxUnavailable": most, "selector": {"matchLabels": chosen}},
    }


def _eventing(chosen: Installation) -> list[Json]:
    own = chosen.namespace
    return [
        eventing.service(meta(own, eventing.SERVICE, GATEWAY), selector(GATEWAY)),
        eventing.broker(meta(own, eventing.BROKER)),
        eventing.trigger(meta(own, eventing.TRIGGER), own),
    ]


def _ports(chosen: Installation, component: str) -> dict[str, int]:
    """The ports of a component's container."""
    more = {eventing.PORT_NAME: eventing.PORT} if chosen.eventing and component == GATEWAY else {}
    return {**PORTS[component], **more}


def _monitors(chosen: Installation) -> list[Json]:
    own, cells = chosen.namespace, chosen.knative.namespace
    return [
        monitors.services(meta(own, "chimera-control-plane", CONTROL_PLANE), selector(CONTROL_PLANE), "catalogue"),
        monitors.services(meta(own, "chimera-gateway", GATEWAY), selector(GATEWAY), "metrics"),
        monitors.pods(meta(own, "chimera-operator", OPERATOR), selector(OPERATOR), "health"),
        monitors.hosts(meta(cells, "chimera-hosts")),
    ]


def _deployment(chosen: Installation, component: str, words: Said) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta(chosen.namespace, f"chimera-{component}", component),
        "spec": {
            "replicas": chosen.replicas,
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector(component)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                # A change of what the processes are told starts them anew, one after the other.
                "metadata": {"labels": labels(component), "annotations": {names.PREFIX + "config": words.digest}},
                "spec": _pod(chosen, component),
            },
        },
    }


def _pod(chosen: Installation, component: str) -> Json:
    volumes: list[Json] = [
        {"name": "config", "configMap": {"name": CONFIG}},
        {"name": "home", "emptyDir": {"sizeLimit": "1Gi"}},
    ]
    mounts: list[Json] = [
        {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
        {"name": "home", "mountPath": HOME},
    ]
    if component != OPERATOR:  # which nobody asks, and which asks nobody but the cluster and the database
        volumes.append({"name": "keys", "secret": {"secretName": KEYS, "defaultMode": 0o444}})
        mounts.append({"name": "keys", "mountPath": SECRETS_FOLDER, "readOnly": True})
    more: tuple[list[Json], list[Json]] = ([], [])
    if component == GATEWAY:  # whichever delivers, the signature is the same
        volumes.append({"name": "webhooks", "secret": {"secretName": SIGNING, "defaultMode": 0o444}})
        mounts.append({"name": "webhooks", "mountPath": SIGNING_FOLDER, "readOnly": True})
        more = places.gateway_volumes()
    if component == CONTROL_PLANE:  # whichever holds the lease, the signature is the same
        for name, secret, folder in (("provenance", PROVENANCE, PROVENANCE_FOLDER), ("audit", AUDIT, AUDIT_FOLDER)):
            volumes.append({"name": name, "secret": {"secretName": secret, "defaultMode": 0o444}})
            mounts.append({"name": name, "mountPath": folder, "readOnly": True})
        more = places.volumes(
            repositories_size=chosen.repositories_size,
            scans_size=chosen.scans_size,
            advisories_claim=chosen.advisories_claim,
        )
    volumes += more[0]
    mounts += more[1]
    environment: list[Json] = [
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "HOME", "value": HOME},
        {"name": "TMPDIR", "value": places.SCANS_FOLDER if component == CONTROL_PLANE else HOME},
    ]
    if chosen.database_secret:
        held = {"secretKeyRef": {"name": chosen.database_secret, "key": "password"}}
        environment.append({"name": PASSWORD, "valueFrom": held})
    probe = {"httpGet": {"path": "/readyz", "port": PROBED[component]}, "periodSeconds": 2, "timeoutSeconds": 5}
    return {
        "serviceAccountName": f"chimera-{component}",
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _grace(chosen) if component == GATEWAY else GRACE,
        **({"imagePullSecrets": [{"name": name} for name in chosen.knative.pull_secrets]} if _pulls(chosen) else {}),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": chosen.knative.user,
            "runAsGroup": chosen.knative.user,
            "fsGroup": chosen.knative.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **_where(chosen, component),
        "containers": [
            {
                "name": component,
                "image": chosen.image,
                "args": [MODULES[component], "--config", f"{CONFIG_FOLDER}/{component}.json"],
                "env": environment,
                # Models' keys and tools' credentials, by the names that settings and definitions refer to.
                "envFrom": [{"secretRef": {"name": CREDENTIALS, "optional": True}}] if component == GATEWAY else [],
                "ports": [{"name": name, "containerPort": port} for name, port in _ports(chosen, component).items()],
                # Measured: 80 MB each with nothing, 100 with 17,597 agents (docs/scale.md); the bound is for calls, and
                # in control planes for advisories and for the processes that scan and that read repositories.
                "resources": {
                    "requests": {"cpu": "250m", "memory": "256Mi"},
                    "limits": {"memory": chosen.control_plane_memory if component == CONTROL_PLANE else "1Gi"},
                },
                "startupProbe": {**probe, "failureThreshold": 60},
                "readinessProbe": probe,
                "livenessProbe": {
                    "httpGet": {"path": "/livez", "port": PROBED[component]},
                    "periodSeconds": 10,
                    "timeoutSeconds": 5,
                    "failureThreshold": 3,
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }


def _grace(chosen: Installation) -> int:
    """How long a gateway may take to end, in whole seconds: by the settings, where they say."""
    http = chosen.settings.get("http", {})
    pause: float = http.get("drain_pause", DRAIN_PAUSE)
    drain: float = http.get("drain", DRAIN)
    return math.ceil(pause + drain + DRAIN_MARGIN)


def _where(chosen: Installation, component: str) -> Json:
    """Which nodes a pod may use, and how far from its like it stays."""
    like = {"matchLabels": selector(component)}
    unlike = {"weight": 100, "podAffinityTerm": {"topologyKey": NODE, "labelSelector": like}}
    found: Json = {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "DoNotSchedule" if chosen.strict_spread else "ScheduleAnyway",
                # A node that is lost, drained or another's would count as an empty one, and nothing fit beside it.
                "nodeTaintsPolicy": "Honor",
                "labelSelector": like,
                # Each set of a rollout is spread by itself: beside the old pods the new ones would only fill gaps.
                "matchLabelKeys": ["pod-template-hash"],
            }
            for key in (ZONE, NODE)
        ],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [unlike]}},
    }
    if chosen.node_selector:
        found["nodeSelector"] = chosen.node_selector
    if chosen.tolerations:
        found["tolerations"] = list(chosen.tolerations)
    if chosen.priority_class:
        found["priorityClassName"] = chosen.priority_class
    return found


def _pulls(chosen: Installation) -> bool:
    return bool(chosen.knative.pull_secrets)
