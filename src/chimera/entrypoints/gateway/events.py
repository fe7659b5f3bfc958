"""Handlers of the operations on events, subscriptions and dead letters."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from chimera.entrypoints.gateway.calls import Values, page_limit
from chimera.entrypoints.gateway.cloud_events import read_event
from chimera.entrypoints.gateway.event_operations import HEADER_RESUME
from chimera.entrypoints.gateway.http import (
    ENCODER,
    HEADER_REQUEST,
    decoded,
    json_response,
    principal_of,
    read_body,
)
from chimera.entrypoints.gateway.streams import followed
from chimera.entrypoints.published.parameters import DEFAULT_PAGE, LARGEST_PAGE
from chimera.events import filters
from chimera.events.errors import InvalidSubscription
from chimera.gateway.errors import InvalidRequest
from chimera.gateway.eventing.publish import Publisher
from chimera.gateway.events import api
from chimera.gateway.events.letters import DeadLetters
from chimera.gateway.events.reading import Events, Page, Wanted, decoded_filters
from chimera.gateway.events.service import Subscriptions, known_type
from chimera.gateway.identity.authenticate import Authenticator
from chimera.gateway.policy.authorise import Authoriser
from chimera.gateway.policy.model import Resource
from chimera.gateway.settings import HttpSettings

Handler = Callable[[web.BaseRequest, Values, str], Awaitable[web.StreamResponse]]
R = TypeVar("R")

MOST_TEXTS = 50


class EventHandlers:
    """Answers the operations of `event_operations.py`."""

    def __init__(
        self,
        *,
        events: Events,
        subscriptions: Subscriptions,
        letters: DeadLetters,
        publisher: Publisher,
        authenticator: Authenticator,
        authoriser: Authoriser,
        settings: HttpSettings,
    ) -> None:
        """Read `events`, change `subscriptions`; a stream's reader is asked again and again who it is."""
        self._events = events
        self._subscriptions = subscriptions
        self._letters = letters
        self._publisher = publisher
        self._authenticator = authenticator
        self._authoriser = authoriser
        self._settings = settings
        self._types = b""

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {
            "list_events": self.events,
            "publish_event": self.publish,
            "event_types": self.types,
            "list_subscriptions": self.list_subscriptions,
            "create_subscription": self.create,
            "get_subscription": self.get,
            "change_subscription": self.change,
            "delete_subscription": self.delete,
            "pause_subscription": self.pause,
            "resume_subscription": self.resume,
            "rotate_subscription": self.rotate,
            "list_dead_letters": self.letters,
            "get_dead_letter": self.letter,
            "replay_dead_letters": self.replay,
            "drop_dead_letters": self.drop,
        }

    # -- events --------------------------------------------------------------------------------------------------------

    async def events(self, request: web.BaseRequest, values: Values, name: str) -> web.StreamResponse:
        """GET …/events."""
        wanted = Wanted(tenant=values["tenant"], filters=_filters(request))
        after = _place(request.query.get("after"), "after")
        resumed = _place(request.headers.get(HEADER_RESUME), HEADER_RESUME)
        if "text/event-stream" in request.headers.get("Accept", ""):
            return await self._stream(request, wanted, after if resumed is None else resumed, name)
        limit = page_limit(request.query.get("limit"), DEFAULT_PAGE, LARGEST_PAGE)
        last = request.query.get("last")
        page: Page
        if last is not None:
            page = await self._events.newest(wanted, page_limit(last, DEFAULT_PAGE, LARGEST_PAGE))
        else:
            page = await self._events.page(wanted, after or 0, limit)
        return _answer(api.EventPage(events=page.events, next=page.next, more=page.more), name)

    async def _stream(
        self, request: web.BaseRequest, wanted: Wanted, after: int | None, name: str
    ) -> web.StreamResponse:
        async def may() -> None:
            principal = await self._authenticator.authenticate(
                request.headers.get("Authorization"), request.remote or ""
            )
            self._authoriser.check(principal, "event:read", Resource(kind="Tenant", tenant=wanted.tenant))

        frames = self._events.stream(wanted, after, pulse=self._settings.stream_comment, may=may)
        return await followed(request, frames, bytes, settings=self._settings, name=name)

    async def publish(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/events."""
        body = await read_body(request, self._settings, self._settings.body_bytes)
        started = await self._publisher.publish(read_event(request, values["tenant"], body))
        return _answer(api.Published(started=started), name, status=202)

    async def types(self, _: web.BaseRequest, __: Values, name: str) -> web.Response:
        """GET /v1/event-types."""
        self._types = self._types or ENCODER.encode(api.fact_types())
        return web.Response(body=self._types, content_type="application/json", headers={HEADER_REQUEST: name})

    # -- subscriptions -------------------------------------------------------------------------------------------------

    async def list_subscriptions(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/subscriptions."""
        limit = page_limit(request.query.get("limit"), DEFAULT_PAGE, LARGEST_PAGE)
        rows, more = await self._subscriptions.page(values["tenant"], request.query.get("after", ""), limit)
        return _answer(api.SubscriptionPage(subscriptions=rows, next=rows[-1].name if more else None), name)

    async def create(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/subscriptions."""
        self._check_reads(request, values)
        body = await self._body(request, _bodies)
        stored, secret = await self._subscriptions.create(values["tenant"], body, principal_of(request).actor)
        (shown,) = await self._subscriptions.shown(values["tenant"], [stored])
        return _secret(api.NewSubscription(subscription=shown, secret=secret), name, status=201)

    async def get(self, _: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/subscriptions/{subscription}."""
        return _answer(await self._subscriptions.get(values["tenant"], values["subscription"]), name)

    async def change(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """PATCH …/subscriptions/{subscription}."""
        self._check_reads(request, values)
        body = await self._body(request, _patches)
        tenant, subscription = values["tenant"], values["subscription"]
        stored = await self._subscriptions.patch(tenant, subscription, body, principal_of(request).actor)
        return await self._shown(tenant, stored, name)

    async def delete(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """DELETE …/subscriptions/{subscription}."""
        await self._subscriptions.delete(values["tenant"], values["subscription"], principal_of(request).actor)
        return web.Response(status=204, headers={HEADER_REQUEST: name})

    async def pause(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/subscriptions/{subscription}/pause."""
        tenant, subscription = values["tenant"], values["subscription"]
        stored = await self._subscriptions.pause(tenant, subscription, principal_of(request).actor)
        return await self._shown(tenant, stored, name)

    async def resume(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/subscriptions/{subscription}/resume."""
        self._check_reads(request, values)
        body = await self._body(request, _resumes, api.ResumeBody())
        tenant, subscription = values["tenant"], values["subscription"]
        stored = await self._subscriptions.resume(tenant, subscription, body, principal_of(request).actor)
        return await self._shown(tenant, stored, name)

    async def rotate(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/subscriptions/{subscription}/rotate."""
        body = await self._body(request, _rotates, api.RotateBody())
        tenant, subscription = values["tenant"], values["subscription"]
        stored, secret = await self._subscriptions.rotate(tenant, subscription, body, principal_of(request).actor)
        (shown,) = await self._subscriptions.shown(tenant, [stored])
        return _secret(api.NewSubscription(subscription=shown, secret=secret), name)

    # -- dead letters --------------------------------------------------------------------------------------------------

    async def letters(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/dead-letters."""
        query = request.query
        limit = page_limit(query.get("limit"), DEFAULT_PAGE, LARGEST_PAGE)
        rows, more = await self._letters.page(
            values["tenant"], query.get("agent"), query.get("subscription"), query.get("after", ""), limit
        )
        return _answer(api.LetterPage(dead_letters=rows, next=rows[-1].letter if more else None), name)

    async def letter(self, _: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/dead-letters/{letter}."""
        return _answer(await self._letters.get(values["tenant"], values["letter"]), name)

    async def replay(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/dead-letters/replay."""
        body = await self._body(request, _settles)
        return _answer(await self._letters.replay(values["tenant"], body, principal_of(request).actor), name)

    async def drop(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/dead-letters/drop."""
        body = await self._body(request, _settles)
        return _answer(await self._letters.drop(values["tenant"], body, principal_of(request).actor), name)

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _check_reads(self, request: web.BaseRequest, values: Values) -> None:
        """Whoever has events sent somewhere must be allowed to read them."""
        tenant = Resource(kind="Tenant", tenant=values["tenant"])
        self._authoriser.check(principal_of(request), "event:read", tenant)

    async def _body(self, request: web.BaseRequest, decoder: "msgspec.json.Decoder[R]", none: R | None = None) -> R:
        data = await read_body(request, self._settings, self._settings.body_bytes)
        if not data and none is not None:
            return none
        body: R = decoded(decoder, data)
        return body

    async def _shown(self, tenant: str, stored: Any, name: str) -> web.Response:
        (shown,) = await self._subscriptions.shown(tenant, [stored])
        return _answer(shown, name)


def _filters(request: web.BaseRequest) -> list[filters.Filter]:
    query = request.query
    types, subjects = _texts(query.get("type"), "type"), _texts(query.get("subject"), "subject")
    try:
        made = filters.plain([known_type(one) for one in types], subjects)
        filters.check(made)
        return made + (decoded_filters(query["filters"]) if query.get("filters") else [])
    except InvalidSubscription as error:
        raise InvalidRequest(error.detail, next_step=error.next_step) from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(f"filters: {error}", next_step="give a JSON array of filters") from None


def _texts(text: str | None, what: str) -> list[str]:
    found = [one for one in (text or "").split(",") if one]
    if len(found) > MOST_TEXTS:
        raise InvalidRequest(f"{what} names more than {MOST_TEXTS}", next_step="name fewer, or filter what comes")
    return found


def _place(text: str | None, what: str) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidRequest(f"{what} is {text[:40]!r}", next_step="give the id of an event, a whole number")
    return int(text)


def _answer(value: Any, request: str, status: int = 200) -> web.Response:
    return json_response(value, status=status, headers={HEADER_REQUEST: request})


def _secret(value: Any, request: str, status: int = 200) -> web.Response:
    return json_response(value, status=status, headers={HEADER_REQUEST: request, "Cache-Control": "no-store"})


_bodies = msgspec.json.Decoder(api.SubscriptionBody)
_patches = msgspec.json.Decoder(api.SubscriptionPatch)
_resumes = msgspec.json.Decoder(api.ResumeBody)
_rotates = msgspec.json.Decoder(api.RotateBody)
_settles = msgspec.json.Decoder(api.LettersBody)
