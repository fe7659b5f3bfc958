"""`python -m benchmarks`: measure, print the table, keep the JSON.

python -m benchmarks                       five runs at full size
python -m benchmarks --scale 50 --runs 1   everything once at a fiftieth, to see that it works
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks import agents, beside, rows
from benchmarks.figures import Measured, Sizes
from benchmarks.http import Refused
from benchmarks.platform import Broken
from benchmarks.report import keep, report, show

WIDTH = 200
RESULTS = Path(__file__).parent / "results"


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Chimera and print its figures.")
    made.add_argument("--runs", type=int, default=5, help="how often each row is measured (default 5)")
    made.add_argument("--scale", type=int, default=1, help="measure at this part of the size, for breakage only")
    made.add_argument("--json", type=Path, default=RESULTS / "latest.json", help="where the figures are kept")
    made.add_argument("--no-beside", action="store_true", help="leave out the same without Chimera")
    return made


def main() -> int:
    """Measure everything."""
    options = parser().parse_args()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    sizes = Sizes() if options.scale == 1 else Sizes().scaled(options.scale)
    with tempfile.TemporaryDirectory(prefix="chimera-bench-") as scratch:
        try:
            return _measure(options, sizes, Path(scratch), console)
        except (Broken, Refused) as error:
            console.print(f"error: {error}", markup=False)
            return 1


def _measure(options: argparse.Namespace, sizes: Sizes, scratch: Path, console: Console) -> int:
    began = time.perf_counter()

    def say(text: str) -> None:
        console.print(f"[{time.perf_counter() - began:7.1f} s] {text}", highlight=False, markup=False)

    say(f"build the roster: {sizes.all:,} definitions")
    roster = agents.build(scratch / "roster", every=True, limit=sizes.all if options.scale > 1 else None)
    without = beside.Without(roster, sizes, scratch / "beside", say)
    bare = without.bare()
    runs: list[dict[str, Measured]] = []
    for number in range(1, options.runs + 1):
        say(f"run {number} of {options.runs}")
        runs.append(rows.one_run(scratch / f"home-{number}", roster, sizes, bare, say, beside=not options.no_beside))
        # Kept after each run, so that the hour of the others isn't lost when one breaks.
        keep(report(sizes, options.scale, runs, [], without.skipped), options.json)
    compared = [] if options.no_beside else without.servers()
    made = report(sizes, options.scale, runs, compared, without.skipped)
    keep(made, options.json)
    show(made, console)
    say(f"kept in {options.json}")
    failed = [name for name, several in made.rows.items() if any(one.errors for one in several)]
    if failed:
        console.print(f"calls failed in: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
