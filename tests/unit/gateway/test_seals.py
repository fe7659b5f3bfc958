"""Seals on the platform's own events."""

import dataclasses

import pytest

from chimera.gateway.eventing.errors import InvalidEvent
from chimera.gateway.eventing.happening import Happening, of_structured
from chimera.gateway.eventing.seals import SEAL, is_genuine, seal, seal_key

KEY = seal_key(b"the secret that gateways share")
ATTRIBUTES = {
    **{"specversion": "1.0", "id": "evt_1", "source": "/v1/tenants/default", "type": "chimera.task.failed"},
    **{"subject": "agents/anna/tasks/1", "time": "2026-01-31T09:30:00.000000Z", "tenant": "default"},
}
DATA = b'{"task":"1"}'


def sealed(**changes: str) -> Happening:
    attributes = {**ATTRIBUTES, SEAL: seal(KEY, ATTRIBUTES, DATA), **changes}
    return Happening(tenant="default", attributes=attributes, json=DATA)


def test_a_seal_holds_whatever_a_broker_adds_or_writes_anew() -> None:
    added = {"knativearrivaltime": "2026-01-31T09:30:01Z", "time": "2026-01-31T09:30:00Z"}
    assert is_genuine(KEY, sealed()) and is_genuine(KEY, sealed(**added))


@pytest.mark.parametrize("name", ["id", "source", "type", "subject", "tenant", "chimerahops", "sequence", SEAL])
def test_nothing_that_an_event_says_can_be_changed(name: str) -> None:
    assert not is_genuine(KEY, sealed(**{name: "chimera.other"}))
    assert not is_genuine(KEY, dataclasses.replace(sealed(), json=b'{"task":"2"}'))
    assert not is_genuine(seal_key(b"another"), sealed())


def test_events_of_others_need_none() -> None:
    assert is_genuine(KEY, Happening(tenant="default", attributes={**ATTRIBUTES, "type": "com.example.paid"}))


def test_an_event_is_the_same_in_both_directions() -> None:
    event = {**ATTRIBUTES, "chimerahops": 2, "data": {"task": "1"}}
    read = of_structured("default", event)
    assert read.hops == 2 and read.data == {"task": "1"} and read.structured() == event
    assert of_structured("default", {**ATTRIBUTES, "sampled": True, "subject": None}).attributes["sampled"] == "true"
    binary = of_structured("default", {**ATTRIBUTES, "data_base64": "/w=="})
    assert binary.binary == b"\xff" and binary.data is None and binary.structured()["data_base64"] == "/w=="


@pytest.mark.parametrize(
    "event",
    [
        {**ATTRIBUTES, "id": ""},
        {**ATTRIBUTES, "specversion": "0.3"},
        {**ATTRIBUTES, "UPPER": "x"},
        {**ATTRIBUTES, "long": "x" * 2_000},
        {**ATTRIBUTES, "data_base64": "%"},
        {**ATTRIBUTES, "id": 946},
        {**ATTRIBUTES, "time": False},
        {**ATTRIBUTES, "time": [84]},
        {**ATTRIBUTES, "dataschema": -2.3e16},
        {**ATTRIBUTES, "extension": {"a": 1}},
        {**ATTRIBUTES, "extension": 0.5},
    ],
)
def test_what_is_no_event_is_refused(event: dict[str, object]) -> None:
    with pytest.raises(InvalidEvent):
        of_structured("default", event)
