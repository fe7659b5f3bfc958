"""Advisories from where the operator keeps them: folders, files and addresses, as OSV's own exports lie there.

A source is a `.json` (a record, or a list of them), a `.zip` of those (`all.zip` of an ecosystem), or a folder of both,
however deep. One record is read at a time, so what is held is the index. Records that can't be read are counted and
told of: whoever scans must then say that something couldn't be judged.
"""

import asyncio
import datetime
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import aiohttp
import msgspec
from yarl import URL

from chimera.delivery.scanning.advisories import Advisories, OsvRecord
from chimera.delivery.scanning.errors import AdvisoriesUnreadable

LARGEST_RECORD = 16 * 1024**2
LARGEST_LIST = 512 * 1024**2
LARGEST_DOWNLOAD = 2 * 1024**3
MOST_RECORDS = 3_000_000
LONGEST_DOWNLOAD = 600.0
CLOCKS_DIFFER = 86_400.0
MOST_FAULTS = 20

_ZIP = b"PK"
_ONE = msgspec.json.Decoder(OsvRecord)
_MANY = msgspec.json.Decoder(list[msgspec.Raw])


async def load_advisories(sources: Iterable[str], *, now: float) -> Advisories:
    """The index of all that `sources` name; raises `AdvisoriesUnreadable` for a source that isn't there."""
    index = Advisories()
    for source in sources:
        if source.startswith(("https://", "http://")):
            await asyncio.to_thread(_take_bytes, index, source, await _download(source), now)
        else:
            await asyncio.to_thread(_take_path, index, Path(source), now)
    return index


def _take_path(index: Advisories, path: Path, now: float) -> None:
    before = index.records + len(index.faults)
    try:
        if path.is_dir():
            for here, folders, names in os.walk(path, onerror=_raise):
                folders.sort()
                for name in sorted(names):
                    if name.endswith((".json", ".zip")):
                        _take_file(index, Path(here, name), now)
        else:
            _take_file(index, path, now)
    except OSError as error:
        raise AdvisoriesUnreadable(
            f"the advisories {path} can't be read: {error.strerror or error}", next_step="check `scanning.advisories`"
        ) from error
    if index.records + len(index.faults) == before:
        raise AdvisoriesUnreadable(
            f"there are no advisories in {path}", next_step="put OSV records (.json, .zip) there"
        )


def _take_file(index: Advisories, path: Path, now: float) -> None:
    if path.exists() and not path.is_file():  # a pipe or device has no end
        _fault(index, str(path), "it is no file")
    elif path.name.endswith(".zip"):
        with path.open("rb") as file:
            _take_zip(index, str(path), file, now)
    elif path.stat().st_size > LARGEST_LIST:
        _fault(index, str(path), "it is too large")
    else:
        _take_json(index, str(path), path.read_bytes(), now)


def _take_bytes(index: Advisories, name: str, data: bytes, now: float) -> None:
    if data.startswith(_ZIP):
        _take_zip(index, name, io.BytesIO(data), now)
    else:
        _take_json(index, name, data, now)


def _take_zip(index: Advisories, name: str, file: io.BufferedIOBase, now: float) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if info.is_dir() or not info.filename.endswith(".json"):
                    continue
                if info.file_size > LARGEST_RECORD:
                    _fault(index, f"{name}!{info.filename}", "it is too large")
                    continue
                with archive.open(info) as stream:
                    _take_json(index, f"{name}!{info.filename}", stream.read(LARGEST_RECORD + 1), now)
    # zipfile raises NotImplementedError for what it doesn't know, RuntimeError for what is encrypted; bz2 an OSError
    # without a number, which one of the file itself has.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        _fault(index, name, f"the zip can't be read: {error}")


def _take_json(index: Advisories, name: str, data: bytes, now: float) -> None:
    for raw in _records(data):
        if index.records >= MOST_RECORDS:
            raise AdvisoriesUnreadable(
                f"{name}: more than {MOST_RECORDS:,} advisories", next_step="name those of the ecosystems in use alone"
            )
        try:
            record = _ONE.decode(raw)
            modified = datetime.datetime.fromisoformat(record.modified)
            if modified.tzinfo is None:
                modified = modified.replace(tzinfo=datetime.UTC)
            time = modified.timestamp()
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
            _fault(index, name, str(error))
            continue
        # A time to come says nothing of how lately somebody looked.
        index.add(record, time if time <= now + CLOCKS_DIFFER else 0.0)


def _records(data: bytes) -> Iterator[bytes | msgspec.Raw]:
    if not data.lstrip().startswith(b"["):
        yield data
        return
    try:
        yield from _MANY.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        yield data  # which is no record either, and is counted as one that can't be read


def _fault(index: Advisories, name: str, reason: str) -> None:
    if len(index.faults) < MOST_FAULTS:
        index.faults.append(f"{name}: {reason[:300]}")


def _raise(error: OSError) -> None:
    raise error


async def _download(url: str) -> bytes:
    limits = aiohttp.ClientTimeout(total=LONGEST_DOWNLOAD, sock_connect=30, sock_read=60)
    try:
        async with aiohttp.ClientSession(timeout=limits, trust_env=True) as session, session.get(url) as response:
            if unsafe := unencrypted(url, [one.url for one in (*response.history, response)]):
                raise _unreachable(url, f"it leads to {unsafe}, without encryption")
            if response.status != 200:
                raise _unreachable(url, f"it answers {response.status}")
            data = bytearray()
            async for piece in response.content.iter_chunked(1024 * 1024):
                data += piece
                if len(data) > LARGEST_DOWNLOAD:
                    raise _unreachable(url, f"it is larger than {LARGEST_DOWNLOAD:,} bytes")
            return bytes(data)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _unreachable(url, str(error) or type(error).__name__) from error


def unencrypted(asked: str, way: Iterable[URL]) -> URL | None:
    """Where the way of an answer left the encryption that was asked for: what came from there may be anybody's."""
    return next((one for one in way if one.scheme != "https"), None) if asked.startswith("https://") else None


def _unreachable(url: str, reason: str) -> AdvisoriesUnreadable:
    return AdvisoriesUnreadable(
        f"the advisories at {url} can't be had: {reason}", next_step="check the address, or keep a copy in a folder"
    )
