"""Where a verification finds the log, its checkpoints and its keys; and the part of signing that needs care."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from chimera.adapters.signing.ed25519 import check_signature, read_key
from chimera.adapters.signing.files import FileOfCheckpoints, read_export
from chimera.adapters.storage.audit import AuditStorage
from chimera.adapters.storage.naming import open_named
from chimera.entrypoints.cli import output as out
from chimera.entrypoints.cli.client import Api, connect
from chimera.entrypoints.cli.places import home_folder
from chimera.immune.audit.api import CheckpointPage, LogEnds, Proof, Proposal
from chimera.immune.audit.chain import link
from chimera.immune.audit.checkpoint import Checkpoint, check, head_of, parse_text
from chimera.immune.audit.errors import InvalidNote, UntrustedCheckpoint
from chimera.immune.audit.merkle import Frontier, is_consistent, root_of_inclusion
from chimera.immune.audit.model import ChainedEntry, Head
from chimera.immune.audit.note import PublicKey, parse_public_key, sign
from chimera.immune.audit.ports import Log
from chimera.immune.audit.reading import verify
from chimera.immune.audit.verify import Report

SHOWN = 10
EVERYTHING = "/v1/tenants/*/audit"
_ENTRY = msgspec.json.Decoder(ChainedEntry)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """What is verified, and against what, as the command line says it."""

    database: str | None = None
    database_password: str | None = None
    exports: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    public_keys: tuple[str, ...] = ()
    trusted: int | None = None


class ApiLog:
    """The log of a running platform; the key must be one of the platform's own."""

    def __init__(self, api: Api) -> None:
        """Ask `api`."""
        self._api = api

    async def head(self) -> Head:
        """See `Log`."""
        ends = await self._ends()
        return Head(seq=ends.last, hash=ends.hash)

    async def first(self) -> int | None:
        """See `Log`."""
        return (await self._ends()).first or None

    async def entries(self, after: int, limit: int) -> Sequence[ChainedEntry]:
        """See `Log`."""
        lines = self._api.raw_lines(f"{EVERYTHING}/export", {"after": after, "limit": limit})
        return [_ENTRY.decode(line) async for line in lines]

    async def checkpoints(self, after: int, limit: int) -> Sequence[Checkpoint]:
        """See `Log`."""
        query = {"after": after, "limit": min(limit, 1_000)}
        page: CheckpointPage = await _get(self._api, f"{EVERYTHING}/checkpoints", query, CheckpointPage)
        return page.checkpoints

    async def _ends(self) -> LogEnds:
        ends: LogEnds = await _get(self._api, f"{EVERYTHING}/ends", {}, LogEnds)
        return ends


class ExportedLog:
    """Exported or archived files, read once from their beginning, with the checkpoints that are in them."""

    def __init__(self, files: Sequence[str]) -> None:
        """Read `files` in their order."""
        self._files = files
        self._rest = self._lines()
        self._found: list[Checkpoint] | None = None

    async def head(self) -> None:
        """See `Log`: nothing says where an export should end, but for checkpoints."""

    async def first(self) -> int | None:
        """See `Log`."""
        found = next(self._lines(), None)
        return None if found is None else found.seq

    async def entries(self, after: int, limit: int) -> Sequence[ChainedEntry]:
        """See `Log`."""
        if after == 0:
            self._rest = self._lines()
        return list(islice((one for one in self._rest if one.seq > after), limit))

    async def checkpoints(self, after: int, limit: int) -> Sequence[Checkpoint]:
        """See `Log`."""
        if self._found is None:
            every = (one for name in self._files for one in read_export(Path(name)))
            self._found = sorted((one for one in every if isinstance(one, Checkpoint)), key=lambda one: one.size)
        return [one for one in self._found if one.size > after][:limit]

    def _lines(self) -> Iterator[ChainedEntry]:
        for name in self._files:
            for one in read_export(Path(name)):
                if isinstance(one, ChainedEntry):
                    yield one


async def verified(options: Mapping[str, Any], sources: Sources, progress: Callable[[int, int], None]) -> Report:
    """Verify what `sources` say; without any, the log of the running platform."""
    keys = keys_of(options, sources.public_keys)
    if sources.exports:
        # Not the home's checkpoints: they may be of entries that the export does not reach.
        return await _verified(ExportedLog(sources.exports), keys, sources.files, sources, progress)
    files = sources.files or tuple(
        str(file) for file in [home_folder(options) / "audit" / "checkpoints"] if file.exists()
    )
    if sources.database is not None:
        database = open_named(sources.database, sources.database_password, os.environ)
        try:
            return await _verified(AuditStorage(database), keys, files, sources, progress)
        finally:
            database.close()
    async with connect(options) as api:
        return await _verified(ApiLog(api), keys, files, sources, progress)


def keys_of(options: Mapping[str, Any], given: Sequence[str]) -> tuple[PublicKey, ...]:
    """The log's public keys: as given, each itself or a file of lines; else the home's. Raises `InvalidNote`."""
    texts: list[str] = []
    for one in given or [str(home_folder(options) / "audit" / "public-keys")]:
        file = Path(one)
        if file.exists():
            texts += [line for line in file.read_text("utf-8").splitlines() if line.strip() and line[0] != "#"]
        elif "+" in one:
            texts.append(one)
        else:
            raise InvalidNote(
                f"there is no file of public keys at {one}",
                next_step="give --public-key: a key as `chimera audit key` prints it, or a file of such lines",
            )
    return tuple(parse_public_key(text) for text in texts)


async def newest_checkpoints(api: Api) -> list[Checkpoint]:
    """The last few checkpoints, smallest first."""
    found: list[Checkpoint] = []
    after = 0
    while True:
        query = {"after": after, "limit": 1_000}
        page: CheckpointPage = await _get(api, f"{EVERYTHING}/checkpoints", query, CheckpointPage)
        found = [*found, *page.checkpoints][-SHOWN:]
        if page.next is None:
            return found
        after = page.next


def told(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint as a row of a table."""
    head = head_of(checkpoint)
    root = head.root.hex()
    return {"size": f"{head.size:,}", "time": out.moment(checkpoint.at), "log": head.origin, "root": f"{root[:16]}…"}


async def proved(api: Api, entry: int, keys: Sequence[PublicKey]) -> Proof:
    """The proof of an entry, checked here; raises `UntrustedCheckpoint` where it proves nothing."""
    proof: Proof = await _get(api, api.path("audit", "entries", str(entry), "proof"), {}, Proof)
    head = check(proof.checkpoint, keys, check_signature)
    made = link(proof.previous, entry, bytes(proof.entry.entry))
    if proof.entry.seq != entry or root_of_inclusion(entry - 1, head.size, made, proof.hashes) != head.root:
        raise UntrustedCheckpoint(f"what was answered does not prove entry {entry}", next_step="chimera audit verify")
    return proof


async def sign_next(api: Api, key: Path, remember: Path) -> Checkpoint | None:
    """Sign the next checkpoint, if it goes on from what was signed here before; None where there is nothing to sign.

    It is remembered once the platform has it. A crash in between makes the next one go on from the one before.
    """
    signer, signed = read_key(key), FileOfCheckpoints(remember)
    before = max(signed.read(), key=lambda one: one.size, default=None)
    since = {} if before is None else {"since": before.size}
    proposal: Proposal | None = await _get(api, "/v1/audit/proposal", since, Proposal | None)
    if proposal is None:
        return None
    head = parse_text(proposal.text)
    try:
        tree = Frontier(proposal.size, proposal.frontier)
    except ValueError as error:
        raise _refused(str(error)) from None
    if (head.size, head.root) != (proposal.size, tree.root()):
        raise _refused("its text is not of its tree")
    if head.origin != signer.public.name:
        raise _refused(f"it is of the log {head.origin}, the key is of {signer.public.name}")
    if before is not None:
        old = check(before, (signer.public,), check_signature)
        if proposal.since != old.size or not is_consistent(old.size, head.size, old.root, head.root, proposal.proof):
            raise _refused(f"the log does not begin with the {old.size} entries that were signed here")
    note = sign(proposal.text, signer)
    made = Checkpoint(size=head.size, at=time.time(), last=proposal.last, frontier=proposal.frontier, note=note)
    await api.call("POST", "/v1/audit/checkpoints", made)
    signed.append([made])
    return made


async def _verified(
    log: Log,
    keys: Sequence[PublicKey],
    files: Sequence[str],
    sources: Sources,
    progress: Callable[[int, int], None],
) -> Report:
    kept = [(name, FileOfCheckpoints(_there(Path(name)))) for name in files]
    return await verify(log, keys=keys, checker=check_signature, files=kept, trusted=sources.trusted, progress=progress)


async def _get(api: Api, path: str, query: Mapping[str, Any], kind: Any) -> Any:
    """An answer as its type, decoded from its bytes: those of an entry must stay what they are."""
    return msgspec.json.decode(b"".join([line async for line in api.raw_lines(path, query)]), type=kind)


def _there(file: Path) -> Path:
    if not file.exists():
        raise InvalidNote(f"there is no file of checkpoints at {file}", next_step="give one that is there")
    return file


def _refused(why: str) -> UntrustedCheckpoint:
    return UntrustedCheckpoint(
        f"the proposed checkpoint is not signed: {why}", next_step="run `chimera audit verify` before anything else"
    )
