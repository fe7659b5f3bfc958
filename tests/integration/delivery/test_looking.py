"""Images are looked into by name, within the room that is given, and nothing is left where they were fetched to."""

import asyncio
import errno
import fcntl
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from chimera.adapters.scanners.knowing import Knowing
from chimera.adapters.scanners.looking import look_into
from chimera.adapters.scratch import Scratch
from chimera.agents.compile import compile_definition
from chimera.agents.validate import check_data
from chimera.delivery.scanning.model import Result, Unjudged
from chimera.delivery.scanning.scan import Knowledge
from chimera.delivery.scanning.settings import ScanningSettings
from chimera.testing.clock import ManualClock
from chimera.testing.definitions import definition
from chimera.testing.images import DEBIAN, TestImage, TestRegistry, layer

HOLDS = """
import time
from chimera.adapters.scratch import Scratch
folder = Scratch().make()
(folder / "blob").write_bytes(b"x" * 1000)
print(folder.parent, flush=True)
time.sleep(600)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files, for this process and those that it starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


async def served(size: int) -> tuple[TestServer, str]:
    """A registry with an image of one layer that takes about `size` bytes as it is packed; its server and name."""
    registry = TestRegistry()
    registry.add("team/agent:1", TestImage(layers=[layer({"etc/os-release": DEBIAN, "a": os.urandom(size)})]))
    server = TestServer(registry.app())
    await server.start_server()
    return server, f"127.0.0.1:{server.port}/team/agent:1"


def names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


def too_large(results: Sequence[Result], most: int) -> list[Unjudged]:
    said = f"larger than {most:,} bytes"
    found = [one for one in results if isinstance(one, Unjudged) and said in one.message]
    assert all("scanning.image_bytes" in one.next_step for one in found)
    return found


@pytest.mark.parametrize(("most", "larger"), [(60_000, True), (200_000, False)])
async def test_an_image_is_fetched_to_the_bound_and_nothing_is_left(most: int, larger: bool, temporary: Path) -> None:
    server, name = await served(100_000)
    try:
        found = await look_into([name], Knowledge().against, (), only=None, credentials=None, largest=most)
    finally:
        await server.close()
    assert bool(too_large(found[name], most)) == larger
    assert not names(temporary)


async def test_the_bound_of_the_build_stage_is_the_setting(temporary: Path) -> None:
    server, name = await served(100_000)
    data = definition("one", specification={"framework": "function", "runtime": name})
    agent = compile_definition(check_data(data), tenant="default").value
    settings = ScanningSettings(registries=(name.partition("/")[0],), image_bytes=60_000)
    try:
        found = await Knowing(settings, ManualClock(), lambda _: None).knowledge("images", [agent])
    finally:
        await server.close()
    assert too_large(found.images[name], 60_000)


async def test_what_a_killed_process_has_fetched_goes_and_what_others_hold_stays(temporary: Path) -> None:
    """A scan that takes too long is killed, and its folder is as large as an image."""
    killed, lives = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDS, stdout=asyncio.subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        folders = []
        for process in (killed, lives):
            assert process.stdout is not None
            folders.append(Path((await process.stdout.readline()).decode().strip()))
        killed.send_signal(signal.SIGKILL)
        await killed.wait()
        (temporary / "another's").mkdir()
        scratch = Scratch()
        own = scratch.make().parent
        assert names(temporary) == {folders[1].name, own.name, "another's"}
        scratch.close()
        assert not own.exists()
        server, name = await served(1_000)
        lives.send_signal(signal.SIGKILL)
        await lives.wait()
        try:
            await look_into([name], Knowledge().against, (), only=None, credentials=None, largest=100_000)
        finally:
            await server.close()
        assert names(temporary) == {"another's"}, "it is looked for before an image is fetched"
    finally:
        for process in (killed, lives):
            if process.returncode is None:
                process.kill()
                await process.wait()


def test_where_nothing_can_be_locked_nothing_is_cleared(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refused)
    used, other = Scratch(), Scratch()
    folder = used.make()
    other.make()
    assert folder.is_dir()
    used.close()
    other.close()
    assert names(temporary) == set()
