"""Validates and applies a folder of definitions over the public API: what `chimera apply` does, without its printing.

Files are read and hashed, one request asks which are live unchanged, and the rest goes up as text in chunks of one
batch; the platform parses, checks and compiles it. The next chunk is on its way while the last is being worked on.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.http import Client
from chimera.agents.catalogue import source_digest

TENANT = "/v1/tenants/default"
CHUNK = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Applied:
    """What an apply did: counts by outcome, seconds of wall time, and CPU seconds of the client."""

    counts: dict[str, Any]
    seconds: float
    cpu: float


def apply(client: Client, files: list[Path], tenant: str = TENANT) -> Applied:
    """Apply `files` to a tenant (its path); raises `Refused` with the platform's reason."""
    began, cpu = time.perf_counter(), time.process_time()
    texts = [file.read_bytes() for file in files]
    sources = [source_digest(text) for text in texts]
    told = client.post(f"{tenant}/check", {"sources": sources})
    live = set(told["live"])
    changed = [
        {"source": source, "file": file.name, "text": text.decode()}
        for file, text, source in zip(files, texts, sources, strict=True)
        if source not in live
    ]
    counts: dict[str, Any] = {"unchanged": len(files) - len(changed)}
    if changed:
        batch = client.post(f"{tenant}/batches", {})["batch"]
        where = f"{tenant}/batches/{batch}"
        chunks = range(0, len(changed), CHUNK)

        def send(first: int) -> list[Any]:
            body = {"first": first, "items": changed[first : first + CHUNK]}
            return list(client.post(f"{where}/definitions", body)["results"])

        with ThreadPoolExecutor(max_workers=1) as sender:
            faulty = [one for results in sender.map(send, chunks) for one in results if one.get("faults")]
        if faulty:
            raise ValueError(f"{len(faulty)} definitions are not valid, the first: {faulty[0]}")
        counts |= client.post(f"{where}/commit", {"expect": told["sequence"]})
    return Applied(counts=counts, seconds=time.perf_counter() - began, cpu=time.process_time() - cpu)
