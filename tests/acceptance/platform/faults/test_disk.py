"""A disk that is full or fails, under load: writes are refused as such, calls without state go on, all comes back."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chimera.testing.faults.calls import KINDS, Faults, compiler
from chimera.testing.faults.load import AGENTS, Load, under_load

pytestmark = [pytest.mark.slow, pytest.mark.skipif(compiler() is None, reason="needs a C compiler (cc)")]
SESSION = {"state": {"values": {"value": "kept"}}, "version": 0}


@pytest.fixture
def faults(tmp_path: Path) -> Iterator[Faults]:
    with Faults(tmp_path, "chimera.db") as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_writes_are_refused_reads_and_plain_calls_go_on_and_nothing_is_lost(
    start: Callable[..., Any], faults: Faults, audit_is_whole: Callable[[Any], None], kind: str
) -> None:
    platform = start(**faults.environ)

    async def break_the_disk(load: Load) -> None:
        steady = f"{AGENTS}steady"
        await asyncio.sleep(1)
        await load.client.certain("PUT", f"{steady}/sessions/before", SESSION)
        for time in range(2):
            faults.fail(**KINDS[kind])
            refused = None
            for _ in range(20):
                refused = await load.client.ask("PUT", f"{steady}/sessions/during", SESSION)
                assert refused is not None and refused[0] in (500, 503, 507), refused
                assert refused[1]["code"] and refused[1]["next_step"], refused
                called = await load.client.ask("POST", f"{steady}/invoke", {"input": "hello"})
                assert called is not None and called[0] == 200, called
                read = await load.client.ask("GET", f"{steady}/sessions/before")
                assert read is not None and read[1]["state"]["values"] == {"value": "kept"}, read
                await asyncio.sleep(0.05)
            if kind == "the disk is full":
                assert refused is not None and (refused[0], refused[1]["code"]) == (507, "storage-full"), refused
            assert faults.failed, "nothing failed"
            faults.fail()
            await load.client.certain("PUT", f"{steady}/sessions/after-{time}", SESSION)
            await asyncio.sleep(1)

    load = asyncio.run(under_load(platform.url, platform.key, break_the_disk))

    print(kind, load.counts(), load.client.seen)
    assert all(load.counts().values())
    audit_is_whole(platform)
