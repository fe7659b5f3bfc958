"""Handlers of the operations on keys, roles, policies and tenants."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from chimera.entrypoints.gateway.calls import page_limit
from chimera.entrypoints.gateway.http import (
    HEADER_REQUEST,
    decoded,
    json_response,
    principal_of,
    read_body,
)
from chimera.entrypoints.published.parameters import DEFAULT_PAGE, LARGEST_PAGE
from chimera.gateway.guard import check_host
from chimera.gateway.identity import api
from chimera.gateway.identity.actions import ACTIONS
from chimera.gateway.identity.authenticate import Authenticator
from chimera.gateway.identity.errors import TenantNotFound
from chimera.gateway.identity.manage import Manager
from chimera.gateway.policy.errors import PolicyNotFound
from chimera.gateway.policy.explain import Explainer
from chimera.gateway.settings import HttpSettings

Values = dict[str, str]
Handler = Callable[[web.BaseRequest, Values, str], Awaitable[web.StreamResponse]]
R = TypeVar("R")

PATH = "/.well-known/oauth-protected-resource"


class IdentityHandlers:
    """Answers the operations of `identity_operations.py`."""

    def __init__(
        self,
        *,
        manager: Manager,
        explainer: Explainer,
        authenticator: Authenticator,
        settings: HttpSettings,
        hosts: frozenset[str],
        scheme: str,
        resource: str,
    ) -> None:
        """Change things by `manager`; `resource` is this API's own address where it is set."""
        self._manager = manager
        self._explainer = explainer
        self._authenticator = authenticator
        self._settings = settings
        self._hosts = hosts
        self._scheme = scheme
        self._resource = resource

    def handlers(self) -> dict[str, Handler]:
        """The handlers by the names of their operations."""
        return {
            "whoami": self.whoami,
            "list_keys": self.list_keys,
            "create_key": self.create_key,
            "get_key": self.get_key,
            "rotate_key": self.rotate_key,
            "revoke_key": self.revoke_key,
            "list_roles": self.list_roles,
            "put_roles": self.put_roles,
            "list_policies": self.list_policies,
            "put_policies": self.put_policies,
            "get_policy": self.get_policy,
            "explain_policies": self.explain,
            "test_policies": self.test,
            "list_tenants": self.list_tenants,
            "create_tenant": self.create_tenant,
            "get_tenant": self.get_tenant,
            "suspend_tenant": self.suspend_tenant,
            "resume_tenant": self.resume_tenant,
            "protected_resource": self.protected_resource,
        }

    # -- who ----------------------------------------------------------------------------------------------------------

    async def whoami(self, request: web.BaseRequest, _: Values, name: str) -> web.Response:
        """GET /v1/whoami."""
        principal = principal_of(request)
        answer = api.WhoAmI(
            principal=principal.actor,
            kind=principal.kind,
            tenant=principal.tenant,
            roles=tuple(sorted(principal.roles)),
            scopes=None if principal.scopes is None else tuple(sorted(principal.scopes)),
            agents=None if principal.agents is None else tuple(sorted(principal.agents)),
            expires=principal.expires,
        )
        return _answer(answer, name)

    async def protected_resource(self, request: web.BaseRequest, _: Values, name: str) -> web.Response:
        """GET /.well-known/oauth-protected-resource."""
        check_host(request.headers.get("Host"), self._hosts)
        answer = api.ProtectedResource(
            resource=self.resource(request),
            authorization_servers=self._authenticator.issuers(),
            bearer_methods_supported=["header"],
            scopes_supported=sorted(ACTIONS),
        )
        return _answer(answer, name)

    def challenge(self, request: web.BaseRequest, *, shown: bool) -> str:
        """The header WWW-Authenticate of a 401 (RFC 6750, RFC 9728); `shown`: a credential was, and isn't valid."""
        parts = ['error="invalid_token"'] if shown else []
        if self._authenticator.issuers():
            parts.append(f'resource_metadata="{self.resource(request)}{PATH}"')
        return " ".join(["Bearer", ", ".join(parts)]).strip()

    def resource(self, request: web.BaseRequest) -> str:
        """This API's own address: as set, else as it was called."""
        return self._resource.rstrip("/") or f"{self._scheme}://{request.headers.get('Host', '')}"

    # -- keys ---------------------------------------------------------------------------------------------------------

    async def list_keys(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/keys."""
        tenant = values["tenant"]
        rows, more = await _page(request, lambda after, limit: self._manager.store.keys(tenant, after, limit))
        return _answer(
            api.KeyPage(keys=[api.key_answer(row) for row in rows], next=rows[-1].id if more else None), name
        )

    async def create_key(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/keys."""
        body = await self._body(request, _key_bodies)
        stored, token = await self._manager.create_key(
            values["tenant"],
            principal_of(request),
            name=body.name,
            roles=body.roles,
            scopes=body.scopes,
            agents=body.agents,
            expires_in=body.expires_in,
        )
        return _secret(api.NewKey(key=api.key_answer(stored), token=token), name, status=201)

    async def get_key(self, _: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/keys/{key}."""
        return _answer(api.key_answer(await self._manager.key(values["tenant"], values["key"])), name)

    async def rotate_key(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/keys/{key}/rotate."""
        data = await read_body(request, self._settings, self._settings.body_bytes)
        body = decoded(_rotate_bodies, data) if data else api.RotateBody()
        stored, token = await self._manager.rotate_key(
            values["tenant"], values["key"], principal_of(request), overlap=body.overlap
        )
        return _secret(api.NewKey(key=api.key_answer(stored), token=token), name)

    async def revoke_key(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """DELETE …/keys/{key}."""
        stored = await self._manager.revoke_key(values["tenant"], values["key"], principal_of(request))
        return _answer(api.key_answer(stored), name)

    # -- roles --------------------------------------------------------------------------------------------------------

    async def list_roles(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/roles."""
        tenant = values["tenant"]
        rows, more = await _page(request, lambda after, limit: self._manager.store.grants(tenant, after, limit))
        grants = [api.grant_answer(row) for row in rows]
        return _answer(api.GrantPage(grants=grants, next=rows[-1].principal if more else None), name)

    async def put_roles(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """PUT …/roles."""
        body = await self._body(request, _grant_bodies)
        grant = await self._manager.grant(values["tenant"], body.principal, body.roles, principal_of(request))
        return _answer(api.grant_answer(grant), name)

    # -- policies -----------------------------------------------------------------------------------------------------

    async def list_policies(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/policies."""
        tenant = values["tenant"]
        rows, more = await _page(request, lambda after, limit: self._manager.store.policies(tenant, after, limit))
        policies = [api.policy_answer(row) for row in rows]
        return _answer(api.PolicyPage(policies=policies, next=rows[-1].name if more else None), name)

    async def get_policy(self, _: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET …/policies/{policy}."""
        tenant, policy = values["tenant"], values["policy"]
        found = await self._manager.store.policy(tenant, policy)
        if found is None:
            raise PolicyNotFound(
                f"tenant {tenant} has no policy {policy[:100]!r}", next_step="see `chimera policies list`"
            )
        return _answer(api.policy_answer(found), name)

    async def put_policies(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """PUT …/policies."""
        body = await self._body(request, _policies_bodies)
        stored = await self._manager.put_policies(values["tenant"], body.policies, principal_of(request))
        return _answer([api.policy_answer(one) for one in stored], name)

    async def explain(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/policies/explain."""
        body = await self._body(request, _questions)
        return _answer(await self._explainer.explain(values["tenant"], body, principal_of(request)), name)

    async def test(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST …/policies/test."""
        body = await self._body(request, _cases)
        await asyncio.to_thread(self._manager.check_policies, body.policies)
        return _answer(await self._explainer.test(values["tenant"], body, principal_of(request)), name)

    # -- tenants ------------------------------------------------------------------------------------------------------

    async def list_tenants(self, request: web.BaseRequest, _: Values, name: str) -> web.Response:
        """GET /v1/tenants."""
        rows, more = await _page(request, self._manager.store.tenants)
        tenants = [api.tenant_answer(row) for row in rows]
        return _answer(api.TenantPage(tenants=tenants, next=rows[-1].name if more else None), name)

    async def create_tenant(self, request: web.BaseRequest, _: Values, name: str) -> web.Response:
        """POST /v1/tenants."""
        body = await self._body(request, _tenant_bodies)
        return _answer(
            api.tenant_answer(await self._manager.create_tenant(body.name, principal_of(request))), name, 201
        )

    async def get_tenant(self, _: web.BaseRequest, values: Values, name: str) -> web.Response:
        """GET /v1/tenants/{tenant}."""
        tenant = values["tenant"]
        found = await self._manager.store.tenant(tenant)
        if found is None:
            raise TenantNotFound(f"there is no tenant {tenant}", next_step="see `chimera tenants list`")
        return _answer(api.tenant_answer(found), name)

    async def suspend_tenant(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST /v1/tenants/{tenant}/suspend."""
        tenant = await self._manager.set_tenant(values["tenant"], "suspended", principal_of(request))
        return _answer(api.tenant_answer(tenant), name)

    async def resume_tenant(self, request: web.BaseRequest, values: Values, name: str) -> web.Response:
        """POST /v1/tenants/{tenant}/resume."""
        tenant = await self._manager.set_tenant(values["tenant"], "active", principal_of(request))
        return _answer(api.tenant_answer(tenant), name)

    async def _body(self, request: web.BaseRequest, decoder: "msgspec.json.Decoder[R]") -> R:
        data = await read_body(request, self._settings, self._settings.body_bytes)
        body: R = decoded(decoder, data)
        return body


async def _page(
    request: web.BaseRequest, read: Callable[[str, int], Awaitable[Sequence[R]]]
) -> tuple[Sequence[R], bool]:
    """A page of rows, and whether there are more."""
    limit = page_limit(request.query.get("limit"), DEFAULT_PAGE, LARGEST_PAGE)
    rows = await read(request.query.get("after", ""), limit + 1)
    return rows[:limit], len(rows) > limit


def _answer(value: Any, request: str, status: int = 200) -> web.Response:
    return json_response(value, status=status, headers={HEADER_REQUEST: request})


def _secret(value: Any, request: str, status: int = 200) -> web.Response:
    return json_response(value, status=status, headers={HEADER_REQUEST: request, "Cache-Control": "no-store"})


_key_bodies = msgspec.json.Decoder(api.KeyBody)
_rotate_bodies = msgspec.json.Decoder(api.RotateBody)
_grant_bodies = msgspec.json.Decoder(api.GrantBody)
_policies_bodies = msgspec.json.Decoder(api.PoliciesBody)
_questions = msgspec.json.Decoder(api.QuestionBody)
_cases = msgspec.json.Decoder(api.CasesBody)
_tenant_bodies = msgspec.json.Decoder(api.TenantBody)
