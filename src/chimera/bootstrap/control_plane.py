"""The control plane process: `python -m chimera.bootstrap.control_plane --config PATH [--lifeline-fd N]`.

The configuration is `ControlPlaneConfig` as JSON. The process owns the catalogue: it migrates the database at its
start, serves the catalogue on its socket, and tells the node agent which cells must keep hosts (at its start, after
each change, and every half minute, so that a lost message costs that long and no more). It makes the checkpoints of the
audit log, does the upkeep of the database, takes change requests through their stages, runs agents' tests, rolls
changes out and follows branches, each while it holds the lease of it.

In a cluster there is no node agent: the process keeps Knative Services as the catalogue wants them, while it holds the
lease of that, and serves the catalogue over TCP, to whoever shows the key that gateways hold.
"""

import gc

if __name__ == "__main__":
    # Nothing of what is imported is garbage, and looking for some takes a third of the start.
    gc.disable()

import argparse
import asyncio
import contextlib
import hmac
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import uvloop
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from msgspec import Struct

from chimera.adapters.storage.audit import AuditStorage
from chimera.adapters.storage.catalogue import Catalogue
from chimera.adapters.storage.conditions import StoredConditions
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.naming import open_named
from chimera.adapters.storage.opening import shown
from chimera.adapters.storage.sources import SourceStorage
from chimera.adapters.storage.upkeep.jobs import make_jobs
from chimera.adapters.storage.upkeep.store import UpkeepStorage
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.ledger import Ledger, LedgerKeys
from chimera.adapters.substrates.knative.observing import CellObserver
from chimera.adapters.substrates.knative.places import PROVENANCE_KEYS
from chimera.adapters.substrates.knative.reconciler import Reconciler
from chimera.adapters.substrates.node_observer import NodeObserver
from chimera.bootstrap.admission_parts import AdmissionConfig, Loops, add_admission
from chimera.bootstrap.audit_parts import make_checkpointer, sign_in_cluster, started
from chimera.bootstrap.database import when_there
from chimera.bootstrap.delivery_parts import make_delivery, parts_of
from chimera.bootstrap.delivery_places import DeliveryPlaces, follow, make_ledger, scanning_places
from chimera.bootstrap.evidence_parts import make_evidence
from chimera.bootstrap.gateway_config import read_secret
from chimera.bootstrap.lifeline import end_with
from chimera.bootstrap.scanning_parts import make_scanning, readers_memory
from chimera.bootstrap.startup import listen_unix, tell_ready
from chimera.bootstrap.substrate_parts import (
    CELLS_LEASE,
    cluster,
    cluster_place,
    host_bounds,
    knative_settings,
    machine_place,
)
from chimera.bootstrap.trial_parts import make_trials
from chimera.entrypoints.control_plane.app import ControlPlaneApp
from chimera.entrypoints.control_plane.conditions import ConditionMetrics
from chimera.entrypoints.control_plane.leading import Leading
from chimera.entrypoints.control_plane.rollouts import RolloutHandlers
from chimera.entrypoints.control_plane.sources import SourceHandlers
from chimera.events.settings import EventSettings
from chimera.immune.audit.checkpointer import sign_while_held
from chimera.immune.audit.settings import AuditSettings
from chimera.jaegis.service import Jaegis
from chimera.jaegis.settings import load_jaegis
from chimera.kernel.clock import SystemClock
from chimera.kernel.ids import new_id
from chimera.kernel.leases import Lease, Leases, work_while_held
from chimera.kernel.settings import SettingsError, load_group
from chimera.platform.cells import unservable_here, unservable_in_cluster
from chimera.platform.condition_keeper import ConditionKeeper
from chimera.platform.upkeep.service import Upkeep
from chimera.platform.upkeep.settings import RetentionSettings, UpkeepSettings
from chimera_host.contract.problem import ProblemError
from chimera_host.logs import configure

log = logging.getLogger("chimera.bootstrap.control_plane")  # as a program this module is called __main__

TELL_INTERVAL = 30.0
LEASE_LIFE = 15.0
OPEN = frozenset({"/livez", "/readyz", "/metrics"})
EXIT_SETTINGS = 78


class ControlPlaneConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The control plane's start; paths are absolute. `max_hosts` bounds every shared cell.

    `database` is a SQLite file or a server's URL, `database_password` a reference (`env:NAME`, `file:PATH`). Once it
    listens at `socket`, a line of JSON on `ready_fd` says so (`{"socket": path}`). `home` is where the audit log's key
    and files are, `audit` its settings. `events`, `retention`, `upkeep`, `delivery`, `sync`, `scanning` and `trials`
    are the settings of these groups; branches are followed, and checkpoints made, where there is a home, or where
    `places` says what a cluster has in place of it. Where `key_file` is given, it listens at `host` and `port` instead
    of `socket`. With `knative`, the group of that name, it keeps cells in the cluster of `kubeconfig` (by default the
    one that it is a pod of); `settings` are the gateway's. With `admission`, it answers what the API server asks of
    resources. `jaegis` are the groups of JAEGIS' settings; of `models`, where they are given, the names are those that
    agents may use; provider and model of each stand in bills of materials. `provenance_key_file` and `audit_key_file`
    hold the secrets that these keys are made of where they aren't a home's.
    """

    database: str
    socket: str = ""
    node_socket: str = ""
    host: str = "127.0.0.1"
    port: int = 8082
    key_file: str | None = None
    mounted_secrets: bool = False
    knative: dict[str, Any] | None = None
    kubeconfig: str | None = None
    admission: AdmissionConfig | None = None
    settings: dict[str, dict[str, Any]] = {}
    max_hosts: int = 1000
    ready_fd: int | None = None
    database_password: str | None = None
    home: str | None = None
    audit: dict[str, Any] = {}
    events: dict[str, Any] = {}
    retention: dict[str, Any] = {}
    upkeep: dict[str, Any] = {}
    jaegis: dict[str, dict[str, Any]] = {}
    models: dict[str, Any] | None = None
    provenance_key_file: str | None = None
    audit_key_file: str | None = None
    places: DeliveryPlaces | None = None
    delivery: dict[str, Any] = {}
    sync: dict[str, Any] = {}
    scanning: dict[str, Any] = {}
    trials: dict[str, Any] = {}


async def serve(config: ControlPlaneConfig) -> None:
    """Serve until SIGTERM; raises `SettingsError`."""
    async with contextlib.AsyncExitStack() as stack:
        await _serve(config, stack)
    log.info("control plane ended")


async def _serve(config: ControlPlaneConfig, stack: contextlib.AsyncExitStack) -> None:
    """The same; what is opened goes on `stack`, so that it is closed in the opposite order, however far this comes."""
    database = open_named(config.database, config.database_password, os.environ)
    stack.push_async_callback(asyncio.to_thread, database.close)
    await when_there(lambda: migrate(database))
    unservable = unservable_here if config.knative is None else unservable_in_cluster
    catalogue = Catalogue(database, max_hosts=config.max_hosts, unservable=unservable)
    upkeep = make_upkeep(database, config)
    changed = asyncio.Event()
    changed.set()
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    home = make_home(config, database, catalogue, changed)
    stack.push_async_callback(home.aclose)
    trials = make_trials(database, catalogue, home.poke, config.trials, config.settings.get("tasks", {}))
    stack.push_async_callback(trials.calls.aclose)
    stack.push_async_callback(trials.staging.aclose)
    jaegis = make_jaegis(catalogue, config)
    ledger = make_ledger(config.places, home.api)
    evidence = make_evidence(
        database,
        catalogue,
        home=config.home,
        key_file=config.provenance_key_file,
        public_keys=None if ledger is None else LedgerKeys(ledger, PROVENANCE_KEYS),
        models=config.models,
    )
    memory = readers_memory(config.scanning, config.sync)
    places = scanning_places(config.places)
    scanners, scans = make_scanning(
        catalogue, config.scanning, config.knative, config.settings, config.delivery, places, memory=memory
    )
    stack.push_async_callback(scans.aclose)
    parts = parts_of(jaegis, evidence, [*scanners, trials.check])
    parts.staging = trials.staging
    delivery = make_delivery(database, catalogue, config.delivery, home.poke, parts, max_hosts=config.max_hosts)
    leases = StoredLeases(database)

    def held(
        work: Callable[[Leases, str, float], Coroutine[Any, Any, None]],
    ) -> Callable[[], Coroutine[Any, Any, None]]:
        return lambda: work(leases, new_id("cp"), LEASE_LIFE)

    loops: Loops = {
        "audit": lambda: keep_audit(database, config, ledger),
        "upkeep": held(upkeep.while_held),
        "provenance": held(evidence.while_held),
        "pipeline": held(delivery.pipeline.while_held),
        "rollouts": held(delivery.rollouts.while_held),
        "tests": held(trials.while_held),
        **home.loops,
    }
    shown_too = add_admission(config.admission, home.api, leases, LEASE_LIFE, loops)
    shown_too = [*shown_too, ConditionMetrics(home.keeper.counts), home.leading]
    sync = follow(
        database,
        catalogue,
        delivery.changes,
        home.poke,
        group=config.sync,
        home=config.home,
        places=config.places,
        environ=os.environ,
        memory=memory,
    )
    if sync is not None:
        loops["sync"] = sync.loop
    sources = SourceHandlers(SourceStorage(database, catalogue), sync.settings if sync is not None else None)
    rollouts = RolloutHandlers(delivery.rollouts, delivery.changes)
    app = ControlPlaneApp(
        catalogue,
        home.poke,
        upkeep,
        home.conditions,
        delivery.changes,
        sources,
        rollouts,
        trials=trials.handlers,
        shown=shown_too,
        jaegis=jaegis,
        evidence=evidence,
    ).make()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=10.0)
    stack.push_async_callback(runner.cleanup)
    if config.key_file is not None:
        app.middlewares.append(needs_key(read_secret(config.key_file, "key_file", mounted=config.mounted_secrets)))
    await runner.setup()
    if config.key_file is not None:
        await web.TCPSite(runner, config.host, config.port, backlog=256).start()
    else:
        await listen_unix(runner, Path(config.socket))
        stack.callback(Path(config.socket).unlink, missing_ok=True)
        tell_ready(config.ready_fd, {"socket": config.socket})
    log.info("control plane ready", extra={"database": shown(config.database)})
    await until_stopped(loops, told_to_stop)


async def until_stopped(loops: Loops, told_to_stop: asyncio.Event) -> None:
    """Let all of them go on until told to stop; raises the fault by which one ended.

    A loop ends by a fault alone. The process ends with it, and whoever started it starts it again.
    """
    tasks = [asyncio.create_task(loop(), name=name) for name, loop in loops.items()]
    stopping = asyncio.create_task(told_to_stop.wait(), name="stop")
    try:
        await asyncio.wait((*tasks, stopping), return_when=asyncio.FIRST_COMPLETED)
        for ended in tasks:
            if ended.done():
                await ended
    finally:
        for task in (*tasks, stopping):
            task.cancel()
        await asyncio.gather(*tasks, stopping, return_exceptions=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """The home where hosts run: its conditions, its loops, and how to say that the catalogue changed."""

    conditions: StoredConditions
    keeper: ConditionKeeper
    loops: Loops
    poke: Callable[[], None]
    aclose: Callable[[], Awaitable[None]]
    leading: Leading
    api: Kubernetes | None = None


def make_home(config: ControlPlaneConfig, database: Database, catalogue: Catalogue, changed: asyncio.Event) -> Home:
    """This machine, or a cluster."""
    clock = SystemClock()
    if config.knative is None:
        conditions = StoredConditions(database, machine_place(config.home))
        node = NodeObserver(config.node_socket)
        keeper = ConditionKeeper(node, conditions, clock)
        loops: Loops = {
            "tell-node": lambda: tell_node(catalogue, config.node_socket, changed),
            "conditions": keeper.run,
        }
        return Home(
            conditions=conditions,
            keeper=keeper,
            loops=loops,
            poke=changed.set,
            aclose=node.aclose,
            leading=Leading(True),
        )
    settings, bounds = knative_settings(config.knative), host_bounds(config.settings)
    api = Kubernetes(cluster(config.kubeconfig, os.environ))
    conditions = StoredConditions(database, cluster_place(settings.namespace))
    reconciler = Reconciler(api, catalogue, clock, settings, bounds)
    observer = CellObserver(api, reconciler, clock, settings)
    keeper = ConditionKeeper(observer, conditions, clock)
    leading = Leading()
    loops = {"cells": lambda: keep_cells(reconciler, observer, keeper, database, leading)}
    return Home(
        conditions=conditions,
        keeper=keeper,
        loops=loops,
        poke=reconciler.poke,
        aclose=api.aclose,
        leading=leading,
        api=api,
    )


def make_upkeep(database: Database, config: ControlPlaneConfig) -> Upkeep:
    """What removes rows from the database; raises `SettingsError`."""
    retention = load_group(RetentionSettings, config.retention, where="retention")
    audit = load_group(AuditSettings, config.audit, where="audit")
    events = load_group(EventSettings, config.events, where="events")
    jobs = make_jobs(retention, audit_keep_days=audit.keep_days, paused_hold=events.paused_hold)
    settings = load_group(UpkeepSettings, config.upkeep, where="upkeep")
    return Upkeep(UpkeepStorage(database, jobs), SystemClock(), settings)


def make_jaegis(catalogue: Catalogue, config: ControlPlaneConfig) -> Jaegis:
    """What judges definitions beside the catalogue's live agents; raises `SettingsError`."""
    found = load_jaegis(config.jaegis)
    models = None if config.models is None else frozenset(config.models)
    return Jaegis(catalogue, SystemClock(), quality=found.quality, creator=found.creator, models=models)


async def keep_audit(database: Database, config: ControlPlaneConfig, ledger: Ledger | None) -> None:
    """Make the checkpoints of the audit log, whenever this process holds their lease.

    A key that can't be used stops no work: it is said in the log, and changes and calls are recorded all the same.
    """
    store, clock = AuditStorage(database), SystemClock()
    settings = load_group(AuditSettings, config.audit, where="audit")
    leases, owner = StoredLeases(database), new_id("cp")
    try:
        await store.record([started("control-plane", clock, {"audit": config.audit, "max_hosts": config.max_hosts})])
        if ledger is not None and config.audit_key_file is not None:
            key = Path(config.audit_key_file)
            await sign_in_cluster(store, ledger, key, settings, clock, leases, owner=owner, life=LEASE_LIFE)
            return
        if config.home is None:
            await asyncio.Event().wait()
            return
        checkpointer = make_checkpointer(store, Path(config.home), settings, clock)
    except ProblemError as error:
        extra = {"problem": error.detail, "next_step": error.next_step}
        log.error("no checkpoints of the audit log are made", extra=extra)
        await asyncio.Event().wait()
        return
    await sign_while_held(checkpointer, leases, owner, LEASE_LIFE)


async def keep_cells(
    reconciler: Reconciler, observer: CellObserver, keeper: ConditionKeeper, database: Database, leading: Leading
) -> None:
    """Keep Knative Services as the catalogue wants them, and say how they are, while this process holds the lease."""

    async def work(lease: Lease) -> None:
        leading.now = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(reconciler.run(), name="reconciler")
                group.create_task(observer.run(), name="observer")
                group.create_task(keeper.run(lease), name="conditions")
        finally:
            leading.now = False

    await work_while_held(StoredLeases(database), CELLS_LEASE, new_id("cp"), LEASE_LIFE, work)


def needs_key(key: bytes) -> Middleware:
    """A middleware that wants `key` from whoever asks for more than the process's health."""
    wanted = b"Bearer " + key

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        shown = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if request.path not in OPEN and not hmac.compare_digest(shown, wanted):
            return web.json_response({"title": "A valid key is needed", "status": 401}, status=401)
        return await handler(request)

    return check


async def tell_node(catalogue: Catalogue, socket: str, changed: asyncio.Event) -> None:
    """Tell the node agent which cells must keep hosts: all of them, each time."""
    connector = aiohttp.UnixConnector(socket)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10)) as session:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL_INTERVAL):
                    await changed.wait()
            changed.clear()
            try:
                body = msgspec.json.encode(await catalogue.kept_cells())
                async with session.put("http://node/v1/cells", data=body) as answer:
                    answer.raise_for_status()
            except (aiohttp.ClientError, TimeoutError, ProblemError) as error:
                log.warning("the node agent was not told of kept cells", extra={"error": str(error)})


def main() -> int:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="python -m chimera.bootstrap.control_plane", description=main.__doc__)
    parser.add_argument("--config", required=True, type=Path, help="a file with ControlPlaneConfig as JSON")
    parser.add_argument("--lifeline-fd", type=int, help="end when this pipe closes")
    options = parser.parse_args()
    configure("control-plane")
    if options.lifeline_fd is not None:
        end_with(options.lifeline_fd)
    try:
        config = msgspec.json.decode(options.config.read_bytes(), type=ControlPlaneConfig)
        uvloop.run(serve(config))
    except SettingsError as error:
        log.error("control plane did not start", extra={"problems": error.problems})
        return EXIT_SETTINGS
    except ProblemError as error:
        log.error("control plane failed", extra={"error": error.detail, "next_step": error.next_step})
        return 1
    return 0


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    sys.exit(main())
