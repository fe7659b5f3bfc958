"""Agents as resources: into the catalogue, out of it again, and what they are told."""

import asyncio
import math
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from chimera.adapters.substrates.knative import client
from chimera.adapters.substrates.knative.resources.kinds import AGENTS
from chimera.agents.template_library import template_names
from chimera.testing.cluster import refusal
from chimera.testing.definitions import compiled, definition, fleet, staged

MANY = int(os.environ.get("CHIMERA_TEST_AGENTS", "170"))


async def test_an_agent_comes_changes_and_goes_with_its_resource(rig: Any) -> None:
    await rig.apply("one")
    told = await rig.phase("one", "Live")
    row = await rig.catalogue.agent("default", "one")
    assert (row["owner"], row["file"]) == ("team/one", "Agent team/one")
    assert (told["revision"], told["version"], told["cell"], told["tenant"]) == (
        *(row["revision"], row["version"], row["cell"]),
        "default",
    )
    assert rig.condition("one")["status"] == "True" and rig.condition("one", kind="Conflict")["status"] == "False"
    assert rig.condition("one")["observedGeneration"] == told["observedGeneration"] == 1

    await rig.apply("one", metadata={"description": "Changed."})
    await rig.until(
        lambda: rig.status("one")["observedGeneration"] == 2 and rig.status("one")["revision"] != row["revision"]
    )
    assert (await rig.catalogue.agent("default", "one"))["description"] == "Changed."
    await rig.delete("one")

    async def gone() -> bool:
        return await rig.catalogue.agent("default", "one") is None

    await rig.until(gone)
    history = await rig.catalogue.history("default", "one")
    assert [one.revision is None for one in history] == [True, False, False]
    assert {one.by for one in history} == {"system:operator"}


async def test_the_name_is_the_resources_own(rig: Any) -> None:
    spec = definition("whatever")
    del spec["metadata"]["name"]
    await rig.api.apply(AGENTS, _manifest("named", spec), force=True)
    await rig.phase("named", "Live")
    assert await rig.owners() == {"named": "team/named"}


async def test_a_definition_that_is_not_valid_says_all_that_is_wrong_and_the_one_before_stays(rig: Any) -> None:
    await rig.apply("one")
    before = (await rig.phase("one", "Live"))["revision"]
    since = rig.condition("one")["lastTransitionTime"]
    await rig.apply("one", scaling={"min_instances": 5, "max_instances": 2}, isolation="alone")
    told = await rig.phase("one", "Invalid")
    message = rig.condition("one")["message"]
    assert "isolation" in message and "min_instances" in message and "stays in service" in message
    assert rig.condition("one")["status"] == "False" and told["revision"] == before
    assert rig.condition("one")["lastTransitionTime"] >= since
    assert await rig.owners() == {"one": "team/one"}
    await rig.apply("one")
    await rig.phase("one", "Live")


async def test_one_that_is_not_valid_keeps_no_other_from_going(rig: Any) -> None:
    await rig.apply("bad", isolation="alone")
    await rig.apply("good")
    await rig.phase("bad", "Invalid")
    await rig.phase("good", "Live")
    assert rig.status("bad").get("revision") is None


async def test_code_of_its_own_cannot_come_by_a_resource(rig: Any) -> None:
    await rig.apply("coded", specification={"source": "code", "entrypoint": "agent:make"})
    await rig.phase("coded", "NeedsCode")
    assert "chimera apply" in rig.condition("coded")["message"]


async def test_an_agent_of_the_api_stays_the_apis_until_it_is_deleted_there(rig: Any) -> None:
    await rig.catalogue.apply("default", staged(compiled("one")), keep_going=False, expect=None, by="user:me")
    await rig.apply("one")
    await rig.phase("one", "Conflict")
    assert "through the API" in rig.condition("one", kind="Conflict")["message"]
    assert rig.condition("one", kind="Conflict")["status"] == "True" and rig.condition("one")["status"] == "False"
    assert await rig.owners() == {"one": None}
    await rig.quiet()
    await rig.catalogue.delete_agents("default", ["one"])
    await rig.phase("one", "Live")
    assert await rig.owners() == {"one": "team/one"}
    assert rig.condition("one", kind="Conflict")["status"] == "False"


async def test_of_two_namespaces_one_has_the_name_and_the_other_waits_for_it(rig: Any) -> None:
    await rig.apply("one", "first")
    await rig.phase("one", "Live", "first")
    await rig.apply("one", "second", metadata={"description": "The other."})
    await rig.phase("one", "Conflict", "second")
    assert "in the namespace first" in rig.condition("one", "second", kind="Conflict")["message"]
    await rig.delete("one", "first")
    await rig.phase("one", "Live", "second")
    assert await rig.owners() == {"one": "second/one"}


async def test_namespaces_go_to_the_tenants_that_are_set(make: Callable[..., Any]) -> None:
    rig = make(tenant="", tenants=("bank=finance", "shop=retail"))
    rig.start()
    await rig.apply("one", "bank")
    await rig.apply("one", "shop")
    await rig.apply("one", "elsewhere")
    await rig.phase("one", "Live", "bank")
    await rig.phase("one", "Live", "shop")
    await rig.phase("one", "NoTenant", "elsewhere")
    assert await rig.owners("finance") == {"one": "bank/one"} and await rig.owners("retail") == {"one": "shop/one"}
    assert await rig.owners() == {}


async def test_templates_of_the_namespace_are_laid_under_and_their_changes_reach_the_agents(rig: Any) -> None:
    await rig.template(
        "careful", behaviour={"autogen": {"kind": "conversational", "system_message": "Mind {description}"}}
    )
    await rig.apply("one", extends="careful", metadata={"description": "the step"})
    await rig.phase("one", "Live")
    await rig.phase("careful", "Ready", plural="agenttemplates")

    async def message() -> str:
        row = await rig.catalogue.agent("default", "one")
        value = await rig.catalogue.canonical("default", row["revision"])
        return str(value.agent.behaviour.autogen.system_message)

    assert await message() == "Mind the step"
    await rig.template(
        "careful", behaviour={"autogen": {"kind": "conversational", "system_message": "Watch {description}"}}
    )

    async def changed() -> bool:
        return await message() == "Watch the step"

    await rig.until(changed)
    await rig.apply("two", "other", extends="careful")
    await rig.phase("two", "Invalid", "other")
    assert "careful" in rig.condition("two", "other")["message"], "a template is for its namespace"
    await rig.template("careful", "other", behaviour=told("Other"))
    await rig.phase("two", "Live", "other")


async def test_a_template_with_the_name_of_one_of_the_release_is_told_so(rig: Any) -> None:
    taken = template_names()[0]
    await rig.template(taken, behaviour={})
    await rig.phase(taken, "NameTaken", plural="agenttemplates")


async def test_nothing_is_written_and_nothing_read_where_nothing_changes(rig: Any) -> None:
    for spec in fleet(30):
        await rig.apply(spec["metadata"]["name"])
    await rig.apply("bad", isolation="alone")
    await rig.until(lambda: rig.operator.agents.phases == {"Live": 30, "Invalid": 1})
    await rig.quiet()
    calls, sequence, passes = Counter(rig.cluster.calls), await rig.catalogue.sequence(), rig.operator.agents.passes
    await asyncio.sleep(20 * rig.settings.poll)
    assert rig.cluster.calls == calls, "no call, but the watches that are open"
    assert await rig.catalogue.sequence() == sequence and rig.operator.agents.passes == passes
    assert calls["WATCH", "agents"] == 1 and calls["GET", "agents"] == 1
    assert calls["PATCH", "agents/status"] == 31, "one status each"

    await rig.again()
    await rig.until(lambda: rig.operator.agents.phases == {"Live": 30, "Invalid": 1})
    await rig.quiet()
    assert rig.cluster.calls["PATCH", "agents/status"] == 31, "another operator finds nothing to do"
    assert await rig.catalogue.sequence() == sequence


async def test_what_was_deleted_while_no_operator_ran_goes_when_one_does(make: Callable[..., Any]) -> None:
    rig = make(grace=0.4)
    rig.start()
    for name in ("one", "two"):
        await rig.apply(name)
        await rig.phase(name, "Live")
    await rig.stop()
    await rig.delete("one")
    await rig.apply("two", metadata={"description": "Changed meanwhile."})
    await rig.apply("three")
    await rig.again()
    await rig.phase("three", "Live")
    assert "one" in await rig.owners(), "a cluster that is restored has time to get its resources back"

    async def done() -> bool:
        return await rig.owners() == {"two": "team/two", "three": "team/three"}

    await rig.until(done)
    assert (await rig.catalogue.agent("default", "two"))["description"] == "Changed meanwhile."


async def test_a_list_that_fails_deletes_nothing(make: Callable[..., Any]) -> None:
    rig = make()
    rig.start()
    await rig.apply("one")
    await rig.phase("one", "Live")
    await rig.stop()
    rig.cluster.faults.append(refusal(404, "NotFound", "the server could not find the requested resource"))
    await rig.again()
    await asyncio.sleep(0.5)
    assert await rig.owners() == {"one": "team/one"}


async def test_a_watch_that_forgot_is_listed_anew_and_what_went_meanwhile_goes(rig: Any) -> None:
    for name in ("one", "two"):
        await rig.apply(name)
        await rig.phase(name, "Live")
    await rig.quiet()
    rig.cluster._kept.pop(("agents", "team", "one"))  # its event is lost
    rig.cluster.forget()
    rig.cluster.cut_watches()

    async def done() -> bool:
        return await rig.owners() == {"two": "team/two"}

    await rig.until(done)


async def test_what_changes_while_a_status_is_written_is_not_forgotten(rig: Any, monkeypatch: Any) -> None:
    """Its answer comes after the watch has brought the change, and is older."""
    writing = rig.api.apply

    async def slow(resource: Any, document: Any, **how: Any) -> Any:
        made = await writing(resource, document, **how)
        if how.get("part") == "status":
            monkeypatch.setattr(rig.api, "apply", writing)
            await rig.apply("one", metadata={"description": "Changed."})
            await rig.until(lambda: rig.operator.agents.agents.objects["team", "one"].metadata.generation == 2)
        return made

    monkeypatch.setattr(rig.api, "apply", slow)
    await writing(AGENTS, _manifest("one", definition("one")), force=True, manager="kubectl")
    await rig.until(lambda: rig.status("one").get("observedGeneration") == 2)
    assert (await rig.catalogue.agent("default", "one"))["description"] == "Changed."


@pytest.mark.parametrize("anew", [False, True])
async def test_a_change_that_a_status_answers_with_is_seen_though_the_watch_never_brings_it(
    rig: Any, monkeypatch: Any, anew: bool
) -> None:
    """The watch has forgotten, and the list that follows has the version that was written already."""
    writing = rig.api.apply

    async def late(resource: Any, document: Any, **how: Any) -> Any:
        if how.get("part") != "status":
            return await writing(resource, document, **how)
        monkeypatch.setattr(rig.api, "apply", writing)
        away = refusal(503, "ServiceUnavailable", "not now")
        rig.cluster.faults.append(lambda request: away(request) if request.query.get("watch") == "1" else None)
        rig.cluster.cut_watches()
        await rig.until(lambda: rig.operator.agents.agents.failure is not None)
        if anew:
            await rig.delete("one")
        await rig.apply("one", metadata={"description": "Changed."})
        made = await writing(resource, document, **how)
        rig.cluster.forget()
        rig.cluster.faults.clear()
        return made

    monkeypatch.setattr(rig.api, "apply", late)
    await writing(AGENTS, _manifest("one", definition("one")), force=True, manager="kubectl")

    async def taken() -> bool:
        return ((await rig.catalogue.agent("default", "one")) or {}).get("description") == "Changed."

    await rig.until(taken)
    generation = rig.cluster.object("agents", "team", "one")["metadata"]["generation"]
    await rig.until(lambda: rig.status("one").get("observedGeneration") == generation == (1 if anew else 2))


async def test_an_api_server_that_has_too_much_to_do_is_left_alone_and_told_later(make: Callable[..., Any]) -> None:
    rig = make()
    throttled = refusal(429, "TooManyRequests", "slow down", Retry_After="1")
    rig.cluster.faults.append(lambda request: throttled(request) if "/status" in request.path else None)
    rig.start()
    for spec in fleet(20):
        await rig.apply(spec["metadata"]["name"])

    async def applied() -> bool:
        return len(await rig.owners()) == 20

    await rig.until(applied)
    await rig.until(lambda: rig.cluster.calls["PATCH", "agents/status"] > 0)
    tried = rig.cluster.calls["PATCH", "agents/status"]
    await asyncio.sleep(0.5)
    assert rig.cluster.calls["PATCH", "agents/status"] <= tried + 8, "not asked again before the server's own time"
    rig.cluster.faults.clear()
    await rig.until(lambda: all(rig.status(spec["metadata"]["name"]).get("phase") == "Live" for spec in fleet(20)))


async def test_an_object_that_refuses_its_status_waits_alone(make: Callable[..., Any]) -> None:
    rig = make()
    refused = refusal(422, "Invalid", "status.phase: not this one")
    rig.cluster.faults.append(lambda request: refused(request) if "/odd/status" in request.path else None)
    rig.start()
    await rig.apply("odd")
    await rig.apply("plain")
    await rig.phase("plain", "Live")
    await asyncio.sleep(0.5)
    assert rig.cluster.calls["PATCH", "agents/status"] == 2, "one try each, and then a pause"
    assert rig.status("odd") == {} and set(await rig.owners()) == {"odd", "plain"}


async def test_of_several_operators_one_works(make: Callable[..., Any]) -> None:
    one, other = make(), make()
    one.start("one")
    await one.until(lambda: one.operator.leading)
    other.start("other")
    await one.apply("a")
    await one.phase("a", "Live")
    assert not other.operator.leading and other.operator.agents.passes == 0
    await one.stop()
    await one.apply("b")
    await other.until(lambda: other.operator.leading)
    await one.phase("b", "Live")


async def test_many_go_in_few_transactions_with_one_list_and_a_status_each(
    make: Callable[..., Any],
) -> None:
    """`CHIMERA_TEST_AGENTS` sets how many; 12,000 take minutes, most of them in the cluster that is played here."""
    batch = max(50, MANY // 12)
    rig = make(batch=batch)
    for spec in fleet(MANY):
        meta = {"name": spec["metadata"]["name"], "namespace": "team"}
        await rig.cluster.put(
            "agents", {"apiVersion": AGENTS.api_version, "kind": "Agent", "metadata": meta, "spec": spec}
        )
    began = time.perf_counter()
    rig.start()
    await rig.until(lambda: rig.operator.agents.phases == {"Live": MANY}, 30.0 + MANY / 20)
    print(f"{MANY} Agents in the catalogue after {time.perf_counter() - began:.1f} s")
    await rig.until(lambda: rig.cluster.calls["PATCH", "agents/status"] == MANY, 30.0 + MANY / 20)
    print(f"and told so after {time.perf_counter() - began:.1f} s")
    assert len({one["batch"] for one in await rig.facts("batch.committed")}) == math.ceil(MANY / batch)
    pages = math.ceil(MANY / client.PAGE)
    assert (rig.cluster.calls["GET", "agents"], rig.cluster.calls["WATCH", "agents"]) == (pages, 1)


async def test_what_the_operator_does_is_in_the_audit_log_with_the_resource(rig: Any) -> None:
    await rig.apply("one")
    await rig.phase("one", "Live")
    await rig.delete("one")

    async def gone() -> bool:
        return await rig.owners() == {}

    await rig.until(gone)
    created, deleted = [*await rig.facts("agent.created"), *await rig.facts("agent.deleted")]
    assert (created["owner"], created["by"]) == ("team/one", "system:operator")
    assert (deleted["owner"], deleted["by"]) == ("team/one", "system:operator")


def told(text: str) -> dict[str, Any]:
    return {"autogen": {"kind": "conversational", "system_message": text}}


def _manifest(name: str, spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "team"}
    return {"apiVersion": AGENTS.api_version, "kind": "Agent", "metadata": meta, "spec": spec}
