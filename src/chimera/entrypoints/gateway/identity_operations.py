"""The operations on keys, roles, policies and tenants, as data; `operations.py` publishes them with the others.

A tenant in the path may be `*`: the platform's own keys, grants and policies, which count for all tenants.
"""

from typing import Any

from chimera.entrypoints.published.operation import TENANT, Operation
from chimera.entrypoints.published.parameters import page
from chimera.gateway.identity import api

_PAGE = page("entries")


def _operation(method: str, path: str, name: str, summary: str, action: str, answer: Any, **more: Any) -> Operation:
    return Operation(
        method=method, path=path, name=name, summary=summary, tag="identity", action=action, answer=answer, **more
    )


IDENTITY = (
    _operation(
        *("GET", "/v1/whoami", "whoami", "Who asks: principal, tenant, roles, limits", "api:read", api.WhoAmI),
        resource="own",
    ),
    _operation(
        *("GET", TENANT + "/keys", "list_keys", "API keys by id, in pages, without secrets", "key:read", api.KeyPage),
        query=_PAGE,
    ),
    _operation(
        *("POST", TENANT + "/keys", "create_key", "Make an API key; its secret is shown this once", "key:write"),
        api.NewKey,
        body=api.KeyBody,
        status=201,
    ),
    _operation("GET", TENANT + "/keys/{key}", "get_key", "An API key", "key:read", api.KeyAnswer),
    _operation(
        *("POST", TENANT + "/keys/{key}/rotate", "rotate_key"),
        *("Give a key a new secret; the old one goes on for a while", "key:write", api.NewKey),
        body=api.RotateBody,
        body_required=False,
    ),
    _operation(
        *("DELETE", TENANT + "/keys/{key}", "revoke_key", "Revoke an API key at once", "key:write", api.KeyAnswer)
    ),
    _operation(
        *("GET", TENANT + "/roles", "list_roles", "Roles given to users, in pages", "role:read", api.GrantPage),
        query=_PAGE,
    ),
    _operation(
        *("PUT", TENANT + "/roles", "put_roles", "Give a user these roles and no others", "role:write"),
        api.GrantAnswer,
        body=api.GrantBody,
    ),
    _operation(
        *("GET", TENANT + "/policies", "list_policies", "Policies by name, in pages", "policy:read", api.PolicyPage),
        query=_PAGE,
    ),
    _operation(
        *("PUT", TENANT + "/policies", "put_policies", "Store policies, all or none; null deletes", "policy:write"),
        list[api.PolicyAnswer],
        body=api.PoliciesBody,
    ),
    _operation(
        *("POST", TENANT + "/policies/explain", "explain_policies"),
        *("May a principal do something, and which policies decide", "policy:read", api.Explained),
        body=api.QuestionBody,
    ),
    _operation(
        *("POST", TENANT + "/policies/test", "test_policies"),
        *("Ask cases of the policies as they are, or as a change would make them", "policy:read", api.CaseResults),
        body=api.CasesBody,
    ),
    _operation("GET", TENANT + "/policies/{policy}", "get_policy", "A policy", "policy:read", api.PolicyAnswer),
    _operation(
        *("GET", "/v1/tenants", "list_tenants", "Tenants by name, in pages", "platform:read", api.TenantPage),
        query=_PAGE,
    ),
    _operation(
        *("POST", "/v1/tenants", "create_tenant", "Make a tenant", "tenant:write", api.TenantAnswer),
        body=api.TenantBody,
        status=201,
    ),
    _operation("GET", TENANT, "get_tenant", "A tenant", "tenant:read", api.TenantAnswer),
    _operation(
        *("POST", TENANT + "/suspend", "suspend_tenant"),
        *("Suspend a tenant: nothing is done for it until it is resumed", "tenant:write", api.TenantAnswer),
    ),
    _operation(
        *("POST", TENANT + "/resume", "resume_tenant", "Resume a tenant", "tenant:write", api.TenantAnswer),
    ),
    Operation(
        method="GET",
        path="/.well-known/oauth-protected-resource",
        name="protected_resource",
        summary="Where tokens for this API come from (RFC 9728)",
        tag="identity",
        answer=api.ProtectedResource,
        key=False,
    ),
)
