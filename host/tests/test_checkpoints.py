"""Checkpoints of a call: what travels together, in which order, and what becomes of those that fail or are given up."""

import asyncio

import pytest

from chimera_host.checkpoints import MOST_ASKS, MOST_BYTES, Checkpoints, NotKept
from chimera_host.contract.state import (
    CheckpointAnswer,
    CopyThread,
    GetCheckpoint,
    PutCheckpoint,
    PutWrites,
    Several,
    StoredWrite,
    Typed,
)
from chimera_host.errors import CallCancelled, PlatformUnavailable
from chimera_host.testing.doubles import until


class Platform:
    """Records requests; holds them up while `open` isn't set, and fails with `error`."""

    def __init__(self) -> None:
        self.requests = []
        self.open = asyncio.Event()
        self.open.set()
        self.error = None

    async def send(self, ask):
        self.requests.append(ask.asks if isinstance(ask, Several) else (ask,))
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return CheckpointAnswer(threads=("answered",))

    @property
    def names(self):
        return [[getattr(ask, "checkpoint", "?") for ask in request] for request in self.requests]


def put(name, size=1, thread="mine", namespace=""):
    value = Typed(kind="bytes", data=b"x" * size)
    return PutCheckpoint(thread=thread, namespace=namespace, checkpoint=name, value=value, metadata=value)


def writes(name):
    one = StoredWrite(task="t", idx=0, channel="c", value=Typed(kind="bytes", data=b"x"))
    return PutWrites(thread="mine", checkpoint=name, writes=(one,))


@pytest.fixture
def platform():
    return Platform()


@pytest.fixture
def kept(platform):
    return Checkpoints(platform.send, None, thread="mine", fresh=True)


async def test_what_is_saved_in_one_moment_travels_together(platform, kept):
    await asyncio.gather(kept.save(writes("0")), kept.save(put("1")), kept.save(writes("1")))
    await kept.save(put("2"))
    assert platform.names == [["0", "1", "1"], ["2"]]


async def test_what_comes_meanwhile_waits_and_keeps_its_order(platform, kept):
    platform.open.clear()
    first = asyncio.create_task(kept.save(put("1")))
    await until(lambda: platform.requests)
    later = [asyncio.create_task(kept.save(put(str(number)))) for number in range(2, 6)]
    asked = asyncio.create_task(kept.ask(GetCheckpoint(thread="mine", checkpoint="asked")))
    await asyncio.sleep(0.01)
    assert platform.names == [["1"]] and not any(task.done() for task in (first, *later))
    platform.open.set()
    await asyncio.gather(first, *later)
    assert (await asked).threads == ("answered",)
    assert platform.names == [["1"], ["2", "3", "4", "5"], ["asked"]]


async def test_a_request_holds_so_much(platform, kept):
    await asyncio.gather(*(kept.save(put(str(number), size=MOST_BYTES // 4)) for number in range(3)))
    assert platform.names == [["0"], ["1"], ["2"]]  # each counts twice: its metadata are as large
    platform.requests.clear()
    await asyncio.gather(*(kept.save(put(str(number))) for number in range(MOST_ASKS + 1)))
    assert [len(request) for request in platform.requests] == [MOST_ASKS, 1]


async def test_a_failure_is_told_to_all_that_it_hit_and_to_nobody_else(platform, kept):
    platform.error = PlatformUnavailable("away", retry_after=1.0)
    failed = await asyncio.gather(kept.save(put("1")), kept.save(put("2")), return_exceptions=True)
    assert [(type(error), error.code, error.retry_after) for error in failed] == [
        (NotKept, "platform-unavailable", 1.0)
    ] * 2
    with pytest.raises(NotKept):
        await kept.settled()
    platform.error = None
    await kept.save(put("3"))
    await kept.settled()


async def test_a_cancelled_call_is_no_failure_of_the_platform(platform, kept):
    platform.error = CallCancelled("gone")
    with pytest.raises(CallCancelled):
        await kept.save(put("1"))


async def test_who_waits_is_sent_by_the_next_when_the_sender_is_given_up(platform, kept):
    platform.open.clear()
    sender = asyncio.create_task(kept.save(put("1")))
    await until(lambda: platform.requests)
    other = asyncio.create_task(kept.save(put("2")))
    await asyncio.sleep(0)
    sender.cancel()
    await asyncio.gather(sender, return_exceptions=True)
    platform.open.set()
    await other
    assert platform.names == [["1"], ["1", "2"]]


async def test_settled_waits_for_the_checkpoint_and_not_for_writes(platform, kept):
    await kept.settled()
    platform.open.clear()
    saving = asyncio.create_task(kept.save(put("1")))
    await until(lambda: platform.requests)
    settled = asyncio.create_task(kept.settled())
    await asyncio.sleep(0.01)
    assert not settled.done()
    platform.open.set()
    await asyncio.gather(saving, settled)
    platform.open.clear()
    writing = asyncio.create_task(kept.save(writes("1")))
    await kept.settled()
    platform.open.set()
    await writing


async def test_what_is_held_travels_with_the_next_or_before_anything_is_asked(platform, kept):
    kept.hold(put("0"))
    await asyncio.sleep(0)
    assert platform.names == []
    await kept.save(put("1"))
    kept.hold(put("2"))
    await kept.settled()
    kept.hold(put("3"))
    await kept.ask(GetCheckpoint(thread="mine", checkpoint="asked"))
    assert platform.names == [["0", "1"], ["2"], ["3"], ["asked"]]


async def test_a_new_thread_is_known_to_be_empty_until_something_is_saved(platform, kept):
    assert kept.is_empty("mine", "") and kept.is_empty("mine", "inner") and not kept.is_empty("other", "")
    await kept.save(put("1"))
    assert not kept.is_empty("mine", "") and kept.is_empty("mine", "inner")
    await kept.ask(CopyThread(thread="other", target="mine"))
    assert not kept.is_empty("mine", "inner")
    assert not Checkpoints(platform.send, None, thread="mine", fresh=False).is_empty("mine", "")
