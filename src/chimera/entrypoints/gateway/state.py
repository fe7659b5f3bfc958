"""Sessions, people and spaces over HTTP."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from chimera.entrypoints.gateway.calls import Values, moment, page_limit
from chimera.entrypoints.gateway.http import (
    ENCODER,
    HEADER_REQUEST,
    decoded,
    internal_error,
    json_response,
    principal_of,
    read_body,
)
from chimera.entrypoints.gateway.state_operations import NDJSON
from chimera.entrypoints.published.parameters import DEFAULT_PAGE, LARGEST_PAGE
from chimera.gateway.settings import HttpSettings
from chimera.gateway.state import api, rules
from chimera.gateway.state.model import SessionKey, SessionSummary, StoredRun, StoredSession, StoredSpace
from chimera.gateway.state.ports import Record, SessionFilter
from chimera.gateway.state.runs import Runs
from chimera.gateway.state.sessions import Change, Sessions
from chimera.gateway.state.spaces import Spaces, shared
from chimera.gateway.state.spaces_rules import Declared
from chimera.gateway.state.subjects import Subjects
from chimera_host.contract.problem import ProblemError
from chimera_host.contract.state import SharedBody

_puts = msgspec.json.Decoder(api.SessionBody)
_patches = msgspec.json.Decoder(api.SessionPatch)
_spaces = msgspec.json.Decoder(api.SpaceBody)
_writes = msgspec.json.Decoder(SharedBody)
_declared = msgspec.json.Decoder(Declared)


@dataclass(frozen=True, kw_only=True, slots=True)
class StateHandlers:
    """Handlers of the operations on state."""

    sessions: Sessions
    runs: Runs
    spaces: Spaces
    subjects: Subjects
    settings: HttpSettings

    def handlers(self) -> dict[str, Any]:
        """By the operations' names."""
        return {
            "list_sessions": self.list_sessions,
            "list_all_sessions": self.list_sessions,
            "session": self.session,
            "put_session": self.put_session,
            "patch_session": self.patch_session,
            "delete_session": self.delete_session,
            "export_session": self.export_session,
            "subject": self.subject,
            "export_subject": self.export_subject,
            "erase_subject": self.erase_subject,
            "list_spaces": self.list_spaces,
            "space": self.space,
            "put_space": self.put_space,
            "delete_space": self.delete_space,
            "list_entries": self.list_entries,
            "write_entries": self.write_entries,
        }

    # -- sessions ------------------------------------------------------------------------------------------------------

    async def list_sessions(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/sessions."""
        query = request.query
        limit = page_limit(query.get("limit"), DEFAULT_PAGE, LARGEST_PAGE)
        agent = values.get("agent")
        rules.check_subject(query.get("subject"))
        wanted = SessionFilter(
            tenant=values["tenant"],
            agent=agent,
            subject=query.get("subject"),
            updated_before=moment(query.get("updated_before"), "updated_before"),
            after=_cursor(query.get("after"), agent),
            limit=limit,
        )
        page = list(await self.sessions.page(wanted))
        following = _last(page[-1], agent) if len(page) == limit else None
        return json_response(api.SessionPage(sessions=page, next=following), headers={HEADER_REQUEST: name})

    async def session(self, _: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/sessions/{session}."""
        found = await self.sessions.get(values["tenant"], values["agent"], values["session"])
        return _session(found, name, await self.runs.unfinished(found))

    async def put_session(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """PUT …/sessions/{session}."""
        body: api.SessionBody = decoded(_puts, await self._read(request))
        change = Change(
            state=body.state, subject=body.subject, ttl=body.ttl, version=body.version, **_conditions(request)
        )
        return _session(await self.sessions.change(_key(values), change, principal_of(request).actor), name)

    async def patch_session(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """PATCH …/sessions/{session}."""
        body: api.SessionPatch = decoded(_patches, await self._read(request))
        change = Change(
            values=body.values,
            messages=body.messages,
            subject=body.subject,
            ttl=body.ttl,
            version=body.version,
            **_conditions(request),
        )
        return _session(await self.sessions.change(_key(values), change, principal_of(request).actor), name)

    async def delete_session(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """DELETE …/sessions/{session}."""
        if_match = request.headers.get("If-Match")
        await self.sessions.delete(_key(values), if_match=if_match, by=principal_of(request).actor)
        return web.Response(status=204, headers={HEADER_REQUEST: name})

    async def export_session(self, request: web.BaseRequest, values: Values, name: str) -> web.StreamResponse:
        """GET …/sessions/{session}/export."""
        key = _key(values)
        await self.sessions.get(key.tenant, key.agent, key.session)

        async def records() -> AsyncIterator[Record]:
            for record in await self.subjects.session(key, principal_of(request).actor):
                yield record

        return await self._lines(request, records(), name)

    # -- people --------------------------------------------------------------------------------------------------------

    async def subject(self, _: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/subjects/{subject}."""
        kept = await self.subjects.count(values["tenant"], values["subject"])
        answer = api.SubjectAnswer(tenant=values["tenant"], subject=values["subject"], kept=kept)
        return json_response(answer, headers={HEADER_REQUEST: name})

    async def export_subject(self, request: web.BaseRequest, values: Values, name: str) -> web.StreamResponse:
        """GET …/subjects/{subject}/export."""
        rules.check_subject(values["subject"])
        records = self.subjects.export(values["tenant"], values["subject"], principal_of(request).actor)
        return await self._lines(request, records, name)

    async def erase_subject(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """DELETE …/subjects/{subject}."""
        erased = await self.subjects.erase(values["tenant"], values["subject"], principal_of(request).actor)
        answer = api.SubjectAnswer(tenant=values["tenant"], subject=values["subject"], kept=erased)
        return json_response(answer, headers={HEADER_REQUEST: name})

    # -- spaces --------------------------------------------------------------------------------------------------------

    async def list_spaces(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/spaces."""
        limit = page_limit(request.query.get("limit"), DEFAULT_PAGE, LARGEST_PAGE)
        page = await self.spaces.page(values["tenant"], request.query.get("after", ""), limit)
        spaces = [_space(found, _declared.decode(found.declared)) for found in page]
        following = spaces[-1].space if len(spaces) == limit else None
        return json_response(api.SpacePage(spaces=spaces, next=following), headers={HEADER_REQUEST: name})

    async def space(self, _: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/spaces/{space}."""
        found, declared = await self.spaces.get(values["tenant"], values["space"])
        return json_response(_space(found, declared), headers={HEADER_REQUEST: name})

    async def put_space(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """PUT …/spaces/{space}."""
        body: api.SpaceBody = decoded(_spaces, await self._read(request))
        made = await self.spaces.put(
            values["tenant"],
            values["space"],
            body.declared,
            version=body.version,
            by=principal_of(request).actor,
        )
        return json_response(_space(made, body.declared), headers={HEADER_REQUEST: name})

    async def delete_space(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """DELETE …/spaces/{space}."""
        await self.spaces.delete(values["tenant"], values["space"], principal_of(request).actor)
        return web.Response(status=204, headers={HEADER_REQUEST: name})

    async def list_entries(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/spaces/{space}/entries."""
        limit = page_limit(request.query.get("limit"), DEFAULT_PAGE, LARGEST_PAGE)
        page = await self.spaces.entries(values["tenant"], values["space"], request.query.get("after", ""), limit)
        entries = [shared(entry) for entry in page]
        following = entries[-1].key if len(entries) == limit else None
        return json_response(api.EntryPage(entries=entries, next=following), headers={HEADER_REQUEST: name})

    async def write_entries(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/spaces/{space}/entries."""
        body: SharedBody = decoded(_writes, await self._read(request))
        answer = await self.spaces.apply(values["tenant"], values["space"], body, by=principal_of(request).actor)
        return json_response(answer, headers={HEADER_REQUEST: name})

    # -- helpers -------------------------------------------------------------------------------------------------------

    async def _read(self, request: web.BaseRequest) -> bytes:
        return await read_body(request, self.settings, self.settings.body_bytes)

    async def _lines(self, request: web.BaseRequest, records: AsyncIterator[Record], name: str) -> web.StreamResponse:
        """Records as JSON lines. One that can't be read ends the answer before its end, which a reader notices."""
        response = web.StreamResponse(headers={HEADER_REQUEST: name, "Content-Type": NDJSON})
        try:
            async for record in records:
                if not response.prepared:
                    await response.prepare(request)
                await response.write(ENCODER.encode(record) + b"\n")
        except ConnectionError:
            raise
        except Exception as error:
            if not response.prepared:
                raise
            if not isinstance(error, ProblemError):
                internal_error(error)
            if request.transport is not None:
                request.transport.abort()
            return response
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response


def _session(found: StoredSession, name: str, unfinished: StoredRun | None = None) -> web.Response:
    headers = {HEADER_REQUEST: name, "ETag": rules.etag(found)}
    return json_response(api.session_answer(found, unfinished), headers=headers)


def _space(found: StoredSpace, declared: Declared) -> api.SpaceAnswer:
    return api.SpaceAnswer(
        tenant=found.tenant,
        space=found.space,
        version=found.version,
        declared=declared,
        entries=found.entries,
        size=found.size,
        created=found.created,
        updated=found.updated,
        expires=found.expires,
    )


def _key(values: Values) -> SessionKey:
    return SessionKey(tenant=values["tenant"], agent=values["agent"], session=values["session"])


def _conditions(request: web.BaseRequest) -> Mapping[str, Any]:
    return {
        "if_match": request.headers.get("If-Match"),
        "if_none_match": request.headers.get("If-None-Match"),
    }


def _cursor(after: str | None, agent: str | None) -> tuple[str, str]:
    """Where a page begins: behind a session's name or, over all agents, behind `agent/session`."""
    if after is None:
        return ("", "")
    if agent is not None:
        return (agent, after)
    first, _, second = after.partition("/")
    return (first, second)


def _last(summary: SessionSummary, agent: str | None) -> str:
    return summary.session if agent is not None else f"{summary.agent}/{summary.session}"
