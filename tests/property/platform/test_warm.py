"""What is kept warm: never more than the bound, whatever anybody defines."""

from dataclasses import replace

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from chimera.adapters.substrates.knative.plan import Apply, Wanted, plan
from chimera.delivery.trials.environment import name_of
from chimera.platform.cells import LARGE, MOST_DECLARATIVE_CELLS, STANDARD, cell_id
from chimera.platform.model import CellSpec, ResourceClass, RuntimeClass
from chimera.platform.warm import keep, shared

DEDICATED = ResourceClass(name="dedicated", cpu_millicores=100, memory_bytes=2**28)


@st.composite
def cells(draw: st.DrawFn) -> CellSpec:
    tenant, name = draw(st.sampled_from("abc")), draw(st.sampled_from("uvwxyz"))
    kind = draw(st.sampled_from(["tenant", "owner", "agent"]))
    isolation = f"tenant:{tenant}" if kind == "tenant" else f"{kind}:{tenant}/{name}"
    alone = kind == "agent" and draw(st.booleans())
    runtime = RuntimeClass(
        tenant=tenant,
        framework=draw(st.sampled_from(["autogen", "crewai", "langgraph", "function"])),
        runtime="python",
        isolation=isolation,
        resources=DEDICATED if alone else draw(st.sampled_from([STANDARD, LARGE])),
    )
    return CellSpec(
        cell=cell_id(runtime),
        runtime_class=runtime,
        min_hosts=draw(st.sampled_from([0, 0, 0, 1, 7, 1_000])),
        max_hosts=draw(st.sampled_from([1, 50, 1_000])),
    )


many = st.lists(cells(), max_size=40, unique_by=lambda cell: cell.cell)


@given(many, st.integers(0, 1_000), st.integers(0, 3_000), st.integers(1, 1_000))
def test_no_more_is_kept_than_the_bound_and_a_cell_never_more_than_it_may_have(
    found: list[CellSpec], pool: int, most: int, most_hosts: int
) -> None:
    kept = keep(found, pool=pool, most=most, most_hosts=most_hosts)
    assert sum(one.kept for one in kept.values()) <= most
    for cell in found:
        one = kept[cell.cell]
        assert 0 <= one.least <= one.kept <= one.wanted <= max(1, min(cell.max_hosts, most_hosts))
        assert one.least <= cell.min_hosts
        if not shared(cell):
            assert one.wanted <= max(1, cell.min_hosts), "a dedicated agent has no pool"
    if sum(one.wanted for one in kept.values()) <= most:
        assert all(one.kept == one.wanted for one in kept.values()), "and all of it where there is room"


@given(many, cells(), st.integers(0, 200), st.integers(0, 2_000))
def test_another_cell_moves_nothing_but_the_edge(found: list[CellSpec], other: CellSpec, pool: int, most: int) -> None:
    found = [cell for cell in found if cell.cell != other.cell]
    other = msgspec.structs.replace(other, min_hosts=0)
    before = keep(found, pool=pool, most=most)
    after = keep([*found, other], pool=pool, most=most)
    assert all(after[name].kept <= one.kept and after[name].least == one.least for name, one in before.items())
    lost = sum(one.kept - after[name].kept for name, one in before.items())
    assert lost <= after[other.cell].kept
    assert keep(reversed(found), pool=pool, most=most) == before


def test_types_that_share_a_cell_share_its_pool() -> None:
    """Twelve thousand declarative agents of any number of types make eight cells, and so eight pools at most."""
    runtimes = [
        RuntimeClass(
            tenant="default",
            framework=framework,  # type: ignore[arg-type]
            runtime="python",
            isolation="tenant:default",
            resources=resources,
        )
        for framework in ("autogen", "crewai", "langgraph", "function")
        for resources in (STANDARD, LARGE)
    ]
    found = [CellSpec(cell=cell_id(runtime), runtime_class=runtime) for runtime in runtimes]
    assert len(found) == MOST_DECLARATIVE_CELLS
    kept = keep(found, pool=100, most=1_000)
    assert [one.kept for one in kept.values()] == [100] * 8


def test_environments_of_tests_have_no_pool_and_take_none_from_production() -> None:
    runtimes = [
        RuntimeClass(
            tenant=tenant,
            framework="function",
            runtime="python",
            isolation=f"tenant:{tenant}",
            resources=STANDARD,
        )
        for tenant in ("default", name_of("default", "staging", "chg"))
    ]
    production, environment = (CellSpec(cell=cell_id(runtime), runtime_class=runtime) for runtime in runtimes)
    kept = keep([environment, production], pool=100, most=100)
    assert (kept[production.cell].kept, kept[environment.cell].kept) == (100, 0)
    assert kept[environment.cell].wanted == 0, "no condition says that its pool is missing"


@settings(deadline=None)
@given(many, st.integers(1, 20), st.integers(0, 300))
def test_no_definitions_make_more_cells_or_kept_pods_than_the_settings_allow(
    found: list[CellSpec], most_cells: int, most: int
) -> None:
    kept = keep(found, pool=100, most=most)
    wanted = {
        cell.cell: Wanted(cell=cell.cell, digest="one", least=kept[cell.cell].least, kept=kept[cell.cell].kept)
        for cell in found
    }
    decided = plan(wanted, {}, {}, 0.0, most=most_cells, grace=60.0)
    made = [action.name for action in decided.actions if isinstance(action, Apply)]
    assert len(made) <= most_cells
    assert sum(wanted[name].kept for name in made) <= most
    assert replace(decided, actions=()).memory == {}
