"""The catalogue of facts: what is in it is recorded somewhere, and what is recorded is in it."""

import ast
import inspect
from pathlib import Path
from typing import get_args

import jsonschema
import msgspec
import pytest

import chimera
from chimera.adapters.storage.state.subjects import _PAST
from chimera.events.catalogue import FACTS, check, schema_of
from chimera.events.model import Fact
from chimera.gateway.events.ports import Changed
from chimera.gateway.identity.ports import KeyChange

SOURCE = Path(chimera.__file__).parent
MADE = {
    *(f"key.{what}" for what in ("created", *get_args(KeyChange))),
    *(f"subscription.{what}" for what in get_args(Changed)),
    *(f"subject.{what}" for what in _PAST.values()),
}
"""Names that the code puts together."""


def said_in(file: Path) -> set[str]:
    """The texts in a file."""
    constants = (node.value for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


def recorded() -> set[str]:
    names = set(MADE)
    for folder in ("adapters", "delivery"):
        for file in (SOURCE / folder).rglob("*.py"):
            names |= said_in(file)
    # What became of a change or a rollout is put behind the word in one place each.
    names |= {f"change.{what}" for what in said_in(SOURCE / "delivery" / "transitions.py")}
    for folder in ("delivery/rollout", "adapters/storage/rollouts"):
        names |= {f"rollout.{what}" for file in (SOURCE / folder).glob("*.py") for what in said_in(file)}
    return names


def fact(kind: str, data: object) -> Fact:
    return Fact(id="evt_1", type=kind, tenant="t", subject="s", at=1.0, data=data)  # type: ignore[arg-type]


def test_every_kind_of_fact_is_recorded_somewhere() -> None:
    assert set(FACTS) - recorded() == set()


@pytest.mark.parametrize("name", FACTS)
def test_every_kind_has_a_schema_that_is_one(name: str) -> None:
    kind = FACTS[name]
    schema = schema_of(kind)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["description"] == inspect.cleandoc(kind.data.__doc__ or "")
    assert kind.doc.endswith(".")
    assert "additionalProperties" not in schema, "later releases may add fields"


def test_data_may_be_a_mapping_or_the_struct() -> None:
    data = {"name": "t", "by": "system:test"}

    check(fact("tenant.created", data))
    check(fact("tenant.created", msgspec.convert(data, FACTS["tenant.created"].data)))


@pytest.mark.parametrize("data", [{}, {"name": "t"}, {"name": 1, "by": "x"}, {"name": "t", "by": "x", "more": 1}])
def test_data_of_another_form_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        check(fact("tenant.created", data))
