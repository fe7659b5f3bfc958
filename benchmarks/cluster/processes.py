"""The operator and the control plane as processes of this machine that reach a cluster by its kubeconfig.

They are the same programs as in pods. As processes here their memory and CPU time can be read, and simulated nodes
can't run them.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from benchmarks import machine
from benchmarks.platform import Broken, free_port

READY = 60.0
KEY = "a-key-for-one-benchmark"


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """One of them: where it answers, and which process it is."""

    name: str
    url: str
    pid: int

    def memory(self) -> float:
        """MiB of it, by proportional set size."""
        return machine.proportional(self.pid) / machine.MIB

    def cpu(self) -> float:
        """CPU seconds so far."""
        return machine.cpu_seconds(self.pid)


@asynccontextmanager
async def control_plane(
    folder: Path, database: str, kubeconfig: Path, knative: dict[str, Any]
) -> AsyncIterator[Program]:
    """A control plane that keeps cells."""
    key = folder / "control-plane.key"
    key.write_text(KEY)
    key.chmod(0o600)
    port = free_port()
    config = {
        **{"database": database, "port": port, "key_file": str(key), "kubeconfig": str(kubeconfig)},
        **{"knative": knative, "max_hosts": 1000},
    }
    async with _running(folder, "control_plane", config, port) as program:
        yield program


@asynccontextmanager
async def operator(folder: Path, database: str, kubeconfig: Path, cells: str) -> AsyncIterator[Program]:
    """An operator that carries resources of the namespaces that name its own, which is that of cells."""
    port = free_port()
    config = {"database": database, "port": port, "kubeconfig": str(kubeconfig), "cells": cells, "namespace": cells}
    async with _running(folder, "operator", config, port) as program:
        yield program


@asynccontextmanager
async def _running(folder: Path, name: str, config: dict[str, Any], port: int) -> AsyncIterator[Program]:
    file, log = folder / f"{name}.json", folder / f"{name}.log"
    file.write_bytes(msgspec.json.encode(config))
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"chimera.bootstrap.{name}", "--config", str(file)), stdout=output, stderr=output
        )
    try:
        await _until_ready(url, process, log)
        yield Program(name=name, url=url, pid=process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _until_ready(url: str, process: "asyncio.subprocess.Process", log: Path) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(READY):
        while True:
            if process.returncode is not None:
                told = await asyncio.to_thread(log.read_text, errors="replace")
                raise Broken(f"{log.stem} did not start: {told[-1000:]}")
            try:
                async with session.get(url + "/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
