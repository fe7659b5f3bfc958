"""What can be wrong with who asks, and with keys, roles and tenants."""

from chimera.gateway.errors import GatewayError
from chimera.gateway.policy.model import Denied


class Refused(GatewayError):
    """A decision went against the principal; `denied` says what was asked, for the audit log."""

    code = "refused"
    status = 403
    title = "This is refused"
    denied: Denied | None = None


class NotAllowed(Refused):
    """The principal may not do this: another tenant's, out of its key's scopes, or no policy permits it."""

    code = "not-allowed"
    status = 403
    title = "You may not do this"


class TenantSuspended(Refused):
    """The tenant is suspended: its data is kept, and nothing is done for it."""

    code = "tenant-suspended"
    status = 403
    title = "The tenant is suspended"


class TooManyFailures(GatewayError):
    """From this address came so many credentials that aren't valid that unknown ones aren't looked at for a while."""

    code = "too-many-failures"
    status = 429
    title = "Too many failed authentications"


class IssuerUnavailable(GatewayError):
    """The issuer's keys can't be had, so its tokens can't be checked."""

    code = "issuer-unavailable"
    status = 503
    title = "The issuer's keys can't be had"


class IdentityUnavailable(GatewayError):
    """Keys and roles can't be looked up in time, so nobody new is let in."""

    code = "identity-unavailable"
    status = 503
    title = "Keys and roles can't be looked up"


class KeyNotFound(GatewayError):
    """The tenant has no such API key."""

    code = "key-not-found"
    status = 404
    title = "There is no such key"


class KeyEnded(GatewayError):
    """The key is revoked or has expired, and can't be used or changed any more."""

    code = "key-ended"
    status = 409
    title = "The key has ended"


class TenantNotFound(GatewayError):
    """There is no such tenant."""

    code = "tenant-not-found"
    status = 404
    title = "There is no such tenant"


class TenantExists(GatewayError):
    """There is a tenant of this name."""

    code = "tenant-exists"
    status = 409
    title = "The tenant exists"


class MoreThanOwn(GatewayError):
    """Nobody gives more than they have: a role, a scope or a reach that the giver doesn't hold."""

    code = "more-than-own"
    status = 403
    title = "You can't give what you don't have"
