"""`python -m benchmarks.cluster PART…`: figures from the cluster that `CHIMERA_TEST_KUBECONFIG` names.

    agents    the roster as resources, their cells, warm pools of 100 and 1,000 pods of each type; simulated nodes
    records   ten times the roster in the catalogue, of ten tenants, with ten times the cells; simulated nodes
    each      one Knative Service for each agent, as far as `--seconds` reach, and a fit; simulated nodes
    calls     calls, wakes, deploys and changes beside plain Knative; needs images and a database that pods reach
              (`CHIMERA_TEST_IMAGES`, `CHIMERA_TEST_CLUSTER_DATABASE`), as `tests/acceptance/platform/test_homes.py`

The cluster must be one that nobody else uses: real nodes are cordoned while simulated ones are there, and everything
that is made is deleted. Simulated nodes need KWOK to run, for nodes with the annotation `kwok.x-k8s.io/node: fake`.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks import agents
from benchmarks.cluster import calls, fleet, one_each
from benchmarks.cluster.api import Cluster, Row

PARTS = ("agents", "records", "each", "calls")
LEAST = 12_000


def say(what: str) -> None:
    """What is being done, with the time and the machine's load."""
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} load {load}: {what}\n")
    sys.stderr.flush()


def skipped(part: str) -> str:
    """Why a part can't be measured here; empty where it can."""
    if not os.environ.get("CHIMERA_TEST_KUBECONFIG"):
        return "CHIMERA_TEST_KUBECONFIG names no cluster"
    missing = calls.needed() if part == "calls" else []
    return f"{', '.join(missing)} not set" if missing else ""


async def measure(part: str, options: argparse.Namespace, folder: Path) -> list[Row]:
    """The rows of one part."""
    cluster = Cluster(Path(os.environ["CHIMERA_TEST_KUBECONFIG"]))
    try:
        if part == "calls":
            images, database = os.environ["CHIMERA_TEST_IMAGES"], os.environ["CHIMERA_TEST_CLUSTER_DATABASE"]
            return await calls.measure(cluster, folder, images, database, options.count, say)
        if part == "each":
            async with (
                cluster.namespace("chimera-each") as namespace,
                cluster.simulated_nodes(options.nodes),
                one_each.asleep_from_the_beginning(cluster),
            ):
                await fleet.account(cluster, namespace)
                say("one Knative Service for each agent")
                return one_each.rows(await one_each.measure(cluster, namespace, options.seconds, options.agents))
        roster = _roster(options, folder)
        if part == "agents":
            return await fleet.resources(cluster, folder, roster, options.nodes, options.pools, say)
        return await fleet.records(cluster, folder, roster, options.tenants, options.nodes, say)
    finally:
        await cluster.aclose()


def _roster(options: argparse.Namespace, folder: Path) -> list[agents.Agent]:
    if options.roster is not None:
        found = [agents.read(file) for file in sorted(options.roster.glob("*/*.yaml"))]
    else:
        say("building the roster")
        found = list(agents.build(folder / "roster", every=False, limit=None).agents)
    return found[: options.agents]


def main() -> int:
    """Measure and print; the JSON goes to standard output with `--json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__.split("\n", 1)[0])
    parser.add_argument("parts", nargs="*", choices=(*PARTS, []), default=[])
    parser.add_argument("--agents", type=int, default=13_939, help="how many agents")
    parser.add_argument("--nodes", type=int, default=200, help="how many simulated nodes")
    parser.add_argument("--tenants", type=int, default=10, help="how many tenants have all records")
    parser.add_argument("--pools", type=int, nargs="*", default=[100, 1000], help="pods of each type")
    parser.add_argument("--seconds", type=float, default=1200.0, help="how long Services are made, one for each agent")
    parser.add_argument("--count", type=int, default=10, help="deploys and wakes of each kind")
    parser.add_argument("--roster", type=Path, help="a folder that examples/esco has built")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    options = parser.parse_args()
    found: dict[str, list[Row]] = {}
    for part in options.parts or PARTS:
        if reason := skipped(part):
            say(f"{part} is skipped: {reason}")
            continue
        with tempfile.TemporaryDirectory(prefix="chimera-bench-") as folder:
            found[part] = asyncio.run(measure(part, options, Path(folder)))
        say(f"{part} done")
        show(part, found[part])
        if options.json is not None:
            options.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return 0


def show(part: str, rows: list[Row]) -> None:
    """One part's rows as a table."""
    table = Table(title=part)
    for name in ("what", "value", "unit", "note"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for row in rows:
        table.add_row(row.what, f"{row.value:,.2f}" if row.value % 1 else f"{row.value:,.0f}", row.unit, row.note)
    Console(width=180).print(table)


if __name__ == "__main__":
    sys.exit(main())
