"""The ledger: a ConfigMap for what must stand beside the database, and stay when a pod goes.

Public keys of all that has signed, a line for each, and the newest checkpoints of the audit log. Every checkpoint is in
the database; here are the newest, which vouch for all that is before them, out of reach of who can write the database.
Each text has a field manager of its own, so that no writer takes away what another has written, and whoever writes one
holds a lease.

Signing works in threads, so this blocks: it is called from threads alone, and asks the cluster on the event loop.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.objects import Meta, Resource
from chimera.immune.audit.checkpoint import Checkpoint
from chimera.immune.audit.errors import InvalidNote

T = TypeVar("T")

KEPT_CHECKPOINTS = 32
LONGEST_LOOK = 60.0

_CHECKPOINT = msgspec.json.Decoder(Checkpoint)


class ConfigMap(Struct, frozen=True, kw_only=True):
    """A ConfigMap, with its texts."""

    metadata: Meta = Meta()
    data: dict[str, str] = {}


CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", ConfigMap)


class Ledger:
    """One ConfigMap. Made inside the event loop, used in threads."""

    def __init__(self, api: Kubernetes, *, namespace: str, name: str) -> None:
        """Ask nothing yet; the installation has made it."""
        self._api = api
        self._namespace, self._name = namespace, name
        self._loop = asyncio.get_running_loop()

    def lines(self, key: str) -> list[str]:
        """The lines of one text; none where there is none."""
        found = self._wait(self._api.get(CONFIG_MAPS, self._namespace, self._name))
        return [line for line in found.data.get(key, "").splitlines() if line.strip()]

    def put(self, key: str, lines: Sequence[str]) -> None:
        """Write one text anew; it is kept by the cluster when this returns."""
        manifest = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "data": {key: "".join(f"{line}\n" for line in lines)},
        }
        self._wait(self._api.apply(CONFIG_MAPS, manifest, force=True, manager=f"chimera-ledger-{key}"))

    def _wait(self, asked: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(asked, self._loop).result(LONGEST_LOOK)


class LedgerKeys:
    """Public keys in a ledger (the port `PublicKeys`)."""

    def __init__(self, ledger: Ledger, key: str) -> None:
        """Those of the text `key`."""
        self._ledger = ledger
        self._key = key

    def lines(self) -> list[str]:
        """See `PublicKeys`."""
        return self._ledger.lines(self._key)

    def add(self, line: str) -> None:
        """See `PublicKeys`."""
        before = self.lines()
        if line not in before:
            self._ledger.put(self._key, [*before, line])


class LedgerCheckpoints:
    """A `CheckpointFile` in a ledger, of which the newest checkpoints stay."""

    def __init__(self, ledger: Ledger, key: str) -> None:
        """Those of the text `key`, in the form of the file on one machine: JSON, one a line."""
        self._ledger = ledger
        self._key = key

    def read(self) -> Iterator[Checkpoint]:
        """See `CheckpointFile`."""
        for number, line in enumerate(self._ledger.lines(self._key), start=1):
            try:
                yield _CHECKPOINT.decode(line)
            except msgspec.MsgspecError as error:
                raise InvalidNote(
                    f"line {number} of {self._key} in the ledger is no checkpoint: {error}",
                    next_step="somebody has altered the ConfigMap: see the guide of the audit log",
                ) from None

    def append(self, checkpoints: Sequence[Checkpoint]) -> None:
        """See `CheckpointFile`."""
        both = {one.size: one for one in (*self.read(), *checkpoints)}
        kept = [both[size] for size in sorted(both)][-KEPT_CHECKPOINTS:]
        self._ledger.put(self._key, [msgspec.json.encode(one).decode() for one in kept])
