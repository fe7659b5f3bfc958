"""What can be wrong with policies."""

from chimera.gateway.errors import GatewayError


class InvalidPolicy(GatewayError):
    """The text is no Cedar policy, or asks for what the schema doesn't have."""

    code = "invalid-policy"
    status = 422
    title = "The policy is not valid"


class PolicyNotFound(GatewayError):
    """There is no policy of this name."""

    code = "policy-not-found"
    status = 404
    title = "There is no such policy"


class TooManyPolicies(GatewayError):
    """The tenant has as many policies as it may have, or one is too long."""

    code = "too-many-policies"
    status = 409
    title = "No room for the policy"
