"""Changing who may do what: keys, grants, policies and tenants, each with its rule against giving more than one has.

Every change is stored with its fact and audit entry, and has been taken over by this gateway when it is answered.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec.structs import replace

from chimera.gateway.errors import InvalidRequest
from chimera.gateway.identity import keys
from chimera.gateway.identity.actions import ROLES, carried_by, covers, is_scope
from chimera.gateway.identity.directory import Directory
from chimera.gateway.identity.errors import KeyEnded, KeyNotFound, MoreThanOwn
from chimera.gateway.identity.model import Grant, StoredKey, StoredPolicy, Tenant, TenantStatus
from chimera.gateway.identity.ports import IdentityStore
from chimera.gateway.identity.principal import ALL_TENANTS, Principal, named_user
from chimera.gateway.policy.errors import InvalidPolicy, TooManyPolicies
from chimera.gateway.policy.ports import PolicyEngine
from chimera.gateway.settings import IdentitySettings
from chimera.kernel.clock import Clock
from chimera.kernel.ids import ENVIRONMENT, is_environment, is_name


class Numbered(Protocol):
    """A row with the number of its last change."""

    @property
    def sequence(self) -> int:
        """The number."""


class Manager:
    """Makes the changes."""

    def __init__(
        self,
        store: IdentityStore,
        directory: Directory,
        engine: PolicyEngine,
        settings: IdentitySettings,
        clock: Clock,
    ) -> None:
        """Change `store`, and let `directory` know."""
        self.store = store
        self._directory = directory
        self._engine = engine
        self._settings = settings
        self._clock = clock

    # -- keys ----------------------------------------------------------------------------------------------------------

    async def create_key(
        self,
        tenant: str,
        by: Principal,
        *,
        name: str,
        roles: Sequence[str],
        scopes: Sequence[str] | None,
        agents: Sequence[str] | None,
        expires_in: float | None,
    ) -> tuple[StoredKey, str]:
        """A key and what its owner shows, which nobody can see again."""
        check_gift(by, tenant, roles, scopes, agents)
        key, secret, now = keys.new_key_id(), keys.new_secret(), self._clock.wall()
        expires = None if expires_in is None else now + expires_in
        if by.expires is not None and (expires is None or expires > by.expires) and by.kind == "key":
            raise MoreThanOwn("a key that expires can't make one that lives longer", next_step="give it a sooner end")
        stored = await self.store.create_key(
            StoredKey(
                id=key,
                tenant=tenant,
                name=name,
                digest=keys.digest(key, secret),
                roles=tuple(sorted(set(roles))),
                scopes=None if scopes is None else tuple(sorted(set(scopes))),
                agents=None if agents is None else tuple(sorted(set(agents))),
                created=now,
                created_by=by.actor,
                expires=expires,
            ),
            by,
        )
        await self._taken_over(stored)
        return stored, keys.token(key, secret)

    async def rotate_key(self, tenant: str, key: str, by: Principal, *, overlap: float | None) -> tuple[StoredKey, str]:
        """The key with a new secret; the old one goes on for `overlap` seconds."""
        secret, now = keys.new_secret(), self._clock.wall()
        overlap = self._settings.key_overlap if overlap is None else overlap

        def change(stored: StoredKey) -> StoredKey:
            if keys.has_ended(stored, now):
                raise KeyEnded(f"key {key} is revoked or has expired", next_step="make another")
            # Whoever gets the new secret has what the key has.
            check_gift(by, tenant, stored.roles, stored.scopes, stored.agents)
            return keys.rotated(stored, keys.digest(key, secret), now=now, overlap=overlap)

        stored = await self.store.change_key(tenant, key, change, what="rotated", by=by)
        await self._taken_over(stored)
        return stored, keys.token(key, secret)

    async def revoke_key(self, tenant: str, key: str, by: Principal) -> StoredKey:
        """The key, which no secret opens from here on; revoking twice changes nothing."""
        now = self._clock.wall()
        found = await self.store.key(key)
        if found is not None and found.tenant == tenant and found.revoked is not None:
            return found
        stored = await self.store.change_key(tenant, key, lambda one: replace(one, revoked=now), what="revoked", by=by)
        await self._taken_over(stored)
        return stored

    async def key(self, tenant: str, key: str) -> StoredKey:
        """A key of the tenant."""
        found = await self.store.key(key)
        if found is None or found.tenant != tenant:
            raise KeyNotFound(f"tenant {tenant} has no key {key[:100]!r}", next_step="see `chimera keys list`")
        return found

    # -- roles ---------------------------------------------------------------------------------------------------------

    async def grant(self, tenant: str, principal: str, roles: Sequence[str], by: Principal) -> Grant:
        """Give a user these roles in a tenant, and no others."""
        if not principal.startswith("user:"):
            raise InvalidRequest(
                f"{principal[:100]!r} is no user",
                next_step="name it as `user:ISSUER|SUBJECT`; keys have their own roles",
            )
        check_gift(by, tenant, roles, None, None)
        user = named_user(principal.removeprefix("user:"), tenant)
        made = Grant(
            tenant=tenant,
            principal=user.actor,
            roles=tuple(sorted(set(roles))),
            updated=self._clock.wall(),
            by=by.actor,
        )
        stored = await self.store.put_grant(made, by)
        await self._taken_over(stored)
        return stored

    # -- policies ------------------------------------------------------------------------------------------------------

    async def put_policies(self, tenant: str, texts: Mapping[str, str | None], by: Principal) -> Sequence[StoredPolicy]:
        """Store policy texts, all or none; None deletes. Raises `InvalidPolicy` with every fault."""
        await asyncio.to_thread(self.check_policies, texts)
        stored = await self.store.put_policies(tenant, texts, by, at=self._clock.wall(), most=self._settings.policies)
        await self._taken_over(*stored)
        return stored

    def check_policies(self, texts: Mapping[str, str | None]) -> None:
        """Raise `InvalidPolicy` with every fault, or `TooManyPolicies`."""
        errors: list[dict[str, str]] = []
        for name, text in texts.items():
            if not is_name(name):
                errors.append({"path": name[:100], "message": "a name has lower-case letters, digits and hyphens"})
            if text is None:
                continue
            if len(text.encode("utf-8", "surrogatepass")) > self._settings.policy_bytes:
                raise TooManyPolicies(
                    f"policy {name[:63]} is longer than {self._settings.policy_bytes} bytes",
                    next_step="split it, or raise the setting identity.policy_bytes",
                )
            try:
                self._engine.parse(text)
                errors += [{"path": name, "message": problem} for problem in self._engine.check(text)]
            except InvalidPolicy as error:
                errors.append({"path": name, "message": error.detail})
        if errors:
            first = errors[0]
            raise InvalidPolicy(
                f"policy {first['path']}: {first['message']}",
                next_step="correct it; docs/guides/policies.md lists what policies can ask",
                errors=errors,
            )

    # -- tenants -------------------------------------------------------------------------------------------------------

    async def create_tenant(self, name: str, by: Principal) -> Tenant:
        """Make a tenant; names of environments are the platform's own."""
        if is_environment(name):
            raise InvalidRequest(
                f"names that begin with {ENVIRONMENT!r} are of environments, which the platform makes",
                next_step="choose another name",
            )
        stored = await self.store.create_tenant(name, by, at=self._clock.wall())
        await self._taken_over(stored)
        return stored

    async def set_tenant(self, name: str, status: TenantStatus, by: Principal) -> Tenant:
        """Suspend a tenant, or resume it."""
        stored = await self.store.set_tenant(name, status, by, at=self._clock.wall())
        await self._taken_over(stored)
        return stored

    async def _taken_over(self, *stored: Numbered) -> None:
        await self._directory.at_least(max((one.sequence for one in stored), default=0))


def check_gift(
    by: Principal,
    tenant: str,
    roles: Sequence[str],
    scopes: Sequence[str] | None,
    agents: Sequence[str] | None,
) -> None:
    """Raise `MoreThanOwn` or `InvalidRequest` unless `by` has all that it gives; a pure rule.

    Measured by roles and limits alone: what a policy permits beyond them isn't the giver's to hand on.
    """
    if unknown := [role for role in roles if role not in ROLES]:
        raise InvalidRequest(f"{unknown[0][:100]!r} is no role", next_step=f"roles are {', '.join(ROLES)}")
    if scopes is not None and (unknown := [scope for scope in scopes if not is_scope(scope)]):
        raise InvalidRequest(
            f"{unknown[0][:100]!r} is no scope", next_step="name actions (`agent:invoke`) or things (`session:*`)"
        )
    if agents is not None and (unknown := [agent for agent in agents if not is_name(agent)]):
        raise InvalidRequest(f"{unknown[0][:100]!r} is no agent's name", next_step="see `chimera get agents`")
    if tenant == ALL_TENANTS and by.tenant != ALL_TENANTS:
        raise MoreThanOwn("only the platform's own principals give what reaches all tenants")
    if missing := carried_by(frozenset(roles)) - carried_by(by.roles):
        raise MoreThanOwn(
            f"{by.actor} doesn't carry {min(missing)}, which these roles do", next_step="give fewer roles"
        )
    if by.scopes is not None:
        given = carried_by(frozenset(roles)) if scopes is None else _spelt_out(scopes) & carried_by(frozenset(roles))
        if more := sorted(action for action in given if not covers(by.scopes, action)):
            raise MoreThanOwn(f"{by.actor} is limited to scopes without {more[0]}", next_step="give narrower scopes")
    if by.agents is not None and (agents is None or not set(agents) <= by.agents):
        raise MoreThanOwn(f"{by.actor} is limited to certain agents", next_step="limit the key to some of the same")


def _spelt_out(scopes: Sequence[str]) -> frozenset[str]:
    held = frozenset(scopes)
    return frozenset(action for action in carried_by(frozenset(ROLES)) if covers(held, action))
