"""Several installations in one cluster: each takes the namespaces that are its own; one tells of what nobody takes."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chimera.adapters.storage.migrating import migrate
from chimera.adapters.storage.naming import open_named
from chimera.adapters.substrates.knative import names
from chimera.adapters.substrates.knative.admission.manifests import configuration_name
from chimera.adapters.substrates.knative.resources.claims import CLAIM

OWN, OTHER = "chimera", "platform-b"


async def installed(rig: Any, namespace: str, day: int) -> None:
    """What an installation leaves in the cluster, by which others know it."""
    by_helm = {names.MANAGED_BY: "Helm"} if namespace == OTHER else {}  # which makes itself the manager of it
    labels = {names.MANAGED_BY: names.MANAGER, names.PART_OF: names.MANAGER, **by_helm}
    meta = {"name": configuration_name(namespace), "labels": labels, "creationTimestamp": f"2026-01-{day:02}T00:00:00Z"}
    await rig.cluster.put("validatingwebhookconfigurations", {"metadata": meta})


async def uninstalled(rig: Any, namespace: str) -> None:
    await rig.cluster.remove("validatingwebhookconfigurations", "", configuration_name(namespace))


async def claimed(rig: Any, namespace: str, by: str | None) -> None:
    labels = {CLAIM: by} if by else {}
    await rig.cluster.put("namespaces", {"metadata": {"name": namespace, "labels": labels}})


async def test_what_another_installation_claims_is_left_alone(rig: Any) -> None:
    await installed(rig, OWN, 1)
    await installed(rig, OTHER, 2)
    await claimed(rig, "theirs", OTHER)
    await claimed(rig, "ours", OWN)
    await rig.template("crew", "theirs")
    for name, namespace in (("one", "theirs"), ("two", "ours"), ("three", "team")):
        await rig.apply(name, namespace)
    await rig.phase("two", "Live", "ours")
    await rig.phase("three", "Live", "team")  # which says nothing, and this installation was first
    await rig.quiet()
    assert await rig.owners() == {"two": "ours/two", "three": "team/three"}
    assert rig.status("one", "theirs") == rig.status("crew", "theirs", "agenttemplates") == {}, "not a word of ours"


async def test_an_installation_that_came_later_takes_what_names_it_alone(make: Callable[..., Any]) -> None:
    rig = make()
    await installed(rig, OTHER, 1)
    await claimed(rig, "ours", OWN)
    rig.start()  # its own webhook's configuration is applied last
    await rig.apply("one", "team")
    await rig.apply("two", "ours")
    await rig.phase("two", "Live", "ours")
    await installed(rig, OWN, 2)
    await rig.quiet()
    assert await rig.owners() == {"two": "ours/two"} and rig.status("one") == {}
    await uninstalled(rig, OTHER)
    await rig.phase("one", "Live")


async def test_what_nobody_takes_is_told_by_the_oldest_and_taken_when_it_is_claimed(rig: Any) -> None:
    await installed(rig, OWN, 1)
    await installed(rig, OTHER, 2)
    await claimed(rig, "lost", "plattform-b")
    await rig.apply("one", "lost")
    await rig.phase("one", "NotClaimed", "lost")
    told = rig.condition("one", "lost")
    assert told["status"] == "False" and told["reason"] == "NotClaimed"
    assert "plattform-b" in told["message"] and CLAIM in told["message"] and "Take the label away" in told["message"]
    assert await rig.owners() == {}
    await rig.quiet()
    calls = Counter(rig.cluster.calls)
    await asyncio.sleep(0.3)
    assert rig.cluster.calls == calls, "and in calm nothing is asked or written"
    await claimed(rig, "lost", None)
    await rig.phase("one", "Live", "lost")
    assert await rig.owners() == {"one": "lost/one"}


async def test_a_namespace_that_changes_hands_takes_its_agents_with_it_after_a_while(make: Callable[..., Any]) -> None:
    rig = make(grace=0.7)
    rig.start()
    await installed(rig, OWN, 1)
    await installed(rig, OTHER, 2)
    await rig.apply("one", "team")
    await rig.phase("one", "Live")
    await claimed(rig, "team", OTHER)
    await asyncio.sleep(0.3)
    assert await rig.owners() == {"one": "team/one"}, "a label is written by hand: there is time to correct it"
    await claimed(rig, "team", None)
    await asyncio.sleep(0.8)
    assert await rig.owners() == {"one": "team/one"}
    await claimed(rig, "team", "nobody")
    await rig.phase("one", "NotClaimed")
    assert await rig.owners() == {"one": "team/one"}

    async def gone() -> bool:
        return await rig.owners() == {}

    await rig.until(gone)


async def test_two_operators_share_a_cluster_and_never_speak_of_the_same(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    database = open_named(str(tmp_path / "other.db"), None, {})
    await migrate(database)
    first = make()
    other = type(first)(first.cluster, database)
    other.installation = OTHER
    other.operator = other.make()
    await installed(first, OWN, 1)
    await installed(first, OTHER, 2)
    await claimed(first, "theirs", OTHER)
    await claimed(first, "lost", "nobody")
    try:
        for rig in (first, other):
            rig.start()
        for name, namespace in (("one", "team"), ("two", "theirs"), ("three", "lost")):
            await first.apply(name, namespace)
        await first.phase("one", "Live")
        await first.phase("two", "Live", "theirs")
        await first.phase("three", "NotClaimed", "lost")
        await first.quiet()
        assert await first.owners() == {"one": "team/one"}
        assert await other.owners() == {"two": "theirs/two"}
        assert first.cluster.calls["PATCH", "agents/status"] == 3, "one word of each"
    finally:
        await other.stop()
        await other.api.aclose()
        await asyncio.to_thread(database.close)
