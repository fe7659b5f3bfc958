"""How a rollout begins: a new agent is on its way before those of the change that call it."""

from typing import Any

from chimera.delivery.rollout.beginning import members_of
from chimera.delivery.rollout.model import Item, Policy
from chimera.testing.definitions import compiled

TOOL = {"type": "agent", "name": "ask", "agent": "helper"}
LETTER = {"type": "message", "name": "tell", "agent": "helper", "reply": False}


def begun(*items: tuple[Any, Any]) -> list[tuple[str, int]]:
    """The members of a rollout from old to new agents, with their waves."""
    made = [
        Item(agent=new.value.agent.name, revision=new.digest, before=None if old is None else old.digest)
        for old, new in items
    ]
    definitions = {one.digest: one.value for pair in items for one in pair if one is not None}
    return [(one.agent, one.wave) for one in members_of(made, definitions, {}, Policy(canary=1, waves=(0.5,)), 0.0)]


def test_a_new_agent_is_in_the_wave_of_the_first_that_calls_or_writes_to_it_and_before_it() -> None:
    helper = compiled("helper", capabilities={"communication_protocols": ["http", "events"]})
    for tool in (TOOL, LETTER):
        clerk = compiled("clerk"), compiled("clerk", tools=[tool])
        assert begun((None, helper), clerk) == [("helper", 0), ("clerk", 0)]
        assert begun(clerk, (None, helper)) == [("helper", 0), ("clerk", 0)]


def test_one_that_is_live_already_or_that_nobody_calls_is_put_where_it_would_be() -> None:
    old, new = compiled("helper"), compiled("helper", model={"temperature": 0.5})
    clerk = compiled("clerk"), compiled("clerk", tools=[TOOL])
    assert sorted(wave for _, wave in begun((old, new), clerk)) == [0, 1]
    assert sorted(wave for _, wave in begun((None, compiled("other")), clerk)) == [0, 1]
