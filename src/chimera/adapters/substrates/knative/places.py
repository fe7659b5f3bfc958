"""Where a control plane in a cluster finds what delivery needs, and where it keeps what must outlive it.

Yours to make, and to leave out: the Secret `DELIVERY` (credentials of sources and of registries) and the ConfigMap
`SCANNING` (waivers, small advisories). Both are mounted as folders, so what changes in them counts within a minute or
two and starts nothing anew. `LEDGER` is the installation's, made without data, which is the control plane's: public
keys of all that has signed, and the newest checkpoints of the audit log, beside the database and out of its reach.

A clone of a repository is a cache: its folder is the pod's own, and goes with it. So does what scans fetch, which is as
large as images are: it has a volume apart, since a pod whose volume outgrows its bound is evicted.
"""

from typing import Any

from chimera.adapters.substrates.knative.labelling import labels

Json = dict[str, Any]

DELIVERY, DELIVERY_FOLDER = "chimera-delivery", "/var/run/secrets/chimera-delivery"
SCANNING, SCANNING_FOLDER = "chimera-scanning", "/etc/chimera-scanning"
REPOSITORIES_FOLDER = "/var/lib/chimera-repositories"
ADVISORIES_FOLDER = "/var/lib/chimera-advisories"
SCANS_FOLDER = "/var/lib/chimera-scans"
LEDGER, LEDGER_FOLDER = "chimera-ledger", "/etc/chimera-ledger"
AUDIT_KEYS, PROVENANCE_KEYS, CHECKPOINTS = "audit-keys", "provenance-keys", "checkpoints"
"""What stands in the ledger."""


def ledger(namespace: str) -> Json:
    """The ledger without data, which whoever signs adds as another field manager."""
    meta = {"name": LEDGER, "namespace": namespace, "labels": labels()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}


def told(namespace: str) -> Json:
    """What a control plane is told of these places (`chimera.bootstrap.delivery_places`)."""
    return {
        "namespace": namespace,
        "ledger": LEDGER,
        "repositories": REPOSITORIES_FOLDER,
        "secrets": DELIVERY_FOLDER,
        "scanning": SCANNING_FOLDER,
    }


def volumes(*, repositories_size: str, scans_size: str, advisories_claim: str) -> tuple[list[Json], list[Json]]:
    """A control plane's volumes, and where they are mounted."""
    found: list[Json] = [
        {"name": "repositories", "emptyDir": {"sizeLimit": repositories_size}},
        {"name": "scans", "emptyDir": {"sizeLimit": scans_size}},
        {"name": "delivery", "secret": {"secretName": DELIVERY, "optional": True, "defaultMode": 0o444}},
        {"name": "scanning", "configMap": {"name": SCANNING, "optional": True}},
    ]
    mounts: list[Json] = [
        {"name": "repositories", "mountPath": REPOSITORIES_FOLDER},
        {"name": "scans", "mountPath": SCANS_FOLDER},
        {"name": "delivery", "mountPath": DELIVERY_FOLDER, "readOnly": True},
        {"name": "scanning", "mountPath": SCANNING_FOLDER, "readOnly": True},
    ]
    if advisories_claim:
        claim = {"claimName": advisories_claim, "readOnly": True}
        found.append({"name": "advisories", "persistentVolumeClaim": claim})
        mounts.append({"name": "advisories", "mountPath": ADVISORIES_FOLDER, "readOnly": True})
    return found, mounts


def gateway_volumes() -> tuple[list[Json], list[Json]]:
    """A gateway's: the public keys of the audit log, for checkpoints that are signed elsewhere."""
    return (
        [{"name": "ledger", "configMap": {"name": LEDGER, "optional": True}}],
        [{"name": "ledger", "mountPath": LEDGER_FOLDER, "readOnly": True}],
    )
