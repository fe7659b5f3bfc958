"""The gateway put together: from ports, settings and keys to loops and listeners.

`chimera.bootstrap.gateway` picks the adapters and runs this as a process; tests run it in their own event loop.
"""

import asyncio
import logging
import os
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

from chimera.adapters.signing.ed25519 import check_signature
from chimera.adapters.storage.source_rows import SourceHooks
from chimera.bootstrap.audit_parts import places, public_keys
from chimera.bootstrap.event_parts import EventPorts, make_event_services, make_subscriptions
from chimera.bootstrap.gateway_config import GatewayConfig, allowed_hosts
from chimera.bootstrap.identity_parts import make_identity
from chimera.bootstrap.listeners import Listener
from chimera.bootstrap.side_parts import SidePorts, make_sides
from chimera.bootstrap.startup import listen_unix
from chimera.bootstrap.state_parts import make_state_services
from chimera.bootstrap.task_parts import make_task_services
from chimera.entrypoints.gateway.audit import AuditHandlers
from chimera.entrypoints.gateway.broker import BrokerApi
from chimera.entrypoints.gateway.calls import CallHandlers
from chimera.entrypoints.gateway.hooks import HookHandlers
from chimera.entrypoints.gateway.http import BoundedServer
from chimera.entrypoints.gateway.internal import InternalApi
from chimera.entrypoints.gateway.looking import LookHandlers
from chimera.entrypoints.gateway.proxy import Proxy
from chimera.entrypoints.gateway.public import Guards, PublicApi
from chimera.gateway.admission import Admission
from chimera.gateway.audit import AuditTrail
from chimera.gateway.calls import CallTable
from chimera.gateway.credentials import Credentials
from chimera.gateway.documents import Documents
from chimera.gateway.errors import ControlPlaneUnavailable, NodeUnavailable
from chimera.gateway.eventing.messages import Messages
from chimera.gateway.eventing.seals import seal_key
from chimera.gateway.functions import Functions
from chimera.gateway.hosts import HostClient
from chimera.gateway.identity.ports import IdentityStore
from chimera.gateway.invoke import Invoker
from chimera.gateway.metering import Meter, Price
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.models import Model, ModelGateway
from chimera.gateway.placing import Placer
from chimera.gateway.ports import (
    Audit,
    FunctionCaller,
    HostIdentities,
    HostPool,
    ModelProvider,
    RevisionSource,
    RouteSource,
)
from chimera.gateway.quota.ports import QuotaStore
from chimera.gateway.quota.service import Quota
from chimera.gateway.routes import RouteTable
from chimera.gateway.settings import GatewaySettings
from chimera.gateway.state.ports import StateStores, SubjectPart
from chimera.gateway.tasks.ports import TaskStore
from chimera.gateway.warming import Warmer
from chimera.immune.audit.note import PublicKey
from chimera.immune.audit.service import AuditService, AuditStore
from chimera.kernel.clock import Clock, SystemClock
from chimera.kernel.ids import new_id
from chimera.platform.model import Endpoint
from chimera.platform.ports import Report
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)


class FollowedPool(HostPool, Protocol):
    """A pool of hosts that tells of changes and has a loop of its own."""

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with each cell whose hosts changed."""

    def on_new_side(self, warmer: Callable[[str, Sequence[Endpoint], Sequence[Endpoint]], Awaitable[object]]) -> None:
        """Have `warmer` prepare the hosts of a cell's new revision, from those that serve, before calls go there."""

    async def run(self) -> None:
        """Follow the substrate until cancelled."""

    async def aclose(self) -> None:
        """Close connections."""


class ClosedReport(Report, Protocol):
    """A report that has connections of its own."""

    async def aclose(self) -> None:
        """Close them."""


ReportOf = Callable[[RouteTable], ClosedReport]
"""Makes the report of a substrate that this process itself looks at, given its routes. Called in the event loop."""


class TaskKeeper(TaskStore, SubjectPart, Protocol):
    """Tasks, as a queue and as what is kept of people."""


class AuditLog(Audit, AuditStore, Protocol):
    """The audit log, to be written and read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """The adapters that a gateway stands on."""

    routes: RouteSource
    revisions: RevisionSource
    state: StateStores
    quota: QuotaStore
    tasks: TaskKeeper
    copies: SubjectPart
    events: EventPorts
    identity: IdentityStore
    audit: AuditLog
    hooks: SourceHooks
    pool: FollowedPool
    models: Mapping[str, ModelProvider]
    functions: FunctionCaller
    identities: HostIdentities | None = None
    report: ReportOf | None = None
    sides: SidePorts | None = None


class Gateway:
    """All parts of one gateway, listening from `start` to `stop`. Made inside the event loop."""

    def __init__(
        self,
        config: GatewayConfig,
        settings: GatewaySettings,
        ports: Ports,
        *,
        key: bytes,
        token_secret: bytes,
        webhook_key: bytes,
        secrets: Mapping[str, str],
        clock: Clock | None = None,
        control_plane_key: str | None = None,
    ) -> None:
        """Put the parts together; nothing runs yet."""
        self._config = config
        self.settings = settings
        self._ports = ports
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: list[Listener] = []
        clock = clock or SystemClock()
        self._clock = clock
        admission = settings.admission
        self.metrics = GatewayMetrics()
        self.audit = AuditTrail(ports.audit, settings.audit, clock, self.metrics)
        self.meter = Meter(clock)
        self.quota = Quota(ports.quota, self.meter, clock, gateway=new_id("gw"), settings=settings.quota)
        self.routes = RouteTable(ports.routes, page=settings.routes.page)
        self.calls = CallTable(depth=admission.depth, family=admission.family)
        self.admission = Admission(total=admission.total, held=admission.held)
        self._placer = Placer(
            pool=ports.pool,
            routes=self.routes,
            calls=self.calls,
            admission=self.admission,
            host_concurrency=admission.host_concurrency,
            hold=admission.hold,
        )
        ports.pool.on_change(self._placer.freed)
        self._hosts = HostClient()
        warmer = Warmer(calls=self.calls, hosts=self._hosts, routes=self.routes, platform_url=config.platform_url)
        ports.pool.on_new_side(warmer.warm)
        others = {"tasks": ports.tasks, "copies": ports.copies}
        self.state = make_state_services(ports.state, settings, clock, self.metrics, others)
        documents = Documents(ports.revisions)
        self._sides = make_sides(
            ports.sides,
            gateway=new_id("gw"),
            routes=self.routes,
            calls=self.calls,
            pool=ports.pool,
            hosts=self._hosts,
            placer=self._placer,
            runs=self.state.runs,
            documents=documents,
            metrics=self.metrics,
            clock=clock,
            platform_url=config.platform_url,
        )
        self.invoker = Invoker(
            routes=self.routes,
            admission=self.admission,
            calls=self.calls,
            placer=self._placer,
            hosts=self._hosts,
            pool=ports.pool,
            runs=self.state.runs,
            documents=documents,
            quota=self.quota,
            audit=self.audit,
            metrics=self.metrics,
            deadlines=settings.deadlines,
            deaths=settings.state.deaths,
            turns=self._sides.turns,
            watcher=self._sides.watcher,
            platform_url=config.platform_url,
        )
        self.models = ModelGateway(
            make_models(config, settings, ports.models),
            quota=self.quota,
            meter=self.meter,
            metrics=self.metrics,
            settings=settings.models,
            clock=clock,
            answer_tokens=settings.quota.answer_tokens,
        )
        most = settings.http.proxied_body_bytes
        self._control_plane = Proxy(
            config.control_plane_socket,
            key=control_plane_key,
            away=lambda: ControlPlaneUnavailable(
                "the control plane does not answer",
                next_step="calls go on, changes wait: see `chimera status`, then try again",
                retry_after=2,
            ),
            routes=self.routes,
            most_bytes=most,
            patience=settings.http.body_timeout,
        )
        self._report = ports.report(self.routes) if ports.report is not None else None
        self._node = Proxy(
            config.node_socket,
            away=lambda: NodeUnavailable(
                "the node agent does not answer", next_step="see `chimera status`, then try again", retry_after=2
            ),
            routes=None,
            most_bytes=most,
            patience=settings.http.body_timeout,
        )
        tls = config.tls_certificate is not None or config.behind_proxy
        hosts, scheme = allowed_hosts(config), "https" if tls else "http"
        self.identity = make_identity(
            ports.identity,
            home_key=key,
            issuers=config.issuers,
            routes=self.routes,
            settings=settings,
            clock=clock,
            hosts=hosts,
            scheme=scheme,
        )
        authoriser = self.identity.authoriser
        mounts = [Path(mount) for mount in settings.identity.secret_mounts]
        credentials = Credentials(Path(config.home) / "secrets", secrets, mounts)
        self.functions = Functions(ports.functions, credentials, clock)
        told = make_subscriptions(
            ports.events, key=webhook_key, credentials=credentials, clock=clock, settings=settings.events
        )
        self.tasks = make_task_services(
            ports.tasks,
            self.invoker,
            routes=self.routes,
            admission=self.admission,
            quota=self.quota,
            authoriser=authoriser,
            audit=self.audit,
            metrics=self.metrics,
            clock=clock,
            settings=settings,
            webhooks=told.subscriptions,
            calls=self.calls,
        )
        self.events = make_event_services(
            ports.events,
            told=told,
            identity=self.identity,
            metrics=self.metrics,
            routes=self.routes,
            tasks=self.tasks.tasks,
            seal=seal_key(token_secret),
            clock=clock,
            settings=settings,
        )
        self.state.runs.on_growth(self.tasks.worker.reporter.stepped)
        self.public = PublicApi(
            guards=Guards(authenticator=self.identity.authenticator, authoriser=authoriser, hosts=hosts, scheme=scheme),
            calls=CallHandlers(self.invoker, authoriser, settings.http, clock),
            identity=self.identity.handlers,
            state=self.state.handlers,
            tasks=self.tasks.handlers,
            events=self.events.handlers,
            hooks=HookHandlers(ports.hooks, credentials, clock, settings.http),
            routes=self.routes,
            admission=self.admission,
            metrics=self.metrics,
            control_plane=self._control_plane,
            node=self._node if self._report is None else LookHandlers(self._report),
            audit=self.audit,
            audit_log=AuditHandlers(self._audit_service(), settings.http),
            settings=settings.http,
        )
        self.internal = InternalApi(
            secret=token_secret,
            revisions=ports.revisions,
            documents=documents,
            calls=self.calls,
            invoker=self.invoker,
            models=self.models,
            answers=self.state.answers,
            messages=Messages(ports.events.messages, self.routes, self.calls, clock, settings=settings.events),
            state=self.state.internal,
            routes=self.routes,
            pool=ports.pool,
            authoriser=authoriser,
            audit=self.audit,
            credentials=credentials,
            functions=self.functions,
            settings=settings,
            clock=clock,
            identities=ports.identities,
            names=frozenset(name.lower() for name in config.internal_names),
        )
        self._seal = seal_key(token_secret)
        self.public_url = self.internal_url = self.broker_url = ""

    async def start(self) -> None:
        """Read routes and today's use, begin the loops, listen: hosts first, callers last."""
        settings = self.settings
        await self.quota.beat()
        await self.routes.refresh()
        await self.identity.directory.refresh()
        self._spawn(self.identity.directory.follow(settings.identity.poll), "identity")
        self._spawn(self.routes.follow(settings.routes.poll), "routes")
        self._spawn(self._ports.pool.run(), "pool")
        self._spawn(self.audit.run(), "audit")
        self._spawn(self.state.runs.keep_alive(), "runs")
        self._spawn(self.quota.run(settings.models.flush), "quota")
        if self._sides.watcher is not None:
            self._spawn(self._sides.watcher.run(settings.routes.observe), "observations")
            self._spawn(self._sides.load(self._ports.events.leases, new_id("gw")), "sides")
        self.internal_url = await self._listen_internal()
        self.public_url = await self._listen_public()
        if self._config.metrics_port:
            await self._listen_metrics()
        if self._config.broker_port or settings.events.broker:
            self.broker_url = await self._listen_broker()
        self._spawn(self.tasks.watchers.run(), "task-watchers")
        self._spawn(self.tasks.worker.run(), "tasks")
        self._spawn(self.events.feed.run(), "events")
        if settings.events.deliver:
            self._spawn(self.events.deliver(), "deliveries")
        log.info("gateway listens", extra={"public": self.public_url, "internal": self.internal_url})

    async def stop(self) -> None:
        """End in order: not ready any more, taking calls for a pause; then calls finish until one deadline for all."""
        http = self.settings.http
        self.public.draining = self.internal.draining = True
        inside, outside = self._listeners[:1], self._listeners[1:]
        for listener in outside:
            listener.leave()
        pause = http.drain_pause if outside else 0.0  # before it listened nobody was sent here
        leaving = asyncio.create_task(self.tasks.worker.leave(pause + http.drain), name="gateway-tasks-leave")
        await asyncio.sleep(pause)
        until = asyncio.get_running_loop().time() + http.drain
        self.events.events.leave()
        await asyncio.gather(*(listener.end(until) for listener in outside))
        await leaving
        for listener in inside:  # last: what still ran needed it
            await listener.end(until)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.state.runs.aclose()
        await self._placer.aclose()
        for part in (self._hosts, self.models, self.functions, self._control_plane, self._node, self._ports.pool):
            await part.aclose()
        if self._report is not None:
            await self._report.aclose()
        await self._ports.events.push.aclose()
        await self.events.bus.aclose()
        try:
            await self.quota.leave()
            if self._sides.watcher is not None:
                await self._sides.watcher.flush()
            await self.identity.directory.note_use()
        finally:
            await self.audit.flush()

    async def _listen_public(self) -> str:
        config = self._config
        context = None
        if config.tls_certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(config.tls_certificate, config.tls_key)
        runner = await self._runner(self.public.server())
        if config.public_fd is not None:
            await web.SockSite(runner, _inherited(config.public_fd), ssl_context=context, backlog=1024).start()
        else:
            await web.TCPSite(runner, config.host, config.port, ssl_context=context, backlog=1024).start()
        return _address(runner, "https" if context is not None else "http")

    async def _listen_internal(self) -> str:
        runner = await self._runner(self.internal.server())
        path = self._config.internal_socket
        if self._config.internal_fd is not None:
            await web.SockSite(runner, _inherited(self._config.internal_fd), backlog=1024).start()
            return _address(runner, "http")
        if path is None:
            await web.TCPSite(runner, self._config.internal_host, self._config.internal_port, backlog=1024).start()
            return _address(runner, "http")
        await listen_unix(runner, Path(path), backlog=1024)
        return f"unix:{path}"

    async def _listen_metrics(self) -> None:
        page = BoundedServer(self.public.metrics_page, settings=self.settings.http, body_bytes=1)
        runner = await self._runner(page)
        await web.TCPSite(runner, self._config.internal_host, self._config.metrics_port, backlog=16).start()

    async def _listen_broker(self) -> str:
        api = BrokerApi(
            self.events.dispatcher,
            self._ports.events.letters,
            self._clock,
            key=self._seal,
            settings=self.settings.http,
        )
        runner = await self._runner(api.server())
        await web.TCPSite(runner, self._config.internal_host, self._config.broker_port, backlog=256).start()
        return _address(runner, "http")

    async def _runner(self, server: BoundedServer) -> web.ServerRunner:
        listener = Listener(server)
        await listener.runner.setup()
        self._listeners.append(listener)
        return listener.runner

    def _audit_service(self) -> AuditService:
        keys: tuple[PublicKey, ...] = ()
        try:
            given = self._config.audit_keys_file
            home = Path(self._config.home)
            keys = public_keys(places(home, self.settings.audit).public_keys if given is None else Path(given))
        except (ProblemError, OSError) as error:
            log.error("the audit log's public keys can't be read", extra={"error": str(error)})
        return AuditService(self._ports.audit, keys, check_signature)

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=f"gateway-{name}")
        task.add_done_callback(_ended)
        self._tasks.append(task)


def make_models(
    config: GatewayConfig, settings: GatewaySettings, providers: Mapping[str, ModelProvider]
) -> dict[str, Model]:
    """The models of the settings with their providers."""
    return {
        name: Model(
            name=name,
            provider=providers[name],
            price=Price(model.usd_per_million_prompt_tokens, model.usd_per_million_completion_tokens),
            timeout=settings.deadlines.model if model.timeout is None else model.timeout,
            max_concurrency=model.max_concurrency,
            attempts=settings.models.attempts if model.attempts is None else model.attempts,
        )
        for name, model in config.models.items()
    }


def _inherited(descriptor: int) -> socket.socket:
    """A listening socket of the parent's, as this process's own: closing it here leaves the parent's open."""
    made = socket.socket(fileno=os.dup(descriptor))
    made.setblocking(False)
    return made


def _ended(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a loop of the gateway ended, and so does it", exc_info=error, extra={"task": task.get_name()})
        # Without one of its loops it would go on with what it knows, getting staler; started again, it is whole.
        signal.raise_signal(signal.SIGTERM)


def _address(runner: web.ServerRunner, scheme: str) -> str:
    host, port = runner.addresses[0][:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
