"""Webhooks of Git's hosts: taken without a key of ours, since each shows that it knows the source's own."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from chimera.adapters.storage.source_rows import SourceHooks
from chimera.delivery.git.errors import HookRefused
from chimera.delivery.git.hooks import tells_of_push, verified
from chimera.entrypoints.gateway.calls import Values
from chimera.entrypoints.gateway.http import HEADER_REQUEST, json_response, read_body
from chimera.entrypoints.published.operation import Operation
from chimera.entrypoints.published.sources import SOURCE
from chimera.gateway.credentials import Credentials
from chimera.gateway.errors import GatewayError
from chimera.gateway.settings import HttpSettings
from chimera.kernel.clock import Clock
from chimera.kernel.ids import is_name

HOOKS = (
    Operation(
        method="POST",
        path=SOURCE + "/hook",
        name="source_hook",
        summary="A Git host says that a branch has moved; signed with the source's webhook secret, or showing it",
        tag="delivery",
        body=bytes,
        takes="*/*",
        status=202,
        answer=dict[str, str],
        key=False,
    ),
)


Handler = Callable[[web.BaseRequest, Values, str], Awaitable[web.StreamResponse]]


class HookHandlers:
    """The handler. Whoever asks learns nothing of which sources there are."""

    def __init__(self, sources: SourceHooks, secrets: Credentials, clock: Clock, settings: HttpSettings) -> None:
        """Verify by `secrets`, and say so to `sources`."""
        self._sources = sources
        self._secrets = secrets
        self._clock = clock
        self._settings = settings

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {"source_hook": self.hook}

    async def hook(self, request: web.BaseRequest, values: Values, name: str) -> web.StreamResponse:
        """Take one."""
        body = await read_body(request, self._settings, self._settings.body_bytes)
        tenant, source = values["tenant"], values["source"]
        found = await self._sources.get(tenant, source) if is_name(source) else None
        if found is None or found.spec.webhook is None:
            raise _unknown()
        try:
            key = await self._secrets.value(found.spec.webhook)
        except GatewayError as error:
            raise _unknown() from error
        headers = {key.lower(): value for key, value in request.headers.items()}
        signature = verified(headers, body, key, self._clock.wall())
        if not tells_of_push(headers):
            return json_response({"status": "ignored"}, status=202, headers={HEADER_REQUEST: name})
        await self._sources.hook(tenant, source, signature)
        return json_response({"status": "looking"}, status=202, headers={HEADER_REQUEST: name})


def _unknown() -> HookRefused:
    return HookRefused("the webhook's signature is missing or doesn't fit", next_step="give both sides the same key")
