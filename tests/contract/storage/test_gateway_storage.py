"""What the gateway relies on, whatever keeps it: routes, revisions."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from chimera.agents.compile import document_bytes
from chimera.platform.cells import cell_spec
from chimera.platform.model import Withdrawn
from chimera.testing.definitions import compiled
from chimera_host.contract.agent import AgentDocument


async def test_routes_come_in_order_of_change_and_in_pages(filled: Any) -> None:
    await filled.apply([compiled("anna"), compiled("bert"), compiled("carl")])
    await filled.apply([compiled("anna", metadata={"version": "1.1.0"})])

    first = await filled.store.changed_routes(0, 2)
    rest = await filled.store.changed_routes(first[-1].sequence, 10)

    assert [route.agent for route in (*first, *rest)] == ["bert", "carl", "anna"]
    sequences = [route.sequence for route in (*first, *rest)]
    assert sequences == sorted(set(sequences))
    assert await filled.store.changed_routes(sequences[-1], 10) == []


async def test_a_route_says_what_a_call_needs(filled: Any) -> None:
    agent = compiled(
        "anna",
        scaling={"max_instances": 2, "concurrency_target": 3},
        model={"name": "big"},
        capabilities={"communication_protocols": ["http", "openai"]},
    )
    await filled.apply([agent])

    (route,) = await filled.store.changed_routes(0, 10)

    assert (route.tenant, route.agent, route.status) == ("default", "anna", "live")
    assert (route.concurrency, route.model, route.protocols) == (6, "big", ("http", "openai"))
    assert route.framework == "autogen"
    assert await filled.store.cell(route.cell) == cell_spec(agent.value, max_hosts=7)


async def test_a_route_says_which_events_start_the_agent(filled: Any) -> None:
    agent = compiled(
        "anna",
        capabilities={"communication_protocols": ["events"]},
        subscriptions=[{"name": "failed", "types": ["task.failed"], "data": {"agent": "bert"}, "input": "{data}"}],
    )
    await filled.apply([agent, compiled("bert")])

    anna, bert = await filled.store.changed_routes(0, 10)

    assert anna.subscriptions == agent.value.subscriptions and bert.subscriptions == ()
    assert anna.subscriptions[0].types == ("chimera.task.failed",)


async def test_a_deleted_agent_is_a_change(filled: Any) -> None:
    await filled.apply([compiled("anna"), compiled("bert")])
    last = (await filled.store.changed_routes(0, 10))[-1].sequence

    await filled.delete("default", "anna")

    assert [(route.agent, route.status) for route in await filled.store.changed_routes(last, 10)] == [
        ("anna", "deleted")
    ]


async def test_a_revision_is_the_document_that_hosts_load(filled: Any) -> None:
    agent = compiled("anna", model={"temperature": 0.5, "seed": 1})
    await filled.apply([agent])
    (route,) = await filled.store.changed_routes(0, 10)

    data = await filled.store.document(route.revision)

    assert data == document_bytes(agent.value)
    assert msgspec.json.decode(data, type=AgentDocument) == agent.value.agent


async def test_what_is_not_there_is_none(filled: Any) -> None:
    digest = "sha256:" + "0" * 64
    assert await filled.store.document(digest) is None
    assert await filled.store.bundle(digest) is None
    assert await filled.store.cell("no-such-cell") is None


async def test_an_agent_that_has_a_green_side_alone_is_told_of_with_all_that_a_call_needs(filled: Any) -> None:
    await filled.apply([compiled("anna")])
    before = await filled.store.new_agents(-1, {})
    assert before.changed == ()
    helper = compiled(
        "helper", metadata={"tags": ["sums"]}, capabilities={"communication_protocols": ["http", "events"]}
    )
    await filled.green([helper])

    told = await filled.store.new_agents(before.sequence, {})

    (route,) = told.changed
    assert told.sequence > before.sequence
    assert (route.agent, route.revision, route.status, route.side) == ("helper", helper.digest, "live", "green")
    assert (route.rollout, route.tags, route.protocols) == ("ro-1", ("sums",), helper.value.protocols)
    assert (route.others, route.withdrawn) == ((), ())
    assert await filled.store.cell(route.cell) == cell_spec(helper.value, max_hosts=7)
    assert [one.agent for one in await filled.store.changed_routes(0, 10)] == ["anna"], "it is not live"
    known = {("default", "helper"): route}
    assert (await filled.store.new_agents(told.sequence, known)).changed == ()
    assert (await filled.store.new_agents(before.sequence, known)).changed == (), "it is known"
    assert (await filled.store.new_agents(-1, {})).changed == (route,), "whoever starts learns of it too"


@pytest.mark.parametrize("cancel", [False, True])
async def test_a_new_agent_that_is_taken_back_is_told_as_gone_with_what_becomes_of_its_calls(
    filled: Any, cancel: bool
) -> None:
    first, second = compiled("helper"), compiled("helper", metadata={"version": "1.1.0"})
    await filled.green([first])
    told = await filled.store.new_agents(-1, {})
    await filled.back([first], cancel=cancel)

    gone = await filled.store.new_agents(told.sequence, {("default", "helper"): told.changed[0]})

    (route,) = gone.changed
    assert (route.agent, route.status, route.revision) == ("helper", "deleted", first.digest)
    assert route.withdrawn == (Withdrawn(revision=first.digest, cancelled=cancel),)
    assert (await filled.store.new_agents(-1, {})).changed == ()
    await filled.green([second])
    (again,) = (await filled.store.new_agents(gone.sequence, {})).changed
    assert (again.revision, again.status) == (second.digest, "live")
    assert [one.revision for one in again.withdrawn] == [first.digest], "its sessions were of what was taken back"
    missed = await filled.store.new_agents(told.sequence, {("default", "helper"): told.changed[0]})
    assert missed.changed == (again,), "who has missed a step takes the last one"
    elsewhere = {("default", "helper"): replace(again, rollout="ro-0")}
    assert (await filled.store.new_agents(told.sequence, elsewhere)).changed == (again,), "another rollout has it"


async def test_a_new_agent_that_becomes_live_is_a_route_like_any(filled: Any) -> None:
    helper = compiled("helper")
    await filled.green([helper])
    told = await filled.store.new_agents(-1, {})
    await filled.promote([helper])

    (gone,) = (await filled.store.new_agents(told.sequence, {("default", "helper"): told.changed[0]})).changed
    (live,) = await filled.store.changed_routes(0, 10)

    assert gone.withdrawn == (), "none of its calls is ended"
    assert (live.agent, live.revision, live.side) == ("helper", helper.digest, "live")


async def test_an_agent_that_was_deleted_before_is_new(filled: Any) -> None:
    helper = compiled("helper")
    await filled.apply([helper])
    await filled.delete("default", "helper")
    await filled.green([helper])

    (route,) = (await filled.store.new_agents(-1, {})).changed

    assert (route.agent, route.revision, route.side) == ("helper", helper.digest, "green")
    assert "live" not in [one.status for one in await filled.store.changed_routes(0, 10)]
