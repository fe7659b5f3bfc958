"""The operations on sessions, people and spaces, as data; `operations.py` publishes them with the others."""

from typing import Any

from chimera.entrypoints.published.operation import AGENT, TENANT, Operation
from chimera.entrypoints.published.parameters import SUBJECT as PERSON
from chimera.entrypoints.published.parameters import TIME, page
from chimera.gateway.state import api
from chimera_host.contract.state import SharedAnswer, SharedBody

NDJSON = "application/x-ndjson"
SESSION = AGENT + "/sessions/{session}"
SUBJECT = TENANT + "/subjects/{subject}"
SPACE = TENANT + "/spaces/{space}"

_PAGE = page("entries")
_NARROW = (
    ("subject", PERSON, "only sessions of this person"),
    ("updated_before", TIME, "only sessions last saved before this time (seconds since the epoch)"),
)
_IF_MATCH = ("If-Match", "string", "the ETag of the session that this changes")
_IF_NONE_MATCH = ("If-None-Match", "string", "`*`: only if there is no such session")


def _operation(
    method: str, path: str, name: str, summary: str, action: str, answer: Any = None, **more: Any
) -> Operation:
    tag = more.pop("tag", "sessions")
    return Operation(
        method=method, path=path, name=name, summary=summary, tag=tag, action=action, answer=answer, **more
    )


STATE = (
    _operation(
        *("GET", AGENT + "/sessions", "list_sessions", "Sessions of an agent, in pages", "session:read"),
        api.SessionPage,
        query=(*_NARROW, *_PAGE),
    ),
    _operation(
        *("GET", TENANT + "/sessions", "list_all_sessions", "Sessions of all agents, in pages", "session:read"),
        api.SessionPage,
        query=(*_NARROW, *_PAGE),
    ),
    _operation("GET", SESSION, "session", "A session as stored", "session:read", api.SessionAnswer),
    _operation(
        *("PUT", SESSION, "put_session", "Replace a session's state, or begin one with it", "session:write"),
        api.SessionAnswer,
        body=api.SessionBody,
        headers=(_IF_MATCH, _IF_NONE_MATCH),
    ),
    _operation(
        *("PATCH", SESSION, "patch_session", "Change a session's values, add messages", "session:write"),
        api.SessionAnswer,
        body=api.SessionPatch,
        headers=(_IF_MATCH, _IF_NONE_MATCH),
    ),
    _operation(
        *("DELETE", SESSION, "delete_session", "Erase a session with its runs and checkpoints", "session:delete"),
        status=204,
        headers=(_IF_MATCH,),
    ),
    _operation(
        *("GET", SESSION + "/export", "export_session", "All that is kept of a session, a record a line"),
        "session:read",
        media=NDJSON,
    ),
    _operation(
        *("GET", SUBJECT, "subject", "How much is kept of a person", "subject:read", api.SubjectAnswer), tag="people"
    ),
    _operation(
        *("GET", SUBJECT + "/export", "export_subject", "All that is kept of a person, a record a line"),
        "subject:read",
        media=NDJSON,
        tag="people",
    ),
    _operation(
        *("DELETE", SUBJECT, "erase_subject", "Erase all that is kept of a person", "subject:erase"),
        api.SubjectAnswer,
        tag="people",
    ),
    _operation(
        *("GET", TENANT + "/spaces", "list_spaces", "Shared spaces by name, in pages", "space:read", api.SpacePage),
        query=_PAGE,
        tag="spaces",
    ),
    _operation("GET", SPACE, "space", "A shared space, without its keys", "space:read", api.SpaceAnswer, tag="spaces"),
    _operation(
        *("PUT", SPACE, "put_space", "Declare a shared space: its owner, access and rules", "space:write"),
        api.SpaceAnswer,
        body=api.SpaceBody,
        tag="spaces",
    ),
    _operation(
        *("DELETE", SPACE, "delete_space", "Erase a shared space with its keys", "space:write"),
        status=204,
        tag="spaces",
    ),
    _operation(
        *("GET", SPACE + "/entries", "list_entries", "Keys of a shared space, in pages", "space:read", api.EntryPage),
        query=_PAGE,
        tag="spaces",
    ),
    _operation(
        *("POST", SPACE + "/entries", "write_entries", "Write and read several keys, all or none", "space:write"),
        SharedAnswer,
        body=SharedBody,
        tag="spaces",
    ),
)
