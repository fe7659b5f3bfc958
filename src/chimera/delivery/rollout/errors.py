"""What can go wrong with rollouts."""

from chimera_host.contract.problem import ProblemError


class UnknownRollout(ProblemError):
    """No rollout of the tenant has this id."""

    code = "unknown-rollout"
    status = 404
    title = "There is no such rollout"


class RolloutState(ProblemError):
    """What is asked can't be done to a rollout in its state."""

    code = "rollout-state"
    status = 409
    title = "The rollout is in another state"


class RolloutConflict(ProblemError):
    """Another rollout has some of these agents."""

    code = "rollout-conflict"
    status = 409
    title = "The agents are being rolled out"


class NothingToRollOut(ProblemError):
    """What is to be rolled out is live, or empty, or isn't there."""

    code = "nothing-to-roll-out"
    status = 409
    title = "There is nothing to roll out"
