"""The calls in flight, by agent: who looks for those of one steps over no other's."""

from msgspec.structs import replace

from chimera.gateway.calls import CallTable, InFlightCall
from chimera.platform.model import Route
from chimera_host.trace import new_trace


def call(name: str, agent: str, tenant: str = "default") -> InFlightCall:
    route = Route(tenant=tenant, agent=agent, revision="r", cell="c", framework="function", sequence=1)
    return InFlightCall(call=name, route=route, deadline=60.0, trace=new_trace())


def test_calls_are_found_by_their_agent_until_they_end() -> None:
    table = CallTable(depth=4, family=100)
    first, second, others, elsewhere = (
        *(call("1", "anna"), call("2", "anna")),
        *(call("3", "bert"), call("4", "anna", "other")),
    )
    for one in (first, second, others, elsewhere):
        table.add(one)
    assert set(table.of_agent("default", "anna")) == {first, second}
    assert table.of_agent("other", "anna") == [elsewhere]
    table.move(first, replace(first.route, revision="r2", cell="d"))
    table.remove(first)
    assert table.of_agent("default", "anna") == [second]
    table.remove(second)
    assert table.of_agent("default", "anna") == []
    assert not table.in_session("default", "anna", "s")
