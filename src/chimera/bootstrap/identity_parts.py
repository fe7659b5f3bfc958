"""Identity and policy of one gateway put together: who asks, whether they may, and what changes that."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chimera.adapters.identity.cedar import Cedar
from chimera.adapters.identity.jose import JoseVerifier
from chimera.adapters.identity.jwks import Jwks, JwksFile, JwksSource, JwksUrl
from chimera.entrypoints.gateway.identity import IdentityHandlers
from chimera.gateway.identity.authenticate import Authenticator
from chimera.gateway.identity.claims import IssuerConfig
from chimera.gateway.identity.directory import Directory
from chimera.gateway.identity.failures import Failures
from chimera.gateway.identity.manage import Manager
from chimera.gateway.identity.ports import IdentityStore
from chimera.gateway.policy.authorise import Authoriser
from chimera.gateway.policy.decide import Policies
from chimera.gateway.policy.explain import Explainer
from chimera.gateway.policy.model import AgentFacts
from chimera.gateway.policy.resources import facts_of_route
from chimera.gateway.routes import RouteTable
from chimera.gateway.settings import GatewaySettings, IdentitySettings
from chimera.kernel.clock import Clock


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityParts:
    """What the listeners need of it."""

    directory: Directory
    policies: Policies
    authenticator: Authenticator
    authoriser: Authoriser
    handlers: IdentityHandlers


def make_identity(
    store: IdentityStore,
    *,
    home_key: bytes,
    issuers: Mapping[str, IssuerConfig],
    routes: RouteTable,
    settings: GatewaySettings,
    clock: Clock,
    hosts: frozenset[str],
    scheme: str,
) -> IdentityParts:
    """All of it, on one store."""
    identity = settings.identity
    engine = Cedar()
    policies = Policies(engine, decisions=identity.decisions)
    directory = Directory(store, policies)

    def facts_of(tenant: str, agent: str) -> AgentFacts | None:
        return facts_of_route(routes.known(tenant, agent))

    authenticator = Authenticator(
        home_key=home_key,
        directory=directory,
        failures=Failures(burst=identity.failures, per_second=identity.failures_per_second),
        clock=clock,
        tokens=make_verifier(issuers, identity, clock) if issuers else None,
    )
    return IdentityParts(
        directory=directory,
        policies=policies,
        authenticator=authenticator,
        authoriser=Authoriser(policies, directory, facts_of, clock),
        handlers=IdentityHandlers(
            manager=Manager(store, directory, engine, identity, clock),
            explainer=Explainer(engine, policies, directory, facts_of, clock),
            authenticator=authenticator,
            settings=settings.http,
            hosts=hosts,
            scheme=scheme,
            resource=identity.resource,
        ),
    )


def make_verifier(issuers: Mapping[str, IssuerConfig], settings: IdentitySettings, clock: Clock) -> JoseVerifier:
    """What checks the tokens of `issuers`."""
    return JoseVerifier(
        {name: (issuer, _keys(name, issuer, settings, clock)) for name, issuer in issuers.items()}, clock
    )


def _keys(name: str, issuer: IssuerConfig, settings: IdentitySettings, clock: Clock) -> Jwks:
    source: JwksSource
    if issuer.jwks.startswith("file:"):
        source = JwksFile(Path(issuer.jwks.removeprefix("file:")))
    else:
        source = JwksUrl(issuer.jwks)
    return Jwks(name, source, clock, pause=settings.jwks_pause, fresh=settings.jwks_fresh, kept=settings.jwks_kept)
