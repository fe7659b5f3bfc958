"""The gateway process: `python -m chimera.bootstrap.gateway --config PATH [--lifeline-fd N]`.

The configuration is `chimera.bootstrap.gateway_config.GatewayConfig` as JSON (PATH may be `-` for standard input, or
the number of an open descriptor). SIGTERM drains: readiness says so; after a pause (`http.drain_pause`) no new
connection is accepted, and calls may finish until one deadline (`http.drain`). When the parent's lifeline closes, the
process ends at once. The gateway starts beside the control plane and waits for it to have made the database; afterwards
neither needs the other.
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
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import uvloop

from chimera.adapters.models.openai_compatible import OpenAICompatible
from chimera.adapters.push.addresses import networks
from chimera.adapters.push.functions import FunctionPusher
from chimera.adapters.push.pusher import Pusher
from chimera.adapters.storage.audit import AuditStorage
from chimera.adapters.storage.database import Database
from chimera.adapters.storage.events.deliveries import DeliveryStorage
from chimera.adapters.storage.events.letters import LetterStorage
from chimera.adapters.storage.events.messages import MessageStorage
from chimera.adapters.storage.events.reading import JournalStorage
from chimera.adapters.storage.events.subscriptions import SubscriptionStorage
from chimera.adapters.storage.gateway import GatewayStorage
from chimera.adapters.storage.identity import IdentityStorage
from chimera.adapters.storage.leases import StoredLeases
from chimera.adapters.storage.migrating import is_current
from chimera.adapters.storage.naming import open_named
from chimera.adapters.storage.opening import shown
from chimera.adapters.storage.quota import QuotaStorage
from chimera.adapters.storage.sides.store import SideStorage
from chimera.adapters.storage.source_rows import SourceHooks
from chimera.adapters.storage.state.stores import make_state
from chimera.adapters.storage.tasks.store import TaskStorage
from chimera.adapters.storage.trials.copies import StoredCopies
from chimera.bootstrap.audit_parts import started
from chimera.bootstrap.database import when_there
from chimera.bootstrap.event_parts import EventPorts, webhook_key
from chimera.bootstrap.gateway_config import (
    GatewayConfig,
    ModelConfig,
    load_settings,
    read_config,
    read_secret,
    resolve_key,
)
from chimera.bootstrap.gateway_parts import Gateway, Ports
from chimera.bootstrap.lifeline import end_with
from chimera.bootstrap.side_parts import SidePorts
from chimera.bootstrap.startup import tell_ready
from chimera.bootstrap.substrate_parts import make_substrate
from chimera.events.settings import EventSettings
from chimera.gateway.errors import GatewayError
from chimera.gateway.ports import ModelProvider
from chimera.gateway.settings import FunctionSettings, GatewaySettings
from chimera.kernel.clock import SystemClock
from chimera.kernel.settings import SettingsError
from chimera.testing.scripted_model import ScriptedModel
from chimera_host.contract.problem import ProblemError
from chimera_host.logs import configure

log = logging.getLogger("chimera.bootstrap.gateway")  # also when run as __main__

SECRET_PREFIX = "CHIMERA_SECRET_"
DATABASE_TIMEOUT = 60.0
DATABASE_POLL = 0.05
EXIT_SETTINGS = 78


async def serve(config: GatewayConfig, environ: Mapping[str, str]) -> None:
    """Serve until SIGTERM."""
    if config.platform_url is None and (address := environ.get("POD_IP")):
        own = f"http://[{address}]" if ":" in address else f"http://{address}"
        config = msgspec.structs.replace(config, platform_url=f"{own}:{config.internal_port}")
    settings = load_settings(config)
    mounted = config.mounted_secrets
    key = read_secret(config.key_file, "key_file", mounted=mounted)
    token_secret = read_secret(config.token_secret_file, "token_secret_file", mounted=mounted)
    control_plane_key = None
    if (file := config.control_plane_key_file) is not None:
        control_plane_key = read_secret(file, "control_plane_key_file", mounted=mounted).decode()
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    await _database(config, environ)
    ports, close = make_ports(config, settings, environ, token_secret)
    gateway = Gateway(
        config,
        settings,
        ports,
        key=key,
        token_secret=token_secret,
        webhook_key=webhook_key(config, settings.events),
        secrets=secrets_of(environ),
        control_plane_key=control_plane_key,
    )
    try:
        await gateway.start()
        gateway.audit.outcome(started("gateway", SystemClock(), {"settings": config.settings}))
        tell_ready(config.ready_fd, {"public": gateway.public_url, "internal": gateway.internal_url})
        await told_to_stop.wait()
    finally:
        await gateway.stop()
        await asyncio.to_thread(close)
    log.info("gateway ended")


def make_ports(
    config: GatewayConfig, settings: GatewaySettings, environ: Mapping[str, str], token_secret: bytes
) -> tuple[Ports, Callable[[], None]]:
    """The real adapters, and what closes the database. Made inside the event loop."""
    models = {name: make_provider(name, model, environ) for name, model in config.models.items()}
    database = open_named(config.database, config.database_password, environ)
    storage = GatewayStorage(database)
    sides = SideStorage(database, max_hosts=1)  # it writes what is loaded and seen, and places nothing
    substrate = make_substrate(config, settings, environ, token_secret, database)
    state = make_state(database, settings.state)
    tasks = TaskStorage(
        database, keep=settings.tasks.result_ttl, lease=settings.tasks.lease, letter_keep=settings.events.letter_keep
    )
    ports = Ports(
        routes=storage,
        revisions=storage,
        state=state,
        quota=QuotaStorage(database),
        tasks=tasks,
        copies=StoredCopies(database, tasks, state.subjects),
        events=make_event_ports(database, settings.events),
        identity=IdentityStorage(database),
        audit=AuditStorage(database),
        hooks=SourceHooks(database),
        pool=substrate.pool,
        models=models,
        functions=make_functions(settings.functions),
        identities=substrate.identities,
        report=substrate.report,
        sides=SidePorts(loads=sides, observations=sides.observing),
    )
    return ports, database.close


def make_functions(settings: FunctionSettings) -> FunctionPusher:
    """The way to functions. Made inside the event loop."""
    return FunctionPusher(
        allow=networks(settings.allow), connections=settings.connections, connect_timeout=settings.connect_timeout
    )


def make_event_ports(database: Database, settings: EventSettings) -> EventPorts:
    """What events stand on. Made inside the event loop."""
    return EventPorts(
        journal=JournalStorage(database),
        subscriptions=SubscriptionStorage(database),
        deliveries=DeliveryStorage(database, letters=settings.letters, letter_keep=settings.letter_keep),
        letters=LetterStorage(database, keep=settings.letter_keep),
        messages=MessageStorage(database, keep=settings.letter_keep),
        leases=StoredLeases(database),
        push=Pusher(
            allow=networks(settings.allow),
            connections=settings.concurrency,
            connect_timeout=settings.connect_timeout,
            timeout=settings.timeout,
        ),
    )


def make_provider(name: str, model: ModelConfig, environ: Mapping[str, str]) -> ModelProvider:
    """The provider of one model of the settings."""
    if model.provider == "scripted":
        return ScriptedModel.from_file(Path(model.script)) if model.script else ScriptedModel()
    if model.base_url is None:
        raise SettingsError([f"model.{name}: base_url is required for an OpenAI-compatible endpoint"])
    return OpenAICompatible(
        base_url=model.base_url,
        model=model.model or name,
        api_key=resolve_key(model.api_key, environ, f"model.{name}.api_key"),
        connections=model.max_concurrency,
        drop_tools=model.provider == "local",
    )


def secrets_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Credentials given by the environment, by name."""
    return {
        name.removeprefix(SECRET_PREFIX): value for name, value in environ.items() if name.startswith(SECRET_PREFIX)
    }


async def _database(config: GatewayConfig, environ: Mapping[str, str]) -> None:
    """Wait for the control plane, which starts at the same time, to have made the database."""
    database = open_named(config.database, config.database_password, environ)
    loop = asyncio.get_running_loop()
    until = loop.time() + DATABASE_TIMEOUT
    try:
        while not await when_there(lambda: is_current(database)):
            if loop.time() > until:
                raise GatewayError(
                    f"the database {shown(config.database)} was not made in {DATABASE_TIMEOUT:.0f} s",
                    next_step="see the control plane's log; all processes must be of one release",
                )
            await asyncio.sleep(DATABASE_POLL)
    finally:
        await asyncio.to_thread(database.close)


def main() -> int:
    """Run the gateway."""
    parser = argparse.ArgumentParser(prog="python -m chimera.bootstrap.gateway", description=main.__doc__)
    parser.add_argument("--config", required=True, help="a file with GatewayConfig as JSON, `-`, or a descriptor")
    parser.add_argument("--lifeline-fd", type=int, help="end when this pipe closes")
    options = parser.parse_args()
    configure("gateway")
    try:
        config = read_config(options.config)
        lifeline = config.lifeline_fd if options.lifeline_fd is None else options.lifeline_fd
        if lifeline is not None:
            end_with(lifeline)
        uvloop.run(serve(config, os.environ))
    except SettingsError as error:
        log.error("the gateway did not start", extra={"problems": error.problems})
        return EXIT_SETTINGS
    except ProblemError as error:
        log.error("the gateway failed", extra={"problem": error.detail, "next_step": error.next_step})
        return 1
    return 0


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    sys.exit(main())
