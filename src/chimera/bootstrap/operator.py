"""The operator process: `python -m chimera.bootstrap.operator --config PATH`.

The configuration is `OperatorConfig` as JSON. The process carries resources of the cluster that it is a pod of into the
catalogue, while it holds the lease of that; others wait for their turn. It reads and writes the catalogue as control
planes do, and needs none of them: while they are away, resources go on.
"""

import gc

if __name__ == "__main__":
    # Nothing of what is imported is garbage, and looking for some takes a third of the start.
    gc.disable()

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from aiohttp import web
from msgspec import Struct

from chimera.adapters.storage.carrying import StoredCarriers
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.changes.people import StoredPeople
from chimera.adapters.storage.changes.store import ChangeStorage
from chimera.adapters.storage.conditions import StoredConditions
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.naming import open_named
from chimera.adapters.storage.opening import shown
from chimera.adapters.storage.rollouts.store import StoredRollouts
from chimera.adapters.storage.sides.store import SideStorage
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.resources.settings import OperatorSettings
from chimera.bootstrap.database import when_there
from chimera.bootstrap.delivery_parts import policy_of
from chimera.bootstrap.substrate_parts import cluster, cluster_place
from chimera.delivery.rollout.model import Policy
from chimera.delivery.rollout.service import RolloutService
from chimera.delivery.service import Changes
from chimera.delivery.settings import DeliverySettings
from chimera.entrypoints.operator.app import make_app
from chimera.entrypoints.operator.loop import ACTOR
from chimera.entrypoints.operator.service import Delivery, Operator
from chimera.kernel.clock import Clock, SystemClock
from chimera.kernel.ids import new_id
from chimera.kernel.settings import SettingsError, load_group
from chimera.platform.cells import unservable_in_cluster
from chimera_host.contract.problem import ProblemError
from chimera_host.logs import configure

log = logging.getLogger("chimera.bootstrap.operator")  # as a program this module is called __main__

EXIT_SETTINGS = 78


class OperatorConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The operator's start.

    `database` is a server's URL, `database_password` a reference (`env:NAME`, `file:PATH`). `cells` is the namespace
    of cells, `namespace` the platform's own (without it the one that this process is a pod of). `max_hosts` bounds each
    shared cell as it does in the control plane. `operator` and `delivery` are the settings of these groups; health and
    metrics are at `host` and `port`. `kubeconfig` names a cluster other than the process's own.
    """

    database: str
    cells: str
    namespace: str = ""
    database_password: str | None = None
    kubeconfig: str | None = None
    max_hosts: int = 1000
    host: str = "127.0.0.1"
    port: int = 8083
    operator: dict[str, Any] = {}
    delivery: dict[str, Any] = {}


async def serve(config: OperatorConfig) -> None:
    """Work until SIGTERM."""
    settings = load_group(OperatorSettings, config.operator, where="operator")
    settings.check()
    policy = policy_of(load_group(DeliverySettings, config.delivery, where="delivery"))
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    database = open_named(config.database, config.database_password, os.environ)
    await when_there(lambda: migrate(database))
    catalogue = Catalogue(database, max_hosts=config.max_hosts, unservable=unservable_in_cluster)
    api = Kubernetes(cluster(config.kubeconfig, os.environ))
    conditions = StoredConditions(database, cluster_place(config.cells))
    operator = Operator(
        api,
        catalogue,
        SystemClock(),
        settings,
        cells=config.cells,
        installation=config.namespace or api.namespace,
        delivery=deliver_by(database, catalogue, policy, SystemClock()),
        conditions=conditions,
    )
    runner = web.AppRunner(make_app(operator), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, config.host, config.port).start()
    log.info("operator ready", extra={"database": shown(config.database)})
    working = asyncio.create_task(operator.run(StoredLeases(database), new_id("op")), name="operator")
    stopping = asyncio.create_task(told_to_stop.wait(), name="stop")
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
        await runner.cleanup()
        await api.aclose()
        await asyncio.to_thread(database.close)
        log.info("operator ended")


def deliver_by(database: Database, catalogue: Catalogue, policy: Policy, clock: Clock) -> Delivery:
    """Change requests and rollouts on the database, where control planes, whose loops go on with them, find them."""
    kept = StoredRollouts(database)
    sides = SideStorage(database, max_hosts=catalogue.max_hosts, unservable=catalogue.unservable)
    return Delivery(
        carriers=StoredCarriers(database, ACTOR),
        changes=Changes(ChangeStorage(database, catalogue, clock), StoredPeople(database), clock, lambda: None),
        rollouts=RolloutService(kept, sides, kept, policy),
    )


def main() -> int:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="python -m chimera.bootstrap.operator", description=main.__doc__)
    parser.add_argument("--config", required=True, type=Path, help="a file with OperatorConfig as JSON")
    options = parser.parse_args()
    configure("operator")
    try:
        uvloop.run(serve(msgspec.json.decode(options.config.read_bytes(), type=OperatorConfig)))
    except SettingsError as error:
        log.error("operator did not start", extra={"problems": error.problems})
        return EXIT_SETTINGS
    except ProblemError as error:
        log.error("operator failed", extra={"error": error.detail, "next_step": error.next_step})
        return 1
    return 0


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    sys.exit(main())
