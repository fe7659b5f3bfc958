"""What can go wrong with tests and environments, beside a test that fails."""

from chimera_host.contract.problem import ProblemError


class TrialsError(ProblemError):
    """Agents could not be tested."""

    title = "The agents can't be tested"


class NotRun(TrialsError):
    """No gateway ran a test's call in time."""

    code = "trial-not-run"
    status = 504
    title = "The test was not run"


class UnknownTestRun(TrialsError):
    """No run of tests has this id."""

    code = "unknown-test-run"
    status = 404
    title = "There is no such run of tests"


class NothingToTest(TrialsError):
    """Nothing that is to be tested is there."""

    code = "nothing-to-test"
    status = 422
    title = "There is nothing to test"


class TooManyEnvironments(TrialsError):
    """The tenant has as many environments as it may have."""

    code = "too-many-environments"
    status = 429
    title = "There are too many environments"


class EnvironmentTooLarge(TrialsError):
    """An environment would hold more agents than it may."""

    code = "environment-too-large"
    status = 422
    title = "The environment would be too large"
