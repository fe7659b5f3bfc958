"""Placement: what may never share a process doesn't, what may share does, and cells stay few."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.agents.compile import Bundle, CompiledAgent, compile_definition
from chimera.agents.validate import check_data
from chimera.kernel.ids import is_name
from chimera.platform.cells import (
    FRAMEWORK_BYTES,
    MOST_DECLARATIVE_CELLS,
    cell_id,
    cell_spec,
    runtime_class,
    unservable_here,
    unservable_in_cluster,
)
from chimera.testing.definitions import FRAMEWORKS, definition

NODE = "node:18-alpine"
RUNTIMES = ("python:3.11-slim", NODE)
IMAGES = ("registry.example/team/agent:1", "python:3.12-slim")
names = st.text("abcz09", min_size=1, max_size=6)
digests = st.sampled_from([f"sha256:{digit * 64}" for digit in "abc"])


@st.composite
def agents(draw: st.DrawFn, *, code: bool | None = None, runtimes: tuple[str, ...] = RUNTIMES) -> CompiledAgent:
    """Any agent, as far as placement is concerned."""
    name = draw(names)
    brings_code = draw(st.booleans()) if code is None else code
    framework = draw(st.sampled_from(FRAMEWORKS))
    on_node = brings_code and framework in ("LangGraph", "function")
    possible = [runtime for runtime in runtimes if on_node or runtime != NODE]
    changes: dict[str, Any] = {
        "specification": {
            "framework": framework,
            "runtime": draw(st.sampled_from(possible)),
            "resources": {
                "cpu": f"{draw(st.integers(100, 2000))}m",
                "memory": f"{draw(st.integers(128, 4096))}Mi",
            },
        },
        "scaling": {
            "min_instances": draw(st.integers(0, 3)),
            "max_instances": draw(st.integers(3, 1000)),
            "concurrency_target": draw(st.integers(1, 50)),
        },
    }
    bundle = None
    if brings_code:
        changes["specification"] |= {"source": "./code", "entrypoint": "main:make"}
        bundle = Bundle(digest=draw(digests), requirements=draw(st.none() | digests))
        changes["owner"] = draw(st.none() | st.fixed_dictionaries({"team": names}))
    if code is None:
        changes["isolation"] = draw(st.sampled_from(["shared", "dedicated"]))
    checked = check_data(definition(name, **changes))
    return compile_definition(checked, tenant=draw(st.sampled_from(["default", "other"])), bundle=bundle)


def cell_of(agent: CompiledAgent) -> str:
    return cell_spec(agent.value, max_hosts=100).cell


@settings(max_examples=300, deadline=None)
@given(agents(), agents())
def test_agents_that_may_not_mix_have_cells_of_their_own(one: CompiledAgent, other: CompiledAgent) -> None:
    if cell_of(one) != cell_of(other):
        return
    a, b = one.value, other.value
    assert a.agent.tenant == b.agent.tenant
    assert a.agent.framework == b.agent.framework
    assert a.runtime == b.runtime
    if "dedicated" in (a.isolation, b.isolation):
        assert (a.agent.name, a.isolation) == (b.agent.name, b.isolation)
    assert (a.agent.source is None) == (b.agent.source is None) or a.isolation == "dedicated"
    if a.agent.source and b.agent.source:
        assert a.agent.source.requirements == b.agent.source.requirements
        assert a.agent.name == b.agent.name or (a.owner and b.owner and a.owner.team == b.owner.team)


@settings(max_examples=50, deadline=None)
@given(st.lists(agents(code=False), max_size=60))
def test_declarations_make_few_cells_however_many_they_are(fleet: list[CompiledAgent]) -> None:
    for tenant in ("default", "other"):
        cells = {cell_of(agent) for agent in fleet if agent.value.agent.tenant == tenant}
        assert len(cells) <= MOST_DECLARATIVE_CELLS


def test_the_bound_of_declarative_cells_is_reached() -> None:
    cells = set()
    for framework in FRAMEWORKS:
        for memory in ("128Mi", "4Gi"):
            specification = {"framework": framework, "resources": {"memory": memory}}
            checked = check_data(definition("a", specification=specification))
            cells.add(cell_of(compile_definition(checked, tenant="default")))
    assert len(cells) == MOST_DECLARATIVE_CELLS == 8


@settings(max_examples=100, deadline=None)
@given(agents(), st.integers(1, 1000))
def test_bounds_of_a_cell(agent: CompiledAgent, most: int) -> None:
    spec = cell_spec(agent.value, max_hosts=most)
    value = agent.value
    assert spec.min_hosts == value.min_instances
    if value.isolation == "dedicated":
        asked = value.agent.resources
        assert spec.max_hosts == min(most, value.max_instances)
        assert (spec.target, spec.idle_timeout) == (value.concurrency_target, value.idle_timeout)
        assert spec.runtime_class.resources.cpu_millicores == asked.cpu_millicores
        above = spec.runtime_class.resources.memory_bytes - asked.memory_bytes
        assert above == FRAMEWORK_BYTES[value.agent.framework]
    else:
        assert (spec.max_hosts, spec.target, spec.idle_timeout) == (most, 10.0, 300.0)
        assert spec.runtime_class.resources.memory_bytes >= value.agent.resources.memory_bytes
        assert spec.runtime_class.resources.cpu_millicores >= value.agent.resources.cpu_millicores


@settings(max_examples=100, deadline=None)
@given(agents(runtimes=RUNTIMES + IMAGES))
def test_one_machine_says_what_it_can_not_run_and_what_to_do(agent: CompiledAgent) -> None:
    why = unservable_here(agent.value)
    assert (why is not None) == (agent.value.runtime in IMAGES)
    assert (runtime_class(agent.value).image is not None) == (agent.value.runtime in IMAGES)
    if why is not None:
        assert agent.value.runtime in why
        assert "Kubernetes" in why


@settings(max_examples=100, deadline=None)
@given(agents(runtimes=RUNTIMES + IMAGES))
def test_a_cluster_says_what_it_can_not_run_and_what_to_do(agent: CompiledAgent) -> None:
    why = unservable_in_cluster(agent.value)
    source = agent.value.agent.source
    installs = source is not None and source.requirements is not None and agent.value.runtime not in IMAGES
    assert (why is not None) == installs
    if why is not None:
        assert "build an image" in why


@settings(max_examples=100, deadline=None)
@given(agents())
def test_a_cells_name_says_what_it_is(agent: CompiledAgent) -> None:
    name = cell_id(runtime_class(agent.value))
    assert name.startswith(f"{agent.value.agent.tenant}-{agent.value.agent.framework}-")
    assert is_name(name)


@pytest.mark.parametrize(("command", "alone"), [(["npx", "server"], True), (None, False)])
def test_starting_a_server_is_code_and_reaching_one_is_not(command: list[str] | None, alone: bool) -> None:
    reach = {"command": command} if command else {"url": "https://tools.example/mcp"}
    tools = [{"type": "mcp", "name": "search", "allow": ["find"], **reach}]
    plain, with_tool = (
        compile_definition(check_data(definition(name, **more)), tenant="default")
        for name, more in [("plain", {}), ("tooled", {"tools": tools})]
    )
    assert (cell_of(plain) != cell_of(with_tool)) is alone
