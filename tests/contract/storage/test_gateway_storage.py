"""What the gateway relies on, whatever keeps it: routes, revisions."""

from typing import Any

import msgspec

from chimera.agents.compile import document_bytes
from chimera.platform.cells import cell_spec
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
