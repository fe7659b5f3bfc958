"""The median call of one agent on its framework alone: `python time_call.py AGENTS.json CALLS` prints seconds."""

import json
import statistics
import sys
import time

from plain import make

WARM = 20


def main() -> None:
    """Time the first agent of the file."""
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123  (as plain as the rest of this folder)
        agents = json.load(file)
    answer = make(agents[0], None)
    for _ in range(WARM):
        answer("What do you do first?")
    times = []
    for _ in range(int(sys.argv[2])):
        began = time.perf_counter()
        answer("What do you do first?")
        times.append(time.perf_counter() - began)
    print(json.dumps(statistics.median(times)))


if __name__ == "__main__":
    main()
