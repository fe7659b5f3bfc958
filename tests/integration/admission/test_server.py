"""The webhook's server as an API server sees it: TLS by a certificate that changes, bounds, answers by the contract."""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import msgspec
import pytest

from chimera.adapters.substrates.knative.admission.certificates import Shown, make_certificate
from chimera.agents.errors import Fault, InvalidDefinition
from chimera.entrypoints.admission import server as serving
from chimera.entrypoints.admission.review import Asked, Reviewed, review
from chimera.entrypoints.admission.server import AdmissionServer
from chimera.kernel.clock import SystemClock

NAME = "chimera-admission.chimera.svc"


def judge(resource: dict[str, Any]) -> list[Fault]:
    if "broken" in resource["spec"]:
        raise InvalidDefinition([Fault(path="spec.broken", message="it is"), Fault(path="spec.more", message="also")])
    return [Fault(message="old-fashioned", path="spec.old", severity="warning")] if "old" in resource["spec"] else []


def question(spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    resource = {"metadata": {"name": "one", "namespace": "team"}, "spec": spec}
    asked = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "chimera.ecosystem", "version": "v1", "kind": "Agent"},
        "resource": {"group": "chimera.ecosystem", "version": "v1", "resource": "agents"},
        "operation": "CREATE",
        "userInfo": {"username": "admin", "groups": ["system:authenticated"]},
        "object": resource,
        "oldObject": None,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        "dryRun": False,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {**asked, **changes}}


class Rig:
    def __init__(self, server: AdmissionServer) -> None:
        self.server = server
        self.first = make_certificate((NAME,), SystemClock().wall())

    def show(self, shown: Shown) -> None:
        self.server.show(shown.certificate, shown.key, shown.ends)

    def believing(self, *authorities: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata="".join(authorities))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    async def post(
        self, body: bytes | dict[str, Any], *, tls: ssl.SSLContext | None = None
    ) -> tuple[int, dict[str, Any]]:
        assert self.server.address is not None
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"https://127.0.0.1:{self.server.address[1]}/validate?timeout=3s",
                data=io.BytesIO(data),
                ssl=tls or self.believing(self.first.authority),
                server_hostname=NAME,
                headers={"Content-Type": "application/json"},
            ) as answer,
        ):
            return answer.status, await answer.json()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    def answer(asked: Asked) -> Reviewed:
        return review(asked, judge if asked.resource.resource == "agents" else None)

    found = Rig(AdmissionServer(answer, host="127.0.0.1", port=0))
    task = asyncio.create_task(found.server.run())
    await asyncio.sleep(0)
    assert found.server.address is None, "without a certificate nothing listens"
    found.show(found.first)
    async with asyncio.timeout(10):
        while found.server.address is None:  # noqa: ASYNC110 - it listens at once
            await asyncio.sleep(0.001)
    yield found
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_good_resource_is_allowed_with_its_uid(rig: Rig) -> None:
    status, answer = await rig.post(question({}))
    assert status == 200
    assert answer == {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "allowed": True},
    }


async def test_a_broken_one_is_refused_with_every_problem_in_words_and_as_causes(rig: Rig) -> None:
    _, answer = await rig.post(question({"broken": 1}))
    response = answer["response"]
    assert response["allowed"] is False and response["status"]["code"] == 422
    assert response["status"]["message"].splitlines() == [
        "The definition is not valid: 2 problems",
        "- spec.broken: it is",
        "- spec.more: also",
        "next: correct the places named; `chimera validate` checks a file",
    ]
    assert response["status"]["details"]["causes"] == [
        {"reason": "FieldValueInvalid", "message": "it is", "field": "spec.broken"},
        {"reason": "FieldValueInvalid", "message": "also", "field": "spec.more"},
    ]


async def test_warnings_are_passed_on(rig: Rig) -> None:
    _, answer = await rig.post(question({"old": 1}))
    assert answer["response"]["allowed"] and answer["response"]["warnings"] == ["spec.old: old-fashioned"]


@pytest.mark.parametrize(
    "changes",
    [
        {"operation": "DELETE", "object": None, "oldObject": {"spec": {"broken": 1}}},
        {"operation": "UPDATE", "oldObject": {"spec": {"broken": 1}}},
        {"subResource": "status"},
        {"resource": {"group": "chimera.ecosystem", "version": "v1", "resource": "others"}},
    ],
    ids=["deleted", "unchanged", "status", "another kind"],
)
async def test_what_does_not_make_a_definition_broken_is_allowed(rig: Rig, changes: dict[str, Any]) -> None:
    _, answer = await rig.post(question({"broken": 1}, **changes))
    assert answer["response"]["allowed"]


async def test_a_change_that_breaks_it_is_refused(rig: Rig) -> None:
    _, answer = await rig.post(question({"broken": 1}, operation="UPDATE", oldObject={"spec": {}}))
    assert not answer["response"]["allowed"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"kind": "AdmissionReview"}', b"\xff", b"[" * 9_999, b'{"apiVersion":"admission.k8s.io/v1"}'],
)
async def test_what_is_no_question_is_said_to_be_none(rig: Rig, body: bytes) -> None:
    status, answer = await rig.post(body)
    assert status == 400 and "AdmissionReview" in answer["message"]


async def test_a_version_that_is_not_known_is_refused(rig: Rig) -> None:
    status, _ = await rig.post({**question({}), "apiVersion": "admission.k8s.io/v2"})
    assert status == 400


async def test_a_body_has_a_bound_and_a_large_one_is_answered(rig: Rig) -> None:
    status, _ = await rig.post(question({"text": "x" * serving.MAX_BODY}))
    assert status == 413
    status, answer = await rig.post(question({"text": "x" * 1_000_000, "broken": 1}))
    assert status == 200 and not answer["response"]["allowed"]


async def test_who_does_not_send_the_body_is_cut_off(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "READ_TIMEOUT", 0.05)
    assert rig.server.address is not None
    reader, writer = await asyncio.open_connection(
        *rig.server.address, ssl=rig.believing(rig.first.authority), server_hostname=NAME
    )
    writer.write(b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    async with asyncio.timeout(10):
        assert b" 408 " in await reader.readline()
    writer.close()


async def test_more_than_can_be_answered_at_once_is_told_so(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.server, "_free", asyncio.Semaphore(0))
    status, _ = await rig.post(question({}))
    assert status == 503


async def test_another_certificate_is_shown_without_a_restart(rig: Rig) -> None:
    second = make_certificate((NAME,), SystemClock().wall())
    kept = aiohttp.ClientSession()
    assert rig.server.address is not None
    address = f"https://127.0.0.1:{rig.server.address[1]}/readyz"
    tls = rig.believing(rig.first.authority)
    async with kept.get(address, ssl=tls, server_hostname=NAME) as answer:
        assert answer.status == 200
    rig.show(second)
    async with kept.get(address, ssl=tls, server_hostname=NAME) as answer:
        assert answer.status == 200, "a connection that began before goes on"
    await kept.close()
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await rig.post(question({}), tls=rig.believing(rig.first.authority))
    status, _ = await rig.post(question({}), tls=rig.believing(rig.first.authority, second.authority))
    assert status == 200
    assert rig.server.metrics.ends._value.get() == second.ends


async def test_a_name_that_it_was_not_made_for_is_not_believed(rig: Rig) -> None:
    assert rig.server.address is not None
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(
            *rig.server.address, ssl=rig.believing(rig.first.authority), server_hostname="other.chimera.svc"
        )


async def test_old_protocols_are_not_spoken(rig: Rig) -> None:
    assert rig.server.address is not None
    context = rig.believing(rig.first.authority)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    _, writer = await asyncio.open_connection(*rig.server.address, ssl=context, server_hostname=NAME)
    assert writer.get_extra_info("ssl_object").version() == "TLSv1.2"
    writer.close()
    assert rig.server._context.minimum_version == ssl.TLSVersion.TLSv1_2
