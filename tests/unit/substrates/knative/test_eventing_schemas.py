"""The Broker and the Trigger against Knative Eventing's own schemas, those of the release that is run.

`schemas/broker-1.20.json` and `trigger-1.20.json` are `openAPIV3Schema` of v1 in `config/core/resources` of
knative.dev/eventing at v0.47.0 (Apache-2.0), without descriptions.
"""

import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from chimera.adapters.substrates.knative.installation import Installation, manifests
from chimera.adapters.substrates.knative.settings import KnativeSettings
from chimera.testing.schemas import strict

CHOSEN = Installation(knative=KnativeSettings(), database="postgresql://chimera@db.example/chimera", eventing=True)
KINDS = {one["kind"]: one for one in manifests(CHOSEN) if one["apiVersion"].startswith("eventing.knative.dev/")}


def judge(one: dict[str, Any]) -> None:
    schema = strict((Path(__file__).parent / "schemas" / f"{one['kind'].lower()}-1.20.json").read_bytes())
    jsonschema.Draft202012Validator(schema).validate(one)


def test_what_carries_events_is_a_broker_and_a_trigger_of_eventing() -> None:
    assert KINDS.keys() == {"Broker", "Trigger"}
    for one in KINDS.values():
        judge(one)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Trigger", ("spec", "delivery", "backoffDelay"), 5),
        ("Trigger", ("spec", "delivery", "retry"), "seven"),
        ("Trigger", ("spec", "delivery", "deadLetterSink", "url"), "http://x"),
        ("Trigger", ("spec", "subscriber"), "http://x"),
        ("Broker", ("spec", "nonsense"), 1),
    ],
    ids=str,
)
def test_what_is_wrong_is_found(kind: str, path: tuple[str, ...], value: Any) -> None:
    one = copy.deepcopy(KINDS[kind])
    *before, last = path
    place: Any = one
    for step in before:
        place = place[step]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        judge(one)
