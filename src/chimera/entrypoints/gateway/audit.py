"""Handlers of the operations on the audit log."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from chimera.entrypoints.gateway.audit_operations import DECISIONS, LARGEST_EXPORT
from chimera.entrypoints.gateway.calls import moment, page_limit
from chimera.entrypoints.gateway.http import ENCODER, HEADER_REQUEST, decoded, json_response, read_body
from chimera.entrypoints.published.parameters import DEFAULT_PAGE, LARGEST_PAGE
from chimera.gateway.errors import InvalidRequest
from chimera.gateway.identity.principal import ALL_TENANTS
from chimera.gateway.settings import HttpSettings
from chimera.immune.audit.api import CheckpointPage
from chimera.immune.audit.checkpoint import Checkpoint
from chimera.immune.audit.service import AuditService, Wanted

Values = dict[str, str]
Handler = Callable[[web.BaseRequest, Values, str], Awaitable[web.StreamResponse]]

BODY_BYTES = 64 * 1024
_LONGEST_FILTER = 600
_TEXTS = ("actor", "action", "resource", "decision", "outcome", "call", "request")
_checkpoints = msgspec.json.Decoder(Checkpoint)


class AuditHandlers:
    """Answers the operations of `audit_operations.py`."""

    def __init__(self, service: AuditService, settings: HttpSettings) -> None:
        """Ask `service`."""
        self._service = service
        self._settings = settings

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {
            "list_audit": self.entries,
            "export_audit": self.export,
            "audit_ends": self.ends,
            "list_audit_checkpoints": self.checkpoints,
            "prove_audit_entry": self.proof,
            "propose_audit_checkpoint": self.proposal,
            "add_audit_checkpoint": self.add,
        }

    async def entries(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/audit."""
        query = request.query
        for text in _TEXTS:
            if len(query.get(text, "")) > _LONGEST_FILTER:
                raise InvalidRequest(f"{text} is longer than {_LONGEST_FILTER} characters")
        decision = query.get("decision")
        if decision is not None and decision not in DECISIONS:
            raise InvalidRequest(f"no decision is {decision[:40]!r}", next_step=f"use one of {', '.join(DECISIONS)}")
        wanted = Wanted(
            **{text: query.get(text) for text in _TEXTS},
            since=moment(query.get("since"), "since"),
            until=moment(query.get("until"), "until"),
        )
        limit = page_limit(query.get("limit"), DEFAULT_PAGE, LARGEST_PAGE)
        page = await self._service.page(_tenant(values), wanted, _place(request, "before"), limit)
        return json_response(page, headers={HEADER_REQUEST: name})

    async def export(self, request: web.BaseRequest, values: Values, name: str) -> web.StreamResponse:
        """GET …/audit/export; a reader that reads nothing for `http.body_timeout` is cut off."""
        given = request.query.get("limit")
        limit = None if given is None else page_limit(given, LARGEST_EXPORT, LARGEST_EXPORT)
        pages = self._service.export(_tenant(values), _place(request, "after") or 0, limit)
        headers = {HEADER_REQUEST: name, "Content-Type": "application/x-ndjson"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        async for page in pages:
            try:
                async with asyncio.timeout(self._settings.body_timeout):
                    await response.write(b"".join(ENCODER.encode(one) + b"\n" for one in page))
            except TimeoutError:  # nobody reads
                if request.transport is not None:
                    request.transport.abort()
                return response
        await response.write_eof()
        return response

    async def ends(self, _: web.BaseRequest, __: Values, name: str) -> web.Response:
        """GET …/audit/ends."""
        return json_response(await self._service.ends(), headers={HEADER_REQUEST: name})

    async def checkpoints(self, request: web.BaseRequest, _: Values, name: str) -> web.Response:
        """GET …/audit/checkpoints."""
        limit = page_limit(request.query.get("limit"), DEFAULT_PAGE, LARGEST_PAGE)
        found = list(await self._service.checkpoints(_place(request, "after") or 0, limit + 1))
        more = len(found) > limit
        page = CheckpointPage(checkpoints=found[:limit], next=found[limit - 1].size if more else None)
        return json_response(page, headers={HEADER_REQUEST: name})

    async def proof(self, _: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/audit/entries/{entry}/proof."""
        proof = await self._service.proof(_tenant(values), _number(values["entry"], "the entry's place"))
        return json_response(proof, headers={HEADER_REQUEST: name})

    async def proposal(self, request: web.BaseRequest, _: Values, name: str) -> web.Response:
        """GET /v1/audit/proposal."""
        return json_response(await self._service.proposal(_place(request, "since")), headers={HEADER_REQUEST: name})

    async def add(self, request: web.BaseRequest, _: Values, name: str) -> web.Response:
        """POST /v1/audit/checkpoints."""
        body: Checkpoint = decoded(_checkpoints, await read_body(request, self._settings, BODY_BYTES))
        await self._service.add(body)
        return json_response(body, status=201, headers={HEADER_REQUEST: name})


def _tenant(values: Values) -> str | None:
    return None if values["tenant"] == ALL_TENANTS else values["tenant"]


def _place(request: web.BaseRequest, parameter: str) -> int | None:
    text = request.query.get(parameter)
    return None if text is None else _number(text, parameter)


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidRequest(f"{what} must be a whole number, 0 or more", next_step="use a `seq` of an entry")
    return int(text)
