"""An event as it comes to agents, whoever told it: a fact of the journal, or a CloudEvent from elsewhere.

Attributes are texts by their names. Data is JSON as it came, or bytes of another kind; neither is looked into before
somebody asks. `seq` is a fact's place in the journal, and None for what comes from elsewhere.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from chimera.events.delivery.entries import Entry
from chimera.gateway.eventing.errors import InvalidEvent

HOPS = "chimerahops"
_WHOLE = frozenset({HOPS})
_NEEDED = ("specversion", "id", "source", "type")
_TEXTS = frozenset({*_NEEDED, "subject", "time", "datacontenttype", "dataschema"})
"""Attributes that are texts in JSON too; others may be booleans and whole numbers (CloudEvents' JSON format, 2.2)."""
MOST_ATTRIBUTES = 64
MOST_TEXT = 1_024


@dataclass(frozen=True, kw_only=True)
class Happening:
    """One event."""

    tenant: str
    attributes: Mapping[str, str]
    json: bytes | None = None
    binary: bytes | None = None
    seq: int | None = None

    @property
    def id(self) -> str:
        """Its id, the same for every delivery; with `source` no other event's."""
        return self.attributes["id"]

    @property
    def source(self) -> str:
        """Who told it."""
        return self.attributes["source"]

    @property
    def type(self) -> str:
        """What kind it is."""
        return self.attributes["type"]

    @property
    def subject(self) -> str:
        """What it is about; empty where it doesn't say."""
        return self.attributes.get("subject", "")

    @property
    def hops(self) -> int:
        """How many agents events have started down to this one."""
        text = self.attributes.get(HOPS, "0")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0

    @cached_property
    def data(self) -> Any:
        """The data decoded: JSON, or the text that it is; None where there is none, or bytes that are no text."""
        if self.json is not None:
            return msgspec.json.decode(self.json)
        try:
            return None if self.binary is None else self.binary.decode()
        except UnicodeDecodeError:
            return None

    def structured(self) -> dict[str, Any]:
        """The event in CloudEvents' JSON form, as a mapping."""
        made: dict[str, Any] = {
            name: int(text) if name in _WHOLE and text.isdigit() else text for name, text in self.attributes.items()
        }
        if self.json is not None:
            made["data"] = msgspec.json.decode(self.json)
        elif self.binary is not None:
            made["data_base64"] = base64.b64encode(self.binary).decode()
        return made


def of_entry(entry: Entry) -> Happening:
    """A fact of the journal."""
    fact = entry.fact
    return Happening(tenant=fact.tenant, attributes=entry.attributes, json=bytes(fact.data), seq=fact.seq)


def of_structured(tenant: str, event: Mapping[str, Any], seq: int | None = None) -> Happening:
    """An event in CloudEvents' JSON form. Raises `InvalidEvent`."""
    attributes: dict[str, str] = {}
    json = binary = None
    for name, value in event.items():
        if name == "data":
            json = None if value is None else msgspec.json.encode(value)
        elif name == "data_base64":
            try:
                binary = base64.b64decode(str(value), validate=True)
            except binascii.Error:
                raise _wrong("its `data_base64` is no base64") from None
        elif value is not None:
            attributes[name] = _text(name, value)
    return checked(Happening(tenant=tenant, attributes=attributes, json=json, binary=binary, seq=seq))


def _text(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if name in _TEXTS or not isinstance(value, int):
        raise _wrong(f"its attribute {name[:40]!r} is no text")
    return str(value).lower() if isinstance(value, bool) else str(value)


def checked(made: Happening) -> Happening:
    """The event, where its attributes are as CloudEvents 1.0 wants them. Raises `InvalidEvent`."""
    attributes = made.attributes
    for name in _NEEDED:
        if not attributes.get(name):
            raise _wrong(f"it has no {name!r}")
    if attributes["specversion"] != "1.0":
        raise _wrong(f"its specversion is {attributes['specversion'][:20]!r}, and 1.0 is what is known")
    if len(attributes) > MOST_ATTRIBUTES:
        raise _wrong(f"it has {len(attributes)} attributes; {MOST_ATTRIBUTES} may be")
    for name, text in attributes.items():
        if not (name.isascii() and name.isalnum() and name == name.lower()) or len(text) > MOST_TEXT:
            raise _wrong(f"its attribute {name[:40]!r} has no allowed name, or more than {MOST_TEXT} characters")
    return made


def _wrong(what: str) -> InvalidEvent:
    return InvalidEvent(f"this is no CloudEvent: {what}", next_step="see cloudevents.io, version 1.0")
