"""The load generator, a process of its own: N clients in a closed loop over a list of requests, each sent once.

    python -m benchmarks.load < plan.json > result.json

A closed loop sends a client's next request when its last was answered, so the rate is what the platform sustains. Each
latency is kept; an answer other than the expected one is an error, with its body's first words. The process's own CPU
seconds are in the result, since on a small machine the generator takes its share of it.
"""

import asyncio
import sys
import time
from collections import Counter
from typing import Any

import aiohttp
import msgspec
import uvloop
from msgspec import Struct

ERROR_TEXT = 300


class Request(Struct, frozen=True):
    """One call: the path after the base address and the JSON body."""

    path: str
    body: Any


class Plan(Struct, frozen=True, kw_only=True):
    """What to send. `status` is that of a good answer, `timeout` for each request, in seconds."""

    base: str
    key: str | None = None
    requests: list[Request]
    clients: int = 64
    status: int = 200
    timeout: float = 120.0


class Result(Struct, frozen=True, kw_only=True):
    """What came back: seconds of wall and CPU time, each latency in the order of the requests, errors by text."""

    seconds: float
    cpu: float
    latencies: list[float]
    errors: dict[str, int]

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return (len(self.latencies) - sum(self.errors.values())) / self.seconds if self.seconds else 0.0


async def run(plan: Plan) -> Result:
    """Send everything."""
    latencies = [0.0] * len(plan.requests)
    errors: Counter[str] = Counter()
    bodies = [msgspec.json.encode(request.body) for request in plan.requests]
    positions = iter(range(len(plan.requests)))
    headers = {"Content-Type": "application/json"}
    if plan.key is not None:
        headers["Authorization"] = f"Bearer {plan.key}"
    connector = aiohttp.TCPConnector(limit=plan.clients)
    timeout = aiohttp.ClientTimeout(total=plan.timeout)
    async with aiohttp.ClientSession(plan.base, connector=connector, headers=headers, timeout=timeout) as session:

        async def client() -> None:
            for position in positions:
                began = time.perf_counter()
                try:
                    async with session.post(plan.requests[position].path, data=bodies[position]) as answer:
                        data = await answer.read()
                        if answer.status != plan.status:
                            errors[f"{answer.status} {data[:ERROR_TEXT].decode(errors='replace')}"] += 1
                except (aiohttp.ClientError, TimeoutError) as error:
                    errors[f"{type(error).__name__}: {error}"] += 1
                latencies[position] = time.perf_counter() - began

        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(client() for _ in range(plan.clients)))
        seconds = time.perf_counter() - began
    return Result(seconds=seconds, cpu=time.process_time() - cpu, latencies=latencies, errors=dict(errors))


def main() -> None:
    """Read a plan, run it, write the result."""
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run(plan))))


if __name__ == "__main__":
    main()
