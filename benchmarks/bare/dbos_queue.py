"""Durable workflows that do nothing by DBOS: enqueued by many callers at once, then run to completion by one process.

    python dbos_queue.py enqueue URL COUNT CALLERS
    python dbos_queue.py complete URL COUNT CALLERS

Prints the seconds as JSON. Runs in an environment of its own (`dbos.txt`) and knows nothing of Chimera. Two processes,
as for Chimera's queue: who enqueues listens to another queue, so that nothing runs meanwhile. The second takes up to
CALLERS workflows at once, and looks every 50 ms instead of every second.
"""

import json
import logging
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import sqlalchemy
from dbos import DBOS, DBOSConfig

POLL = 0.05
QUEUE, ELSEWHERE = "bench", "elsewhere"


@DBOS.workflow()
def nothing(number: int) -> int:
    """Finished as soon as it is begun."""
    return number


def enqueue(count: int, callers: int) -> float:
    """Seconds until all are durably enqueued, one by one."""
    numbers = iter(range(count))
    lock = threading.Lock()

    def caller() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            DBOS.enqueue_workflow(QUEUE, nothing, number)

    began = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        for done in [pool.submit(caller) for _ in range(callers)]:
            done.result()
    return time.perf_counter() - began


def complete(url: str, count: int, began: float) -> float:
    """Seconds from `began` until the database says that all have succeeded."""
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    table = "workflow_status" if url.startswith("sqlite") else "dbos.workflow_status"
    query = sqlalchemy.text(f"SELECT count(*) FROM {table} WHERE status = 'SUCCESS'")
    while True:
        with engine.connect() as connection:
            if (connection.execute(query).scalar() or 0) >= count:
                return time.perf_counter() - began
        time.sleep(POLL)


def main() -> None:
    """One of the two."""
    what, url, count, callers = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    logging.disable(logging.WARNING)
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": url,
        "log_level": "ERROR",
        "executor_id": "bench",
        "application_version": "1",
        "max_executor_threads": callers,
    }
    DBOS(config=config)
    DBOS.listen_queues([ELSEWHERE if what == "enqueue" else QUEUE])
    began = time.perf_counter()
    DBOS.launch()
    for name in (QUEUE, ELSEWHERE):
        DBOS.register_queue(name, worker_concurrency=callers, polling_interval_sec=POLL)
    seconds = enqueue(count, callers) if what == "enqueue" else complete(url, count, began)
    print(json.dumps(seconds), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    main()
