"""The three forms of an event, with the package `cloudevents` as their judge."""

import json
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from cloudevents.v1.http import from_http
from hypothesis import given
from hypothesis import strategies as st

from chimera.events import cloudevents as ce
from chimera.events.model import RecordedFact

DATA: dict[str, Any] = {"name": "käse", "by": "key:1"}


def recorded(subject: str = "agents/anna", traceparent: str | None = None) -> RecordedFact:
    return RecordedFact(
        seq=42,
        id="evt_1",
        type="tenant.created",
        tenant="t",
        subject=subject,
        at=1_700_000_000.25,
        data=msgspec.Raw(msgspec.json.encode(DATA)),
        traceparent=traceparent,
    )


def test_the_structured_form_is_an_event_of_version_1_0() -> None:
    headers, body = ce.structured(ce.event_of(recorded(), "https://chimera.example.com"))

    assert headers["Content-Type"].startswith("application/cloudevents+json")
    assert json.loads(body) == {
        "specversion": "1.0",
        "id": "evt_1",
        "source": "https://chimera.example.com/v1/tenants/t",
        "type": "chimera.tenant.created",
        "subject": "agents/anna",
        "time": "2023-11-14T22:13:20.250000Z",
        "datacontenttype": "application/json",
        "dataschema": "urn:chimera:fact:tenant.created:1",
        "sequence": "00000000000000000042",
        "tenant": "t",
        "data": DATA,
    }


def test_the_batched_form_is_a_list_of_the_structured_one() -> None:
    events = [ce.event_of(recorded()), ce.event_of(recorded(traceparent="00-1-2-01"))]
    headers, body = ce.batched(events)

    assert headers["Content-Type"].startswith("application/cloudevents-batch+json")
    assert json.loads(body) == [json.loads(ce.structured(event)[1]) for event in events]


@given(subject=st.text(st.characters(codec="utf-8"), min_size=1, max_size=50))
def test_binary_headers_hold_any_text_as_ascii_and_lose_nothing(subject: str) -> None:
    headers, body = ce.binary(ce.event_of(recorded(subject)))

    assert json.loads(body) == DATA
    assert all(0x20 < ord(one) < 0x7F and one != '"' for one in headers["ce-subject"])
    assert unquote(headers["ce-subject"]) == subject
    assert "ce-datacontenttype" not in headers


@pytest.mark.parametrize("name", ["structured", "binary"])
def test_the_sdk_reads_what_we_write(name: str) -> None:
    headers, body = getattr(ce, name)(ce.event_of(recorded(traceparent="00-1-2-01")))
    found = from_http({key.lower(): value for key, value in headers.items()}, body)

    assert {key: found[key] for key in ("id", "type", "subject", "sequence", "tenant", "traceparent")} == {
        "id": "evt_1",
        "type": "chimera.tenant.created",
        "subject": "agents/anna",
        "sequence": "00000000000000000042",
        "tenant": "t",
        "traceparent": "00-1-2-01",
    }
    assert found.data == DATA
