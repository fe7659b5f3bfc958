"""Evidence of revisions put together: the locks of runtimes, requirements in bundles, models by name, and the key ring.

In the home: `provenance.key`, made when the control plane first looks what there is to sign, and
`provenance/public-keys`. In a cluster it is made of a Secret that control planes alone have, and public keys are in the
ledger. Without either nothing is signed.
"""

import asyncio
import importlib.metadata
import importlib.resources
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from chimera.adapters.signing.ring import FileRing, PublicKeys, SecretRing
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.evidence import EvidenceStorage
from chimera.agents.archive import read_archive
from chimera.agents.compile import CompiledAgent
from chimera.agents.requirements import FILE_NAME
from chimera.agents.spec import PYTHON_RUNTIME
from chimera.delivery.evidence.bom import PLATFORM, KnownModel, Lockfile, Materials, lockfile
from chimera.delivery.evidence.service import Evidence
from chimera.kernel.clock import Clock, SystemClock


class CatalogueMaterials:
    """What goes into revisions (the port `MaterialsOf`): this release's locks, and what the catalogue keeps."""

    def __init__(self, catalogue: Catalogue, release: str, models: Mapping[str, KnownModel]) -> None:
        """Read bundles of `catalogue`; `models` are those of the settings."""
        self._catalogue = catalogue
        self._release = release
        self._models = models

    async def materials(self, agent: CompiledAgent) -> Materials:
        """See `MaterialsOf`."""
        document = agent.value.agent
        requirements = None
        if document.source is not None and document.source.requirements is not None:
            data = await self._catalogue.bundle(document.tenant, document.source.bundle)
            if data is not None:
                files = await asyncio.to_thread(read_archive, data, name="bundle.tar.gz")
                requirements = lockfile(FILE_NAME, files[FILE_NAME].data.decode("utf-8-sig"))
        runtime = lock_of(document.framework) if agent.value.runtime == PYTHON_RUNTIME else None
        return Materials(release=self._release, runtime=runtime, requirements=requirements, models=self._models)


@cache
def lock_of(framework: str) -> Lockfile:
    """The lock of a framework's environment, as this release has it."""
    name = f"{framework}.lock"
    return lockfile(name, (importlib.resources.files("chimera") / "runtimes" / name).read_text("utf-8"))


def known_models(models: Mapping[str, Any] | None) -> dict[str, KnownModel]:
    """What the settings say of models; nothing of those that are names alone."""
    found = {}
    for name, one in (models or {}).items():
        if isinstance(one, Mapping) and "provider" in one:
            found[name] = KnownModel(provider=str(one["provider"]), model=one.get("model"))
    return found


def make_evidence(
    database: Database,
    catalogue: Catalogue,
    *,
    home: str | None = None,
    key_file: str | None = None,
    public_keys: PublicKeys | None = None,
    models: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
) -> Evidence:
    """Evidence of the revisions of `catalogue`, signed by the Secret in `key_file` or the key ring of `home`.

    Public keys of the Secret's are noted in `public_keys`.
    """
    release = importlib.metadata.version(PLATFORM)
    materials = CatalogueMaterials(catalogue, release, known_models(models))
    here = None if home is None else Path(home)
    ring = FileRing(here) if key_file is None else SecretRing(Path(key_file), public_keys)
    return Evidence(EvidenceStorage(database), materials, ring, clock or SystemClock(), release=release)
