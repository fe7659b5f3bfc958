"""The parts of events, put together on their stores: what reads the journal, what delivers, and the API of both.

The gateway delivers, and not the control plane: a delivery talks to the network that users name, which is what the
gateway is for; and facts of calls go out while the control plane is away. Of the gateways that share a database and a
key one delivers at a time, under a lease named after the key.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from chimera.adapters.push.addresses import networks
from chimera.adapters.push.broker import KnativeBroker
from chimera.adapters.push.pusher import fault_of_receiver
from chimera.adapters.storage.events.bus import lease_name
from chimera.bootstrap.gateway_config import GatewayConfig, read_secret
from chimera.bootstrap.identity_parts import IdentityParts
from chimera.bootstrap.startup import secret_of
from chimera.entrypoints.gateway.events import EventHandlers
from chimera.events.delivery.deliverer import Deliverer
from chimera.events.delivery.feed import Feed
from chimera.events.delivery.ports import Bus, DeliveryStore, JournalReader, Push
from chimera.events.settings import EventSettings
from chimera.gateway.credentials import Credentials
from chimera.gateway.eventing.bus import LocalBus
from chimera.gateway.eventing.dispatch import Dispatcher
from chimera.gateway.eventing.index import AgentIndex
from chimera.gateway.eventing.ports import AgentLetterStore, MessageStore, TaskIntake
from chimera.gateway.eventing.publish import Publisher
from chimera.gateway.events.letters import DeadLetters
from chimera.gateway.events.ports import SubscriptionStore
from chimera.gateway.events.reading import Events
from chimera.gateway.events.secrets import WebhookSecrets
from chimera.gateway.events.service import Subscriptions
from chimera.gateway.metrics import GatewayMetrics
from chimera.gateway.routes import RouteTable
from chimera.gateway.settings import GatewaySettings
from chimera.kernel.clock import Clock
from chimera.kernel.ids import new_id
from chimera.kernel.leases import Leases, work_while_held

KEY_FILE = "webhooks.key"


class ClosablePush(Push, Protocol):
    """What sends, with connections of its own."""

    async def aclose(self) -> None:
        """Close them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EventPorts:
    """What events stand on."""

    journal: JournalReader
    subscriptions: SubscriptionStore
    deliveries: DeliveryStore
    letters: AgentLetterStore
    messages: MessageStore
    leases: Leases
    push: ClosablePush


@dataclass(frozen=True, kw_only=True, slots=True)
class EventServices:
    """What the gateway does with events, and the API of it."""

    feed: Feed
    events: Events
    deliverer: Deliverer
    subscriptions: Subscriptions
    handlers: EventHandlers
    key: str
    leases: Leases
    lease: float
    dispatcher: Dispatcher
    bus: Bus

    async def deliver(self) -> None:
        """Deliver whenever this gateway holds the lease, until cancelled."""
        name = lease_name(self.key)
        await work_while_held(self.leases, name, new_id("gw"), self.lease, self.deliverer.run)


@dataclass(frozen=True, kw_only=True, slots=True)
class SubscriptionParts:
    """Subscriptions as callers change them, and the secrets that sign for them and for webhooks of tasks."""

    subscriptions: Subscriptions
    secrets: WebhookSecrets


def make_subscriptions(
    ports: EventPorts, *, key: bytes, credentials: Credentials, clock: Clock, settings: EventSettings
) -> SubscriptionParts:
    """What needs nothing of tasks, which need it."""
    allow = networks(settings.allow)
    secrets = WebhookSecrets(key, credentials.value, clock)
    subscriptions = Subscriptions(
        ports.subscriptions,
        ports.journal,
        secrets,
        clock,
        settings=settings,
        fault_of=lambda url: fault_of_receiver(url, allow),
    )
    return SubscriptionParts(subscriptions=subscriptions, secrets=secrets)


def make_event_services(
    ports: EventPorts,
    *,
    told: SubscriptionParts,
    identity: IdentityParts,
    metrics: GatewayMetrics,
    routes: RouteTable,
    tasks: TaskIntake,
    seal: bytes,
    clock: Clock,
    settings: GatewaySettings,
) -> EventServices:
    """The services; nothing runs yet. Made inside the event loop."""
    chosen = settings.events
    index = AgentIndex()
    routes.on_change(index.take)
    dispatcher = Dispatcher(
        routes, index, tasks, ports.letters, ports.messages, clock, events=chosen, limits=settings.tasks
    )
    bus = _bus(chosen, dispatcher, seal)
    feed = Feed(ports.journal, source=chosen.source, poll=chosen.poll, batch=chosen.batch)
    deliverer = Deliverer(
        ports.deliveries,
        ports.journal,
        feed,
        ports.push,
        told.secrets,
        clock,
        key=told.secrets.key_id,
        settings=chosen,
        chance=random.random,
        bus=bus,
        suspended=identity.directory.suspended,
        told=lambda outcome: metrics.deliveries.labels(outcome).inc(),
    )
    events = Events(ports.journal, feed, clock, settings=chosen)
    metrics.deliveries_running.set_function(lambda: deliverer.running)
    metrics.deliveries_outstanding.set_function(lambda: deliverer.outstanding)
    metrics.deliveries_behind.set_function(lambda: deliverer.behind)
    metrics.event_streams.set_function(lambda: events.streams)
    handlers = EventHandlers(
        events=events,
        subscriptions=told.subscriptions,
        letters=DeadLetters(ports.subscriptions, ports.letters, dispatcher, settings=chosen),
        publisher=Publisher(dispatcher),
        authenticator=identity.authenticator,
        authoriser=identity.authoriser,
        settings=settings.http,
    )
    return EventServices(
        feed=feed,
        events=events,
        deliverer=deliverer,
        subscriptions=told.subscriptions,
        handlers=handlers,
        key=told.secrets.key_id,
        leases=ports.leases,
        lease=chosen.lease,
        dispatcher=dispatcher,
        bus=bus,
    )


def _bus(settings: EventSettings, dispatcher: Dispatcher, seal: bytes) -> Bus:
    if not settings.broker:
        return LocalBus(dispatcher)
    return KnativeBroker(
        settings.broker,
        key=seal,
        connections=settings.concurrency,
        connect_timeout=settings.connect_timeout,
        timeout=settings.timeout,
    )


def webhook_key(config: GatewayConfig, settings: EventSettings) -> bytes:
    """The key that signs: the file that the settings name, the one that all gateways of a cluster have, or the home's.

    That one is made where it isn't there.
    """
    if settings.key:
        return read_secret(settings.key, "events.key", mounted=config.mounted_secrets)
    if config.webhook_key_file is not None:
        return read_secret(config.webhook_key_file, "webhook_key_file", mounted=config.mounted_secrets)
    file = Path(config.home) / KEY_FILE
    secret_of(file)
    return read_secret(str(file), "events.key")
