import asyncio
import threading
from contextvars import ContextVar

import pytest

from chimera_host.testing.doubles import until
from chimera_host.threads import WatchedThreads

who = ContextVar("who", default="nobody")


async def test_results_errors_and_context_come_through():
    threads = WatchedThreads(4)
    who.set("me")
    assert (await threads.run(who.get))[0] == "me"
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run(lambda: next(iter(())))


async def test_cpu_time_is_measured():
    _, cpu = await WatchedThreads(1).run(lambda: sum(range(2_000_000)))
    assert cpu > 0.005


async def test_no_more_threads_than_allowed_and_they_are_reused():
    threads = WatchedThreads(3)
    gate = threading.Event()
    running = [asyncio.ensure_future(threads.run(gate.wait)) for _ in range(10)]
    await until(lambda: threads.waiting == 7)
    assert threads.alive == 3
    gate.set()
    await asyncio.gather(*running)
    for _ in range(20):
        await threads.run(lambda: None)
    assert threads.alive == 3


async def test_a_cancelled_run_ends_when_its_thread_is_back():
    threads = WatchedThreads(1)
    started, gate = threading.Event(), threading.Event()

    def work():
        started.set()
        gate.wait()

    task = asyncio.ensure_future(threads.run(work, owner="agent"))
    await until(started.is_set)
    task.cancel()
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.sleep(0.02)
    assert not task.done()
    ((owner, seconds),) = threads.missing(asyncio.get_running_loop().time())
    assert owner == "agent" and seconds > 0
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert threads.missing(0) == []


async def test_a_cancelled_run_that_waits_for_a_thread_is_dropped_at_once():
    threads = WatchedThreads(1)
    gate, ran = threading.Event(), []
    first = asyncio.ensure_future(threads.run(gate.wait))
    second = asyncio.ensure_future(threads.run(lambda: ran.append(1)))
    await until(lambda: threads.waiting == 1)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.set()
    await first
    await threads.run(lambda: None)
    assert ran == []


async def test_cancelling_just_as_the_thread_comes_back_ends():
    threads = WatchedThreads(8)

    async def one():
        task = asyncio.ensure_future(threads.run(lambda: None))
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return

    async with asyncio.timeout(10):
        for _ in range(200):
            await asyncio.gather(*(one() for _ in range(5)))
