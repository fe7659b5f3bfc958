"""Calls of tests without hosts: a test of tests says what each is told."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from chimera.delivery.trials.asking import Ask, Told
from chimera_host.contract.problem import PROBLEM_TYPE_PREFIX, Problem

Answer = Callable[[Ask], Told | str | Awaitable[Told | str]]


def problem(code: str, detail: str = "because", status: int = 500) -> Told:
    """A call that came to nothing."""
    made = Problem(type=PROBLEM_TYPE_PREFIX + code, title=code, status=status, detail=detail, code=code)
    return Told(problem=made)


def echo(ask: Ask) -> str:
    """What a scripted model says first, else what the caller said."""
    if ask.request.says:
        return ask.request.says[0].text or ""
    return f"echo: {ask.messages[-1].content}"


class FakeCalls:
    """The port `Calls`: `answer` says what each call is told. The same key is asked once.

    `asked` are the calls in their order, `cancelled` those that nobody waited for, `most` how many ran at once.
    """

    def __init__(self, answer: Answer = echo) -> None:
        """Tell what `answer` says."""
        self.answer = answer
        self.asked: list[Ask] = []
        self.cancelled: list[Ask] = []
        self.most = 0
        self._told: dict[str, Told] = {}
        self._running = 0

    async def call(self, ask: Ask) -> Told:
        """See `Calls`."""
        if ask.key in self._told:
            return self._told[ask.key]
        self.asked.append(ask)
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            async with asyncio.timeout(ask.seconds):
                said = self.answer(ask)
                found = await said if inspect.isawaitable(said) else said
                await asyncio.sleep(0)
        except TimeoutError:
            found = problem("deadline-exceeded", status=504)
        except asyncio.CancelledError:
            self.cancelled.append(ask)
            raise
        finally:
            self._running -= 1
        told = Told(output=found) if isinstance(found, str) else found
        self._told[ask.key] = told
        return told
