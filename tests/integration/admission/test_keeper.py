"""The webhook's certificates in a cluster's API: made, believed, changed, forgotten, and nothing done in between."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from chimera.adapters.substrates.knative.access import ClusterAccess, NoToken
from chimera.adapters.substrates.knative.admission.certificates import LIFE, OVERLAP, RENEW, SETTLE, Shown
from chimera.adapters.substrates.knative.admission.judging import AgentJudge
from chimera.adapters.substrates.knative.admission.keeper import CertificateKeeper, CurrentCertificate
from chimera.adapters.substrates.knative.admission.manifests import NAME, configuration_name
from chimera.adapters.substrates.knative.client import Kubernetes
from chimera.adapters.substrates.knative.rights import CONTROL_PLANE, RIGHTS
from chimera.testing.clock import ManualClock
from chimera.testing.cluster import FakeCluster, refusal

NAMES = ("chimera-admission.chimera.svc",)
CONFIGURATIONS = "validatingwebhookconfigurations"


class Rig:
    """What an installation makes, a keeper and a process that shows the certificate."""

    def __init__(self, fake: FakeCluster, api: Kubernetes) -> None:
        self.fake, self.api, self.clock = fake, api, ManualClock()
        self.shown: list[Shown] = []
        self.current = CurrentCertificate(
            api, namespace="chimera", secret="chimera-admission", names=NAMES, show=self.shown.append
        )
        self.keeper = self.another()
        self._nudges = 0

    def another(self) -> CertificateKeeper:
        return CertificateKeeper(
            self.api,
            self.clock,
            namespace="chimera",
            secret="chimera-admission",
            configuration="chimera.chimera",
            names=NAMES,
        )

    async def install(self) -> None:
        meta = {"name": "chimera-admission", "namespace": "chimera"}
        await self.fake.put("secrets", {"apiVersion": "v1", "kind": "Secret", "metadata": meta})
        webhooks = [{"name": f"{name}.chimera.ecosystem", "clientConfig": {"service": {}}} for name in ("one", "two")]
        await self.fake.put(CONFIGURATIONS, {"metadata": {"name": "chimera.chimera"}, "webhooks": webhooks})

    async def after(self, seconds: float) -> None:
        """Let time pass, and the keeper see that it did: anything that happens to the Secret wakes it."""
        self.clock.advance(seconds)
        self._nudges += 1
        secret = self.fake.object("secrets", "chimera", "chimera-admission")
        assert secret is not None
        secret["metadata"]["labels"] = {"nudge": str(self._nudges)}
        await self.fake.put("secrets", secret)

    async def until(self, condition: Callable[[], bool], each: float) -> None:
        """Let `each` seconds pass, more than once where the keeper had not yet seen what they are counted from."""
        for _ in range(5):
            await self.after(each)
            with suppress(TimeoutError):
                async with asyncio.timeout(2):
                    while not condition():  # noqa: ASYNC110 - what is waited for happens in a server
                        await asyncio.sleep(0.01)
                    return
        raise AssertionError("it did not happen")

    def data(self) -> dict[str, str]:
        secret = self.fake.object("secrets", "chimera", "chimera-admission") or {}
        return {name: base64.b64decode(value).decode() for name, value in secret.get("data", {}).items()}

    def bundles(self) -> list[str]:
        found = self.fake.object(CONFIGURATIONS, "", "chimera.chimera") or {"webhooks": []}
        told = [one["clientConfig"].get("caBundle", "") for one in found["webhooks"]]
        return [base64.b64decode(one).decode() for one in told]

    def believed(self, *authorities: str) -> bool:
        return self.bundles() == ["".join(authorities)] * 2


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with FakeCluster() as fake:
        api = Kubernetes(ClusterAccess(server=fake.url, tls=None, credentials=NoToken(), namespace="default"))
        yield Rig(fake, api)
        await api.aclose()


@pytest.fixture
async def running() -> AsyncIterator[Callable[[Any], "asyncio.Task[None]"]]:
    tasks: list[asyncio.Task[None]] = []

    def start(work: Any) -> "asyncio.Task[None]":
        tasks.append(asyncio.create_task(work))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in a server
            await asyncio.sleep(0.01)


async def begun(rig: Rig, start: Callable[[Any], Any]) -> str:
    """A running keeper and process; the first authority."""
    await rig.install()
    start(rig.keeper.run())
    start(rig.current.run())
    await until(lambda: bool(rig.shown) and rig.believed(rig.shown[0].authority))
    return rig.shown[0].authority


async def test_the_first_certificate_is_kept_believed_and_shown(rig: Rig, running: Callable[[Any], Any]) -> None:
    authority = await begun(rig, running)
    assert rig.data()["ca.crt"] == authority
    assert rig.shown[0].ends == pytest.approx(rig.clock.wall() + LIFE, abs=1)
    webhooks = (rig.fake.object(CONFIGURATIONS, "", "chimera.chimera") or {})["webhooks"]
    assert all(one["clientConfig"]["service"] == {} for one in webhooks), "the installation's fields stay"


async def test_a_change_is_staged_promoted_and_forgotten_without_a_moment_of_disbelief(
    rig: Rig, running: Callable[[Any], Any]
) -> None:
    first = await begun(rig, running)
    await rig.after(LIFE - RENEW + 1)
    await until(lambda: "next-ca.crt" in rig.data())
    second = rig.data()["next-ca.crt"]
    await until(lambda: rig.believed(first, second))
    assert [one.authority for one in rig.shown] == [first], "nobody shows what may not be believed yet"
    await rig.until(lambda: len(rig.shown) == 2 and rig.believed(second, first), SETTLE + 1)
    assert rig.shown[1].authority == second
    await rig.until(lambda: rig.believed(second), OVERLAP + 1)
    assert sorted(rig.data()) == ["ca.crt", "tls.crt", "tls.key"]


async def test_another_keeper_goes_on_where_the_first_was_killed(rig: Rig, running: Callable[[Any], Any]) -> None:
    await rig.install()
    task = running(rig.keeper.run())
    running(rig.current.run())
    await until(lambda: bool(rig.shown) and rig.believed(rig.shown[0].authority))
    await rig.after(LIFE - RENEW + 1)
    await until(lambda: "next-ca.crt" in rig.data() and rig.believed(rig.data()["ca.crt"], rig.data()["next-ca.crt"]))
    task.cancel()
    rig.clock.advance(SETTLE * 10)
    running(rig.another().run())
    await asyncio.sleep(0.1)
    assert len(rig.shown) == 1, "what another saw is not what this one saw"
    await rig.until(lambda: len(rig.shown) == 2, SETTLE + 1)


async def test_nothing_is_asked_or_written_while_nothing_is_due(rig: Rig, running: Callable[[Any], Any]) -> None:
    await begun(rig, running)
    before = rig.fake.calls.copy()
    for _ in range(5):
        await rig.after(86400.0)
    await asyncio.sleep(0.2)
    assert rig.fake.calls == before


async def test_what_somebody_broke_is_mended(rig: Rig, running: Callable[[Any], Any]) -> None:
    first = await begun(rig, running)
    await rig.fake.put("secrets", {"metadata": {"name": "chimera-admission", "namespace": "chimera"}, "data": {}})
    await until(lambda: len(rig.shown) == 2 and rig.believed(rig.shown[1].authority))
    assert rig.shown[1].authority != first


async def test_a_bundle_that_somebody_else_set_stays_and_the_log_says_so(
    rig: Rig, running: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    await rig.install()
    rig.fake.faults.append(
        lambda request: (
            refusal(409, "Conflict", "Apply failed with 1 conflict: conflict with kubectl-edit")(request)
            if request.method == "PATCH" and CONFIGURATIONS in request.path
            else None
        )
    )
    running(rig.keeper.run())
    await until(lambda: "could not be kept" in caplog.text)
    (record,) = [one for one in caplog.records if "could not be kept" in one.message]
    assert "who owns the fields" in vars(record)["next_step"]
    assert rig.bundles() == ["", ""]


async def test_the_webhooks_rights_are_exactly_what_it_does(rig: Rig, running: Callable[[Any], Any]) -> None:
    named: set[tuple[str, str]] = set()

    def note(request: Any) -> None:
        plural = CONFIGURATIONS if CONFIGURATIONS in request.path else "secrets"
        chosen = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        if "agenttemplates" not in request.path:
            named.add((plural, chosen or request.path.rpartition("/")[2]))

    rig.fake.faults.append(note)
    running(AgentJudge(rig.api).run())
    await begun(rig, running)
    await until(lambda: rig.fake.calls["WATCH", "agenttemplates"] == 1)
    verbs = {"GET": "list", "WATCH": "watch", "PATCH": "patch"}
    done = {(plural, verbs[method]) for method, plural in rig.fake.calls}
    granted = {one.resource: one for one in RIGHTS[CONTROL_PLANE] if one.group != "serving.knative.dev"}
    held = {plural: granted[plural] for plural in ("secrets", CONFIGURATIONS, "agenttemplates")}
    assert done == {(plural, verb) for plural, right in held.items() for verb in right.verbs}
    assert named == {("secrets", "chimera-admission"), (CONFIGURATIONS, "chimera.chimera")}
    assert held["secrets"].only == (NAME,) and held[CONFIGURATIONS].only == (configuration_name("{namespace}"),)


async def test_before_anything_is_installed_it_waits(rig: Rig, running: Callable[[Any], Any]) -> None:
    task = running(rig.keeper.run())
    await asyncio.sleep(0.1)
    assert not task.done() and rig.fake.writes() == 0
    await rig.install()
    await until(lambda: "tls.crt" in rig.data())
