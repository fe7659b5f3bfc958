"""The measurement of agents' own tests: what it writes is valid, and has the cases that are counted."""

from pathlib import Path

from benchmarks.trials import CASES, write
from chimera.agents.compile import compile_definition
from chimera.agents.validate import check_text


def test_each_agent_has_cases_with_a_scripted_model_that_can_fail(tmp_path: Path) -> None:
    files = sorted(write(tmp_path / "agents", 3).iterdir())
    made = [compile_definition(check_text(file.read_text(), file=str(file)), tenant="default").value for file in files]
    assert [one.agent.name for one in made] == ["agent-00000", "agent-00001", "agent-00002"]
    for one in made:
        assert len(one.tests) == CASES
        assert all(test.answers and test.expect.contains for test in one.tests)
