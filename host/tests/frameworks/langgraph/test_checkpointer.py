"""LangGraph's own suite for checkpointers, and what of ours it doesn't ask about."""

import pytest

from chimera_host.contract.agent import SourceCode
from chimera_host.contract.behaviour import Behaviour
from chimera_host.testing import conformance
from chimera_host.testing.builders import document, invoke_request

FRAMEWORK = "langgraph"
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("how", ["async", "blocking"])
async def test_langgraphs_own_suite_is_passed(platform, host, how):
    source = SourceCode(bundle=platform.add_bundle(conformance.source_files()), entrypoint="agent:factory")
    made = document("suite", "langgraph", source=source, behaviour=Behaviour())
    answer = await host.invoke(invoke_request(made, platform.add(made), how, run="run_1"))
    results = conformance.results(answer.output)
    assert results.keys() == conformance.CAPABILITIES
    assert all(one.detected and one.passed for one in results.values()), results
    assert sum(one.tests_passed for one in results.values()) >= 81
