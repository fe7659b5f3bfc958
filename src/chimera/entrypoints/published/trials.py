"""The operations on runs of agents' own tests, which the control plane serves and the gateway passes on."""

from typing import Annotated

from msgspec import Meta, Struct

from chimera.delivery.trials.model import CaseResult, Run
from chimera.entrypoints.published.operation import TENANT, of_control_plane
from chimera.entrypoints.published.parameters import HEADER_KEY, KEY, one_of, page

RUN = TENANT + "/tests/{run}"
MOST_AGENTS = 20_000


class TestsBody(Struct, frozen=True, kw_only=True):
    """What to test: live `agents` by name, the definitions of a `batch` that isn't committed, or `all` live agents."""

    __test__ = False  # it is no test, whatever its name begins with

    agents: Annotated[list[str], Meta(max_length=MOST_AGENTS)] = []
    batch: str | None = None
    all: bool = False


class RunPage(Struct, frozen=True, kw_only=True):
    """Runs, the newest first; `next` is what to go on after, where there are more."""

    runs: list[Run]
    next: str | None = None


class ResultPage(Struct, frozen=True, kw_only=True):
    """Results by agent and case; `next` is what to go on after, where there are more."""

    results: list[CaseResult]
    next: str | None = None


_operation = of_control_plane("tests", action="test:read")

TRIALS = (
    _operation(
        *("POST", TENANT + "/tests", "run_tests", "Run agents' own tests", Run, "test:run"),
        body=TestsBody,
        headers=((HEADER_KEY, KEY, "running again with the same one finds the same run"),),
        status=202,
    ),
    _operation(
        *("GET", TENANT + "/tests", "list_test_runs", "Runs of tests, newest first", RunPage), query=page("runs")
    ),
    _operation("GET", RUN, "get_test_run", "How far a run of tests is", Run),
    _operation(
        *("GET", RUN + "/results", "list_test_results", "What came of the tests of a run", ResultPage),
        query=(("outcome", one_of("passed", "failed", "skipped"), "only these"), *page("results")),
    ),
    _operation("POST", RUN + "/cancel", "cancel_test_run", "End a run of tests", Run, "test:run"),
)
