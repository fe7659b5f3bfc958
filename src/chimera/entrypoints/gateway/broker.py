"""The listener for a cluster's Broker: the events that it delivers, and those that it gave up.

It serves nothing else and has a port of its own, so that a network policy can say who reaches it: the Broker's data
plane. The Broker shows no credential (a secret in a Trigger's address could be read by whoever may read Triggers, and
stands in logs; Eventing's own tokens are a cluster-wide feature that is off by default). So what comes in is believed
as far as it would be from the Broker itself, to which anybody in the cluster may write: events of others start agents
that subscribed to them, and the platform's own only with their seal.

An answer has no body: a Broker would take it for an event. 429 and 5xx are tried again; other refusals go to the dead
letters.
"""

import hashlib
import logging
from dataclasses import replace

from aiohttp import web

from chimera.entrypoints.gateway.cloud_events import read_event
from chimera.entrypoints.gateway.http import BoundedServer, internal_error, problem_response, read_body
from chimera.events.cloudevents import TYPE_PREFIX
from chimera.gateway.errors import Forbidden, NotFound
from chimera.gateway.eventing.dispatch import Dispatcher
from chimera.gateway.eventing.happening import Happening
from chimera.gateway.eventing.ports import BROKER, AgentLetter, AgentLetterStore
from chimera.gateway.eventing.seals import is_genuine
from chimera.gateway.settings import HttpSettings
from chimera.kernel.clock import Clock
from chimera.kernel.ids import DEFAULT_TENANT, is_name
from chimera_host.contract.problem import ProblemError

log = logging.getLogger(__name__)

EVENTS, DEAD_LETTERS = "/events", "/dead-letters"
TENANT = "tenant"
_REASONS = ("knativeerrorcode", "knativeerrordata")


class BrokerApi:
    """Answers a Broker's data plane."""

    def __init__(
        self, dispatcher: Dispatcher, letters: AgentLetterStore, clock: Clock, *, key: bytes, settings: HttpSettings
    ) -> None:
        """Start agents by `dispatcher`; `key` is that of the seals."""
        self._dispatcher = dispatcher
        self._letters = letters
        self._clock = clock
        self._key = key
        self._settings = settings

    def server(self) -> BoundedServer:
        """The server for aiohttp's runner."""
        return BoundedServer(self.handle, settings=self._settings, body_bytes=self._settings.body_bytes)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            if request.method != "POST" or request.path not in (EVENTS, DEAD_LETTERS):
                raise NotFound(f"a broker's listener has no {request.method[:20]} {request.path[:200]}")
            event = await self._event(request)
            if request.path == DEAD_LETTERS:
                await self._given_up(event)
            else:
                await self._dispatcher.refresh()
                await self._dispatcher.dispatch(event)
            return web.Response(status=202)
        except ProblemError as error:
            log.warning("an event of the broker was not taken", extra={"problem": error.code, "detail": error.detail})
            return _without_body(problem_response(error, request=None))
        except ConnectionError:
            raise
        except Exception as error:
            return _without_body(problem_response(internal_error(error), request=None))

    async def _event(self, request: web.BaseRequest) -> Happening:
        body = await read_body(request, self._settings, self._settings.body_bytes)
        tenant = request.headers.get(f"ce-{TENANT}", DEFAULT_TENANT)
        event = read_event(request, tenant, body)
        if not is_name(event.tenant):
            raise Forbidden(f"{event.tenant[:63]!r} is no tenant")
        if not is_genuine(self._key, event):
            raise Forbidden(
                f"an event of the type {event.type[:100]} without the platform's seal",
                next_step="name events of yours after a domain of yours",
            )
        place = event.attributes.get("sequence", "")
        if event.type.startswith(TYPE_PREFIX) and place.isascii() and place.isdigit():
            return replace(event, seq=int(place))
        return event

    async def _given_up(self, event: Happening) -> None:
        """Keep what the Broker gave up where people see it, once however often it says so."""
        digest = hashlib.sha256(f"{event.source}\0{event.id}".encode()).hexdigest()
        said = [event.attributes[name] for name in _REASONS if event.attributes.get(name)]
        letter = AgentLetter(
            tenant=event.tenant,
            letter=f"dl_{digest[:32]}",
            agent="",
            subscription=BROKER,
            event=event.structured(),
            reason=f"the broker gave it up: {' '.join(said) or 'it does not say why'}"[:200],
            died=self._clock.wall(),
        )
        await self._letters.put([letter])


def _without_body(answer: web.Response) -> web.Response:
    kept = {name: answer.headers[name] for name in ("Retry-After",) if name in answer.headers}
    return web.Response(status=answer.status, headers=kept)
