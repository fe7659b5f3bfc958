"""Conditions over HTTP: pages by name, one subject, what is refused, and the gauges of whoever keeps them."""

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from chimera.entrypoints.control_plane.conditions import ConditionMetrics
from chimera.platform.condition_keeper import Judged
from chimera.platform.conditions import Evidence, Seen, cell_subject, judge
from chimera.platform.reasons import Reason


def judged(cell: str, *reasons: Reason) -> Judged:
    evidence = tuple(Evidence(reason=reason, message="why") for reason in reasons)
    one = Seen(subject=cell_subject(cell), tenant="default", evidence=evidence)
    return Judged(subject=one.subject, tenant=one.tenant, conditions=judge(one, (), 1.0))


async def test_conditions_come_in_pages_with_cause_and_next_step(client) -> None:
    await client.conditions.put([judged(f"c{number}", Reason.QUOTA_EXCEEDED) for number in range(5)], [], None)
    first = (await client.ask("GET", "/v1/conditions?limit=3")).json
    assert [one["subject"] for one in first["subjects"]] == ["cells/c0", "cells/c1", "cells/c2"]
    rest = (await client.ask("GET", f"/v1/conditions?after={first['next']}")).json
    assert [one["subject"] for one in rest["subjects"]] == ["cells/c3", "cells/c4"] and rest["next"] is None
    only = (await client.ask("GET", "/v1/conditions?subject=cells/c1")).json
    (ready,) = [one for one in only["subjects"][0]["conditions"] if one["type"] == "Ready"]
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", "QuotaExceeded", "why")
    assert "ResourceQuota" in ready["next_step"]
    assert (await client.ask("GET", "/v1/conditions?subject=cells/none")).json == {"subjects": [], "next": None}


async def test_what_is_no_page_is_refused(client) -> None:
    for query in ("subject=home&limit=x", "limit=0", "limit=many", "limit=100000", "colour=red"):
        answer = await client.ask("GET", f"/v1/conditions?{query}")
        assert (answer.status, answer.json["code"]) == (400, "invalid-request"), query


def test_the_gauges_count_by_reason_and_never_by_cell() -> None:
    registry = CollectorRegistry()
    registry.register(ConditionMetrics(lambda: {("Ready", "False", "CrashLoop"): 3, ("Ready", "True", "AsWanted"): 9}))
    page = generate_latest(registry).decode()
    assert 'chimera_conditions{reason="CrashLoop",status="False",type="Ready"} 3.0' in page
    assert 'chimera_conditions{reason="AsWanted",status="True",type="Ready"} 9.0' in page
