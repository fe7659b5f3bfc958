"""Where a control plane in a cluster has what a home has on one machine: folders that are mounted, and the ledger."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from chimera.adapters.scanners.knowing import Places
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.ledger import Ledger
from chimera.adapters.substrates.knative.places import ADVISORIES_FOLDER
from chimera.bootstrap.sync_parts import COPIES, SyncParts, make_sync, mounted_secrets, sync_secrets
from chimera.delivery.service import Changes


class DeliveryPlaces(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Folders for copies of `repositories`, of `secrets` and of files for `scanning`; the `ledger`, and where it is."""

    namespace: str
    ledger: str
    repositories: str
    secrets: str
    scanning: str


def make_ledger(places: DeliveryPlaces | None, api: Kubernetes | None) -> Ledger | None:
    """The ledger, in a cluster. Made inside the event loop."""
    return None if places is None or api is None else Ledger(api, namespace=places.namespace, name=places.ledger)


def scanning_places(places: DeliveryPlaces | None) -> Places:
    """Where the files are that settings of `scanning` name."""
    if places is None:
        return Places()
    return Places(
        files=Path(places.scanning),
        secrets=Path(places.secrets),
        advisories=Path(ADVISORIES_FOLDER),
        mounted=True,
    )


def follow(
    database: Database,
    catalogue: Catalogue,
    changes: Changes,
    changed: Callable[[], None],
    *,
    group: Mapping[str, Any],
    home: str | None,
    places: DeliveryPlaces | None,
    environ: Mapping[str, str],
    memory: int,
) -> SyncParts | None:
    """What follows branches, where there is a folder for copies: the home's, or the pod's. Raises `SettingsError`."""
    if places is not None:
        copies, secrets = Path(places.repositories), mounted_secrets(Path(places.secrets), environ)
    elif home is not None:
        copies, secrets = Path(home) / COPIES, sync_secrets(Path(home), environ)
    else:
        return None
    return make_sync(database, catalogue, changes, changed, group=group, copies=copies, secrets=secrets, memory=memory)
