"""Coroutines run to their end in a thread of their own: for what is not asynchronous while an event loop runs."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any


def elsewhere(make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the coroutine that `make` gives; its error is raised here."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(make())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="testing-elsewhere")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
